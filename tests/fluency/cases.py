"""Prints a table of recordings that once failed: what is right, and what is measured now.

python tests/fluency/cases.py FOLDER [--json OUT] [--before OUT_OF_AN_EARLIER_RUN]

FOLDER holds `files/` and `real/`; a name that is not in the table below is left out. The signal
alone is measured, so it takes seconds.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "fluency"))

import acoustics
import audio
from errors import InvalidInput
from vad import SileroVad


@dataclass(frozen=True)
class Right:
    """What a listener finds; None: not counted. Syllables and pauses may be off by a tenth."""

    duration_s: float | None = None
    syllables: int | None = None
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
    "real/running_a.flac": Right(26.7, pauses=6, fillers=2),
    "real/rumble_b.flac": Right(24.6, pauses=5, fillers=6),
    "real/whisper.flac": Right(syllables=7, fillers=0),
    "real/falsetto.flac": Right(syllables=7, fillers=0),
    "real/creaky.flac": Right(syllables=7, fillers=0),
    "real/surround.flac": Right(fillers=0),
    "real/affectation.flac": Right(fillers=0),
    "real/internalsil.flac": Right(fillers=0),
    "real/longstop.flac": Right(pauses=0, fillers=0),
    "real/breaths.flac": Right(pauses=2),
}


def measured(path: Path, vad: SileroVad) -> dict[str, float | str]:
    """The same values of one file, or why there are none."""
    try:
        recording = audio.read(path)
    except InvalidInput as refusal:
        return {"refused": str(refusal)}
    found: dict[str, float | str] = {"duration_s": round(recording.duration_s, 2)}
    heard = acoustics.analyse(recording.samples, vad, 0.25)
    if heard is None:
        return {**found, "syllables": 0, "pauses": 0, "fillers": 0}
    found |= {"syllables": len(heard.nuclei_s), "pauses": len(heard.silences)}
    return {**found, "fillers": len(heard.fillers)}


def is_right(name: str, found: dict[str, float | str]) -> bool:
    """Whether every value that is known is right: times to 0.1 s, counts to a tenth."""
    for field, value in vars(RIGHT[name]).items():
        if value is None:
            continue
        got = found.get(field)
        slack = 0.1 if field == "duration_s" else 0.1 * value
        if not isinstance(got, (int, float)) or abs(got - value) > slack:
            return False
    return True


def main() -> None:
    """Measure every file, and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--before", type=Path)
    options = parser.parse_args()
    before = json.loads(options.before.read_text()) if options.before else {}
    vad = SileroVad.load()
    made = {name: measured(options.folder / name, vad) for name in sorted(RIGHT)}
    for name, found in made.items():
        right = {field: value for field, value in vars(RIGHT[name]).items() if value is not None}
        mark = "right" if is_right(name, found) else "wrong"
        sys.stdout.write(f"{name:32} {mark}  expected {right}  found {found}")
        sys.stdout.write(f"  before {before[name]}\n" if name in before else "\n")
    count = sum(is_right(name, found) for name, found in made.items())
    sys.stdout.write(f"{count} of {len(made)} right\n")
    if options.json:
        options.json.write_text(json.dumps(made, indent=1))


if __name__ == "__main__":
    main()
