"""Prints a table of recordings that once failed: what is right, and what is measured now.

python tests/fluency/cases.py FOLDER [--json OUT] [--before OUT_OF_AN_EARLIER_RUN]

FOLDER holds `files/` and `real/`; a name that is not in the table below is left out. What is
measured is what a user gets: the whole pipeline, with the words of WEIGHTS (by default demo).
"""

import argparse
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "fluency"))

os.environ.setdefault("WEIGHTS", "demo")

from errors import InvalidInput
from pipeline import Options, Pipeline


@dataclass(frozen=True)
class Right:
    """What a listener finds; None: not counted. Counts may be off by a tenth.

    nuclei_s: each syllable's vowel by the spectrogram, for a count may be right by luck. Of those
    missed and those invented together there may be 15 %.
    """

    duration_s: float | None = None
    syllables: int | None = None
    nuclei_s: tuple[float, ...] | None = None
    pauses: int | None = None
    fillers: int | None = None


SHORT, LONG = Right(4.9, 23), Right(14.8, pauses=2)
RIGHT = {
    **{
        f"files/{name}": SHORT
        for name in [
            "drift.flac",
            "two_blobs.wav",
            "h_len_small_append.wav",
            "jitter_burst.webm",
            "jitter_quantum.webm",
            "h_len_100mb.wav",
            "h_factx2_ima.wav",
            "h_id3_wav.wav",
            "h_id3x2.aac",
            "h_list_odd_nopad.wav",
            "h_cut_start.mp3",
            "h_noftyp.mov",
            "rf64pipe.wav",
            "x.amr",
        ]
    },
    **{f"files/{name}": Right(9.8, 46) for name in ("cat.m4a", "cat_frag.mp4")},
    **{f"files/{name}": LONG for name in ("stall0.webm", "stall500.webm")},
    # Two fillers are marked by hand; between 14.52 and 14.9 s stands a level vowel that is not.
    "real/running_a.flac": Right(26.7, pauses=6, fillers=3),
    "real/rumble_b.flac": Right(24.6, pauses=5, fillers=6),
    # "This is all very whispered", "This is all very high pitched", "Montreal Forced Aligner".
    "real/whisper.flac": Right(fillers=0, nuclei_s=(0.64, 0.83, 1.15, 1.38, 1.5, 1.77, 2.1)),
    "real/falsetto.flac": Right(fillers=0, nuclei_s=(1.04, 1.2, 1.43, 1.59, 1.71, 1.92, 2.18)),
    "real/creaky.flac": Right(fillers=0, nuclei_s=(1.49, 2.02, 2.3, 3.0, 3.43, 3.75, 4.5)),
    "real/surround.flac": Right(fillers=0),
    "real/affectation.flac": Right(fillers=0),
    "real/internalsil.flac": Right(fillers=0),
    "real/longstop.flac": Right(pauses=0, fillers=0),
    "real/breaths.flac": Right(pauses=2),
}


Found = dict[str, float | str | list[float]]


def measured(path: Path, pipeline: Pipeline) -> Found:
    """The same values of one file, or why there are none."""
    try:
        answer = pipeline.run(path, Options(language="en"))
    except InvalidInput as refusal:
        return {"refused": str(refusal)}
    return {
        "duration_s": round(answer.duration_s, 2),
        "syllables": len(answer.syllables),
        "nuclei_s": answer.syllables,
        "pauses": len(answer.pauses),
        "fillers": len(answer.filled_pauses),
    }


def wrong_nuclei(right_s: tuple[float, ...], found_s: list[float]) -> tuple[int, int]:
    """How many syllables were missed and how many invented; 0.1 s off is the same one."""
    left, missed = list(found_s), 0
    for time_s in right_s:
        nearest = min(left, key=lambda one: abs(one - time_s), default=None)
        if nearest is not None and abs(nearest - time_s) <= 0.1:
            left.remove(nearest)
        else:
            missed += 1
    return missed, len(left)


def is_right(name: str, found: Found) -> bool:
    """Whether every value that is known is right: times to 0.1 s, counts to a tenth."""
    for field, value in vars(RIGHT[name]).items():
        got = found.get(field)
        if value is None:
            continue
        if isinstance(got, list):
            if sum(wrong_nuclei(value, got)) > 0.15 * len(value):
                return False
            continue
        slack = 0.1 if field == "duration_s" else 0.1 * value
        if not isinstance(got, (int, float)) or abs(got - value) > slack:
            return False
    return True


def _short(name: str, found: Found) -> Found:
    """Without the list of times, but with how many of them are wrong where that is known."""
    right, got = RIGHT[name].nuclei_s, found.get("nuclei_s")
    short = {field: value for field, value in found.items() if field != "nuclei_s"}
    if right is not None and isinstance(got, list):
        short["missed"], short["invented"] = wrong_nuclei(right, got)
    return short


def main() -> None:
    """Measure every file, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    before = json.loads(options.before.read_text()) if options.before else {}
    pipeline = Pipeline()
    made = {name: measured(options.folder / name, pipeline) for name in sorted(RIGHT)}
    for name, found in made.items():
        right = {field: value for field, value in vars(RIGHT[name]).items() if value is not None}
        mark = "right" if is_right(name, found) else "wrong"
        sys.stdout.write(f"{name:32} {mark}  expected {right}  found {_short(name, found)}")
        sys.stdout.write(f"  before {_short(name, before[name])}\n" if name in before else "\n")
    count = sum(is_right(name, found) for name, found in made.items())
    sys.stdout.write(f"{count} of {len(made)} right\n")
    if options.json:
        options.json.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
