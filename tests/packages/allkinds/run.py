"""A model that no page knows: an input and an output of every kind."""

import struct
import tempfile
import time
import wave
import zlib
from typing import Any

from cog import BaseModel, BaseRunner, Input, Path, Secret


class InvalidInput(ValueError):
    """The input cannot be used; the message is for the person who sent it."""


class Everything(BaseModel):
    """What a page has to show."""

    score: float
    words_per_minute: int
    picture: Path
    sound: Path
    letter: Path
    detections: list[dict[str, Any]]
    pauses: list[dict[str, Any]]
    people: list[dict[str, Any]]
    transcript: str
    seen: dict[str, Any]
    warnings: list[str]


class Runner(BaseRunner):
    """Says what it got."""

    def run(
        self,
        photo: Path = Input(description="A picture"),
        speech: Path | None = Input(description="A recording", default=None),
        title: str = Input(description="A short text", default="untitled", min_length=2),
        code: str = Input(description="Three digits", default="123", regex=r"^[0-9]{3}$"),
        strength: float = Input(description="How much", default=0.5, ge=0, le=1),
        steps: int = Input(description="How often", default=3, ge=1, le=20),
        seed: int | None = Input(description="Any whole number", default=None),
        style: str = Input(
            description="One of three", default="oil", choices=["oil", "ink", "wax"]
        ),
        loud: bool = Input(description="A switch", default=False),
        tags: list[str] = Input(description="Words", default=["a", "b"]),
        pages: list[Path] = Input(description="Files", default=[]),
        either: int | str | list[str] = Input(description="One of three types", default=7),
        sure: bool | None = Input(description="Yes, no, or left to the model", default=None),
        options: dict[str, Any] = Input(description="An object", default={}),
        points: list[dict[str, Any]] = Input(description="Objects", default=[]),
        token: Secret = Input(description="A secret", default=None),
        delay_s: float = Input(description="Seconds to take", default=0, ge=0, le=60),
        mode: str = Input(
            description="How it ends", default="well", choices=["well", "invalid", "raise"]
        ),
    ) -> Everything:
        """Take as long as asked, say how far it is, and return everything."""
        until = time.monotonic() + delay_s
        for i in range(steps):
            print(f"step {i + 1} of {steps}: {100 * (i + 1) // steps} %")
            while time.monotonic() < until - delay_s * (steps - 1 - i) / steps:
                time.sleep(0.01)
        if mode == "invalid":
            raise InvalidInput("Cannot use 'title': it is not to my taste")
        if mode == "raise":
            raise RuntimeError("out of paint")
        folder = Path(tempfile.mkdtemp())
        (folder / "letter.txt").write_text(f"To {title}")
        return Everything(
            score=87.5,
            words_per_minute=142,
            picture=drawn(folder / "picture.png", 240, 160),
            sound=tone(folder / "sound.wav"),
            letter=Path(folder / "letter.txt"),
            detections=[
                {"label": "cat", "score": 0.91, "box": [10, 10, 90, 120]},
                {"label": "dog", "score": 0.42, "box": [60, 30, 180, 150]},
            ],
            pauses=[
                {"start": 0.2, "end": 0.6, "position": "within"},
                {"start": 1.1, "end": 1.4, "position": "between"},
            ],
            people=[{"name": "Ada", "age": 36}, {"name": "Grace", "age": 85}],
            transcript="First line\nsecond line, and a long one that goes on. " * 3,
            seen={
                "photo_bytes": len(photo.read_bytes()),
                "speech_head": speech.read_bytes()[:4].decode("latin-1") if speech else None,
                "title": title, "code": code, "strength": strength, "seed": seed, "style": style,
                "loud": loud, "tags": tags, "pages": [p.read_text() for p in pages],
                "either": either, "sure": sure, "options": options, "points": points,
                "token": len(token.get_secret_value()) if token else 0,
            },
            warnings=["This is a test."],
        )  # fmt: skip


def drawn(path: Path, width: int, height: int) -> Path:
    """A PNG with a gradient."""
    rows = b"".join(
        b"\0" + bytes(v for x in range(width) for v in (x % 256, y % 256, 128))
        for y in range(height)
    )

    def chunk(kind: bytes, data: bytes) -> bytes:
        whole = kind + data
        return struct.pack(">I", len(data)) + whole + struct.pack(">I", zlib.crc32(whole))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    return Path(path)


def tone(path: Path) -> Path:
    """Half a second of a square wave."""
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(struct.pack("<20h", *([4000] * 10 + [-4000] * 10)) * 200)
    return Path(path)
