"""A model whose output holds files: one, a list of them, and text that only looks like one."""

import tempfile

from cog import BaseModel, BaseRunner, Input, Path


class Painting(BaseModel):
    """What was painted."""

    picture: Path
    layers: list[Path]
    text: str


class Runner(BaseRunner):
    """Writes files."""

    def run(
        self,
        text: str = Input(description="What to write into the files", default="a cat"),
        layers: int = Input(description="How many layers", default=2, ge=0, le=50),
        size_bytes: int = Input(description="Of the picture", default=0, ge=0, le=1 << 26),
        suffix: str = Input(description="Of the picture's name", default=".png"),
    ) -> Painting:
        """A picture of so many bytes, or of the text, and layers of the text."""
        folder = Path(tempfile.mkdtemp())
        picture = folder / f"picture{suffix}"
        picture.write_bytes(bytes(range(256)) * (size_bytes // 256) or text.encode())
        made = [folder / f"{i}.txt" for i in range(layers)]
        for i, layer in enumerate(made):
            layer.write_text(f"{text} {i}")
        return Painting(picture=picture, layers=made, text=f"data:text/plain;base64,{text}")
