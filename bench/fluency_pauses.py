"""Which pauses does fluency find in recordings in which they were marked by eye?

python bench/fluency_pauses.py FOLDER ALIGNED

FOLDER: as of fluency_people.py, which fills it. ALIGNED: the folder of `running_a.flac` and
`rumble_b.flac` (test data of the Montreal Forced Aligner, MIT), whose words people have aligned.

bench/fluency_pauses.json holds the marks, made on waveform and spectrogram (300 pixels a second)
with the text beside them, before the program had measured one of the recordings. A pause lies
between the last visible sound of a word and the first of the next, and breath and a cough belong to
it. `uncertain` are gaps of about 0.2 s or between a sound that fades and the next: finding one or
not is neither right nor wrong.

Prints a line for each recording that is not all right, then recall, precision and the distance of
the edges: as recorded, with pink noise 10 dB below the speech, and in pink noise alone.
"""

# ruff: noqa: E402 -- the package's folder must be on the path before its modules

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "fluency"))
sys.path.insert(0, str(ROOT / "bench"))
sys.path.insert(0, str(ROOT / "tests" / "fluency"))

import acoustics
import audio
import bands
import fluency_people
import intensity
import made_audio
from vad import SileroVad

Marks = dict[str, list[list[float]]]
MARKS: dict[str, Marks] = json.loads((Path(__file__).parent / "fluency_pauses.json").read_text())
SNR_DB = 10.0
SPEECH_DB = 25.0
"""Steps that are at most so far below the loudest are speech, whose mean power is its level."""

Span = tuple[float, float]


def with_noise(samples: np.ndarray, seed: int, colour: str = "pink") -> np.ndarray:
    """With pink or white noise 10 dB below the mean power of its speech."""
    level_db = intensity.contour(bands.without_rumble(samples))
    speech = level_db[level_db > np.quantile(level_db, 0.99) - SPEECH_DB]
    speech_db = 10 * np.log10(np.mean(10 ** (speech / 10)))
    make = made_audio.pink if colour == "pink" else made_audio.noise
    noise = make(len(samples) / 16_000 + 0.1, speech_db - SNR_DB, seed)[: len(samples)]
    return (samples + noise).astype(np.float32)


def overlap_s(one: Span, other: Span) -> float:
    return min(one[1], other[1]) - max(one[0], other[0])


def compare(marks: Marks, found: list[Span]) -> tuple[list[Span], list[Span], list[float]]:
    """The marked pauses that are missing, the found ones that are none, and distances of edges.

    A pause is found by one that covers half of it or lies in it.
    """
    marked, uncertain = ([(a, b) for a, b in marks[k]] for k in ("pauses", "uncertain"))
    missing: list[Span] = []
    off: list[float] = []
    for pause in marked:
        at = [f for f in found if overlap_s(pause, f) > 0.5 * (pause[1] - pause[0])]
        inside = [f for f in found if overlap_s(pause, f) > 0.5 * (f[1] - f[0])]
        if not at and not inside:
            missing.append(pause)
        elif at:
            off += [abs(at[0][0] - pause[0]), abs(at[0][1] - pause[1])]
    known = [*marked, *uncertain]
    invented = [f for f in found if not any(overlap_s(f, one) > 0.05 for one in known)]
    return missing, invented, off


def measure(
    vad: SileroVad, recordings: dict[str, np.ndarray], marks: dict[str, Marks], what: str
) -> dict[str, float]:
    """Print and return the figures of one condition."""
    count = missed = false = found_count = 0
    off: list[float] = []
    for name, samples in recordings.items():
        heard = acoustics.analyse(samples, vad, 0.25)
        found = [(p.start_s, p.end_s) for p in heard.silences] if heard else []
        missing, invented, edges = compare(marks[name], found)
        if missing or invented:
            shown = [[(round(a, 2), round(b, 2)) for a, b in one] for one in (missing, invented)]
            sys.stdout.write(f"{what}: {name}: missing {shown[0]}, invented {shown[1]}\n")
        count += len(marks[name]["pauses"])
        missed += len(missing)
        false += len(invented)
        found_count += len(found)
        off += edges
    right = count - missed
    figures = {
        "pauses": count, "found": right, "invented": false,
        "recall": round(right / count, 3), "precision": round(right / (right + false), 3),
        "edge_median_s": round(float(np.median(off)), 3),
        "edge_90_s": round(float(np.quantile(off, 0.9)), 3),
    }  # fmt: skip
    sys.stdout.write(f"{what}: {figures}\n")
    return figures


def main() -> None:
    """Measure each condition."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("aligned", type=Path)
    given = parser.parse_args()
    if not given.folder.exists():
        fluency_people.fetch(given.folder)
    recordings = {}
    for name in MARKS:
        aligned = given.aligned / name
        path = aligned if aligned.exists() else next(given.folder.rglob(name))
        recordings[name] = audio.read(fluency_people.playable(path)).samples
    vad = SileroVad.load()
    line: dict[str, Any] = {
        "clean": measure(vad, recordings, MARKS, "clean"),
        "pink_10_db": measure(
            vad,
            {n: with_noise(s, i) for i, (n, s) in enumerate(recordings.items())},
            MARKS,
            "pink 10 dB",
        ),
    }
    noise = [acoustics.analyse(made_audio.pink(20.0, db, 1), vad, 0.25) for db in (-50, -30, -15)]
    line["in_noise_alone"] = sum(len(heard.silences) for heard in noise if heard)
    sys.stdout.write(f"pauses in pink noise alone: {line['in_noise_alone']}\n")
    with (ROOT / "bench/results/fluency_pauses.jsonl").open("a") as log:
        log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
