"""The packages that `callme new` makes. tests/e2e/test_new.py runs each of them."""

from __future__ import annotations

from collections.abc import Mapping

from router.cli.new_samples import picture_png, tone_wav

COG = "0.23.1"

COG_YAML = f"""\
# How to build and run this model. Every key: https://cog.run/yaml
build:
  python_version: "3.11"
  sdk_version: "{COG}"
  python_requirements: requirements.txt
run: "run.py:Runner"
"""

# What callme makes in the folder: the schema of the inputs, and environments.
GITIGNORE = ".cog\n.venv\n__pycache__\n"
# `cog build` refuses a .dockerignore with .cog in it: it puts the schema there.
DOCKERIGNORE = ".cog/environments\n.cog/install.*\n.venv\n**/__pycache__\n"

TEXT_RUN = '''\
"""Counts the words of a text."""

from collections import Counter

from cog import BaseModel, BaseRunner, Input


class InvalidInput(ValueError):
    """Raise this when an input cannot be used: the caller gets 422 and your message."""


class Output(BaseModel):
    words: int
    most_used: list[str]


class Runner(BaseRunner):
    def setup(self) -> None:
        """Load the model here. This runs once, when the process starts."""
        self.ignored = {"a", "an", "and", "the", "of", "to"}

    def run(
        self,
        text: str = Input(description="The text to count"),
        top: int = Input(description="How many words to name", default=3, ge=1, le=20),
    ) -> Output:
        words = [word.strip(".,;:!?").lower() for word in text.split()]
        if not words:
            raise InvalidInput("Cannot count 'text': it has no words")
        counted = Counter(word for word in words if word not in self.ignored)
        return Output(words=len(words), most_used=[word for word, _ in counted.most_common(top)])
'''
TEXT_TEST = '''\
"""Run it: python test_run.py"""

from run import InvalidInput, Runner


def runner() -> Runner:
    made = Runner()
    made.setup()
    return made


def test_it_counts() -> None:
    output = runner().run(text="The cat and the hat, the cat.", top=1)
    assert (output.words, output.most_used) == (7, ["cat"])


def test_no_words() -> None:
    try:
        runner().run(text=" ", top=1)
    except InvalidInput:
        return
    raise AssertionError("nothing was raised")


if __name__ == "__main__":
    test_it_counts()
    test_no_words()
    print("ok")
'''

STREAM_RUN = '''\
"""Sends a text word by word, as a language model does."""

import time
from collections.abc import Iterator

from cog import BaseRunner, Input, streaming


class Runner(BaseRunner):
    @streaming
    def run(
        self,
        text: str = Input(description="The text to send"),
        delay_s: float = Input(description="Seconds between two words", default=0.1, ge=0, le=5),
    ) -> Iterator[str]:
        for word in text.split():
            time.sleep(delay_s)
            yield word + " "
'''
STREAM_TEST = '''\
"""Run it: python test_run.py"""

from run import Runner


def test_it_sends_each_word() -> None:
    assert list(Runner().run(text="one two", delay_s=0)) == ["one ", "two "]


if __name__ == "__main__":
    test_it_sends_each_word()
    print("ok")
'''

PICTURE_RUN = '''\
"""Makes a picture grey, or turns its colours round."""

import tempfile

from cog import BaseRunner, Input, Path
from PIL import Image, ImageOps, UnidentifiedImageError


class InvalidInput(ValueError):
    """Raise this when an input cannot be used: the caller gets 422 and your message."""


class Runner(BaseRunner):
    def run(
        self,
        image: Path = Input(description="A picture"),
        effect: str = Input(description="What to do", default="grey", choices=["grey", "invert"]),
    ) -> Path:
        try:
            picture = ImageOps.exif_transpose(Image.open(image)).convert("RGB")
        except (UnidentifiedImageError, OSError) as error:
            raise InvalidInput("Cannot read 'image': it is not a picture") from error
        made = ImageOps.grayscale(picture) if effect == "grey" else ImageOps.invert(picture)
        # Files below the temporary folder are deleted after the answer.
        path = Path(tempfile.mkdtemp()) / "picture.png"
        made.save(path)
        return path
'''
PICTURE_TEST = '''\
"""Run it: python test_run.py"""

import tempfile
from pathlib import Path

from PIL import Image
from run import Runner


def test_it_turns_colours_round() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "white.png")
        Image.new("RGB", (4, 3), "white").save(path)
        made = Image.open(Runner().run(image=path, effect="invert"))
    assert (made.size, made.getpixel((0, 0))) == ((4, 3), (0, 0, 0))


if __name__ == "__main__":
    test_it_turns_colours_round()
    print("ok")
'''

