"""A model whose output is a file: its letters, in capitals."""

import tempfile

from cog import BaseRunner, Path


class Runner(BaseRunner):
    """Writes a file."""

    def run(self, text: str) -> Path:
        """Write the text in capitals."""
        folder = Path(tempfile.mkdtemp())
        out = folder / "out.txt"
        out.write_text(text.upper())
        return Path(out)
