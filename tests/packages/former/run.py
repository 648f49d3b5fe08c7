"""A model that takes an input of every kind: what generated requests are thrown at."""

from cog import BaseModel, BaseRunner, Input, Path


class Seen(BaseModel):
    """What arrived."""

    words: int
    total: float
    file_bytes: int


class Runner(BaseRunner):
    """Counts."""

    def run(
        self,
        text: str = Input(description="Some words", min_length=1, max_length=200),
        number: float = Input(description="A number", default=0.5, ge=-1, le=1),
        count: int | None = Input(description="An integer", default=None, ge=0),
        loud: bool = Input(description="A switch", default=False),
        way: str = Input(description="A choice", default="up", choices=["up", "down"]),
        tags: list[str] = Input(description="A list", default=[]),
        weights: list[float] = Input(description="Numbers", default=[]),
        file: Path | None = Input(description="A file", default=None),
    ) -> Seen:
        """Count what there is."""
        total = number + (count or 0) + sum(weights) + loud + (way == "up")
        size = len(file.read_bytes()) if file else 0
        return Seen(words=len(text.split()) + len(tags), total=min(total, 1e300), file_bytes=size)
