"""How many syllables does fluency count in recordings it was not set with, against their text, and
how many words does it get wrong?

python bench/fluency_people.py FOLDER

FOLDER gets the recordings: those of the packages below, which are downloaded with apt-get and pip
and unpacked there, if it does not exist yet. No recording is kept in the project. The right count
is the vowels of the text's phonemes by espeak-ng (American English), compared by hand with a count
of the text: on the five lines of tests/golden both give 99. Two counts are compared with it: that
of the signal alone, and that of the answer, which uses the words of WEIGHTS too (by default demo).
Digits count as words. Prints a table, and appends a line to bench/results/fluency_people.jsonl.
"""

# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import espeakng_loader
import numpy as np
import soundfile

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "fluency"))
os.environ.setdefault("WEIGHTS", "demo")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pipeline import Options, Pipeline
from reading import align, words_of

DEBIAN = {
    "asterisk-core-sounds-en-wav": "1.6.1-1",  # CC BY-SA 3.0
    "codec2-examples": "1.0.5-1",  # LGPL-2.1
}
PYPI = {
    "pywhispercpp": "1.5.1",  # MIT; the speech is in the public domain
    "pocketsphinx": "5.1.1",  # BSD-2-Clause
}
DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
RAW_RATE_HZ = 8000  # codec2's files have no header
_VOWEL = re.compile(r"aɪ|aʊ|eɪ|oʊ|ɔɪ|əʊ|[aeiouyɐɑɒæɔəɘɚɛɜɝɪɨʉʊʌøœɵɶᵻɤ]|n̩|l̩|m̩")
# By package: the file's name, and what is said in it: the package's own list, or a known sentence.
CLIPS = json.loads((Path(__file__).parent / "fluency_people.json").read_text())


def fetch(folder: Path) -> None:
    """Download and unpack the packages, in these versions."""
    folder.mkdir(parents=True)
    for name, version in DEBIAN.items():
        subprocess.run(["apt-get", "download", f"{name}={version}"], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)
    pip = [sys.executable, "-m", "pip", "download", "--no-deps"]
    for name, version in PYPI.items():
        subprocess.run([*pip, "--no-binary", name, f"{name}=={version}"], cwd=folder, check=True)
    for package in folder.glob("*.tar.gz"):
        subprocess.run(["tar", "xzf", package.name], cwd=folder, check=True)


def syllables(text: str) -> int:
    """The vowels in espeak-ng's phonemes."""
    library = ctypes.CDLL(espeakng_loader.get_library_path())
    library.espeak_Initialize(2, 0, espeakng_loader.get_data_path().encode(), 0)
    library.espeak_SetVoiceByName(b"en-us")
    library.espeak_TextToPhonemes.restype = ctypes.c_char_p
    rest, phonemes = ctypes.c_char_p(text.encode()), ""
    while rest.value:
        phonemes += " " + library.espeak_TextToPhonemes(ctypes.byref(rest), 1, 2).decode()
    return len(_VOWEL.findall(phonemes))


def spoken(text: str) -> list[str]:
    """Its words, digits as words."""
    return words_of(re.sub(r"\d", lambda digit: f" {DIGITS[int(digit[0])]} ", text))


def playable(path: Path) -> Path:
    """The recording, or a copy with a header where it has none."""
    if path.suffix != ".raw":
        return path
    made = path.with_suffix(".made.wav")
    soundfile.write(made, np.fromfile(path, "<i2"), RAW_RATE_HZ)
    return made


def main() -> None:
    """Measure every clip, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    if not folder.exists():
        fetch(folder)
    pipeline, rows = Pipeline(), []
    words = wrong = 0
    for package, clips in CLIPS.items():
        for name, text in clips.items():
            path = playable(next(folder.rglob(name)))
            signal = pipeline.run(path, Options(language="en", transcribe=False))
            answer = pipeline.run(path, Options(language="en"))
            pairs = align(spoken(text), spoken(answer.transcript or ""))
            words += sum(expected is not None for expected, _ in pairs)
            wrong += sum(expected != said for expected, said in pairs)
            counts = (syllables(text), signal.syllable_count, answer.syllable_count)
            rows.append((package, name, round(answer.duration_s, 1), *counts))
            sys.stdout.write(
                f"| {package} | {name} | {rows[-1][2]} | {counts[0]} | "
                + " | ".join(f"{one} | {100 * (one / counts[0] - 1):+.0f} %" for one in counts[1:])
                + " |\n"
            )
    sys.stdout.write(f"words: {wrong} of {words} wrong ({100 * wrong / words:.1f} %)\n")
    line = {"words": words, "wrong_words": wrong}
    line |= {
        "right": sum(row[3] for row in rows),
        "clips_over_2_s": sum(row[2] > 2 for row in rows),
    }
    for column, kind in ((4, "signal"), (5, "answer")):
        found = sum(row[column] for row in rows)
        within = sum(abs(row[column] / row[3] - 1) <= 0.15 for row in rows if row[2] > 2)
        line |= {kind: found, f"{kind}_within_15_percent": within}
        sys.stdout.write(
            f"{kind}: {found} of {line['right']} ({100 * (found / line['right'] - 1):+.1f} %); "
            f"{within} of {line['clips_over_2_s']} clips over 2 s within 15 %\n"
        )
    with (ROOT / "bench/results/fluency_people.jsonl").open("a") as log:
        log.write(json.dumps({**line, "clips": rows}) + "\n")


if __name__ == "__main__":
    main()
