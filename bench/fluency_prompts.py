"""Which pauses does fluency find in prompts of a telephone exchange, whose silences are digital?

python bench/fluency_prompts.py FOLDER MARKED

FOLDER gets the prompts of the packages below, which are downloaded with apt-get and unpacked there,
if it does not exist yet: of each voice the 14 longest of 3 to 32 s that fluency_pauses.py has no
marks of. A pause is where the level stays 48 dB below the loudest for 0.275 s and more; one of 0.2
to 0.275 s is uncertain. A prompt with a louder room is left out.

MARKED: the folder of fluency_people.py. Its marks are compared with the same rule, and with less
than 48 dB: what a detector would find that hears everything down to there, and nothing below.
Prints recall, precision and edges, and appends a line to bench/results/fluency_prompts.jsonl.
"""

# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "fluency"))
sys.path.insert(0, str(ROOT / "bench"))

import audio
import bands
import fluency_people
import intensity
from fluency_pauses import MARKS, Marks, compare, measure, with_noise
from vad import SileroVad, runs

PACKAGES = [
    *(f"asterisk-core-sounds-{language}-wav" for language in ("en", "es", "fr", "it", "ru")),
    "asterisk-prompt-it-menardi-wav",
]  # CC BY-SA 3.0
VOICES = [
    "it_IT_m_Carlo",
    "it_IT_f_Menardi",
    "ru_RU_f_IvrvoiceRU",
    "es_MX_f_Allison",
    "fr_CA_f_June",
    "en_US_f_Allison",
]
OF_EACH, LENGTH_S, RATE_HZ = 14, (3.0, 32.0), 8000
SILENT_DB, ROOM_DB, SHORTEST_S, SURE_S, CLICK_STEPS = -48.0, -4.0, 0.2, 0.275, 3


def fetch(folder: Path) -> None:
    """Download and unpack the packages."""
    folder.mkdir(parents=True)
    for name in PACKAGES:
        subprocess.run(["apt-get", "download", name], cwd=folder, check=True)
    for package in folder.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", package.name, "."], cwd=folder, check=True)


def longest(folder: Path) -> list[Path]:
    """The longest of 3 to 32 s: 16-bit samples at 8 kHz."""
    sizes = sorted(
        ((path.stat().st_size - 44, path) for path in folder.glob("*.wav")), reverse=True
    )
    fit = [path for size, path in sizes if LENGTH_S[0] <= size / 2 / RATE_HZ <= LENGTH_S[1]]
    return [path for path in fit if path.name not in MARKS or "en_US" not in folder.name][:OF_EACH]


def gaps(samples: np.ndarray, silent_db: float) -> list[list[float]] | None:
    """Where the level is so far below the loudest; None if the room is nearly as loud as 48 dB."""
    level_db = intensity.contour(bands.without_rumble(samples), 400)
    level_db -= np.quantile(level_db, 0.99)
    if np.quantile(level_db, 0.02) > SILENT_DB + ROOM_DB:
        return None
    sound = level_db >= silent_db
    for start, end in runs(sound):
        if end - start < CLICK_STEPS:
            sound[start:end] = False
    last = int(np.flatnonzero(sound)[-1])
    return [[start / 100, end / 100] for start, end in runs(~sound) if 0 < start < last]


def marks_of(found: list[list[float]]) -> Marks:
    lasting = [(end - start, [start, end]) for start, end in found]
    return {
        "pauses": [span for length, span in lasting if length >= SURE_S],
        "uncertain": [span for length, span in lasting if SHORTEST_S <= length < SURE_S],
    }


def by_level(recordings: dict[str, np.ndarray], silent_db: float) -> float:
    """The precision of the rule itself against the marks made by eye."""
    right = wrong = 0
    for name, samples in recordings.items():
        found = gaps(samples, silent_db)
        if gaps(samples, SILENT_DB) is None or found is None:
            continue
        long = [(a, b) for a, b in found if b - a >= 0.25]
        missing, invented, _ = compare(MARKS[name], long)
        right += len(MARKS[name]["pauses"]) - len(missing)
        wrong += len(invented)
    return round(right / (right + wrong), 2)


def main() -> None:
    """Measure each condition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("marked", type=Path)
    given = parser.parse_args()
    if not given.folder.exists():
        fetch(given.folder)
    recordings, marks = {}, {}
    for voice in VOICES:
        for path in longest(next(given.folder.rglob(voice))):
            samples = audio.read(path).samples
            found = gaps(samples, SILENT_DB)
            if found is not None:
                name = f"{voice}/{path.name}"
                recordings[name], marks[name] = samples, marks_of(found)
    vad = SileroVad.load()
    line: dict[str, Any] = {"prompts": len(recordings)}
    line["clean"] = measure(vad, recordings, marks, "clean")
    for colour in ("pink", "white"):
        noisy = {n: with_noise(s, i, colour) for i, (n, s) in enumerate(recordings.items())}
        line[f"{colour}_10_db"] = measure(vad, noisy, marks, f"{colour} 10 dB")
    by_eye = {}
    for name in MARKS:
        path = next(given.marked.rglob(name), None)
        if path is not None:
            by_eye[name] = audio.read(fluency_people.playable(path)).samples
    line["precision_by_level"] = {db: by_level(by_eye, db) for db in (-48, -42, -36, -30, -20)}
    sys.stdout.write(f"precision by level: {line['precision_by_level']}\n")
    with (ROOT / "bench/results/fluency_prompts.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
