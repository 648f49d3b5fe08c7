"""A model that says what Python values arrived: what becomes of a caller's types on the way."""

from cog import BaseModel, BaseRunner, Input, Path


class Seen(BaseModel):
    """What arrived, as `repr` writes it, and what the files hold."""

    values: str
    files: list[str]


class Runner(BaseRunner):
    """Looks."""

    def run(
        self,
        whole: int | None = Input(description="An integer", default=None),
        at_most: int = Input(description="An integer of limits", default=0, le=1000),
        wholes: list[int] = Input(description="Integers", default=[]),
        number: float = Input(description="A number", default=0.0),
        either: str | float = Input(description="Text or a number", default=""),
        settings: dict | None = Input(description="An object", default=None),
        files: list[Path] = Input(description="Files", default=[]),
        file: Path | None = Input(description="A file", default=None),
    ) -> Seen:
        """Show."""
        values = {
            "whole": whole,
            "at_most": at_most,
            "wholes": wholes,
            "number": number,
            "either": either,
            "settings": settings,
        }
        held = [f.read_text() for f in files] + ([file.read_text()] if file else [])
        return Seen(values=repr(values), files=held)