AUDIO_RUN = '''\
"""Makes a WAV file as loud as it can be."""

import array
import sys
import tempfile
import wave

from cog import BaseRunner, Input, Path


class InvalidInput(ValueError):
    """Raise this when an input cannot be used: the caller gets 422 and your message."""


class Runner(BaseRunner):
    def run(
        self,
        audio: Path = Input(description="A WAV file with 16 bits a sample"),
        peak: float = Input(description="The loudest sample, of 1", default=0.9, ge=0.1, le=1),
    ) -> Path:
        try:
            with wave.open(str(audio)) as read:
                params, data = read.getparams(), read.readframes(read.getnframes())
        except (wave.Error, EOFError) as error:
            raise InvalidInput("Cannot read 'audio': it is not a WAV file") from error
        if params.sampwidth != 2:
            raise InvalidInput("Cannot read 'audio': it must have 16 bits a sample")
        samples = array.array("h", data)
        if sys.byteorder == "big":
            samples.byteswap()
        loudest = max(map(abs, samples), default=0)
        if loudest:
            samples = array.array("h", (round(s * peak * 32767 / loudest) for s in samples))
        if sys.byteorder == "big":
            samples.byteswap()
        path = Path(tempfile.mkdtemp()) / "loud.wav"
        with wave.open(str(path), "wb") as written:
            written.setparams(params)
            written.writeframes(samples.tobytes())
        return path
'''
AUDIO_TEST = '''\
"""Run it: python test_run.py"""

import array
import tempfile
import wave
from pathlib import Path

from run import Runner


def test_it_is_loud() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "quiet.wav")
        with wave.open(str(path), "wb") as written:
            written.setparams((1, 2, 16000, 0, "NONE", ""))
            written.writeframes(array.array("h", [0, 100, -200]).tobytes())
        with wave.open(str(Runner().run(audio=path, peak=1.0))) as read:
            samples = array.array("h", read.readframes(3)).tolist()
    assert samples == [0, 16384, -32767], samples


if __name__ == "__main__":
    test_it_is_loud()
    print("ok")
'''


def _files(run: str, test: str, *requirements: str) -> Mapping[str, str]:
    return {
        ".dockerignore": DOCKERIGNORE,
        ".gitignore": GITIGNORE,
        "cog.yaml": COG_YAML,
        "requirements.txt": "".join(f"{line}\n" for line in requirements),
        "run.py": run,
        "test_run.py": test,
    }


# By the template's name: its text files, and inputs to try; `@` marks a file of SAMPLES.
TEMPLATES: Mapping[str, tuple[Mapping[str, str], Mapping[str, object]]] = {
    "text": (
        _files(TEXT_RUN, TEXT_TEST, "# what run.py imports besides cog, one a line"),
        {"text": "The cat and the hat, the cat."},
    ),
    "stream": (
        _files(STREAM_RUN, STREAM_TEST, "# what run.py imports besides cog, one a line"),
        {"text": "one word after the other"},
    ),
    "picture": (_files(PICTURE_RUN, PICTURE_TEST, "pillow"), {"image": "@sample.png"}),
    "audio": (
        _files(AUDIO_RUN, AUDIO_TEST, "# what run.py imports besides cog, one a line"),
        {"audio": "@sample.wav"},
    ),
}
SAMPLES = {"sample.png": picture_png, "sample.wav": tone_wav}
