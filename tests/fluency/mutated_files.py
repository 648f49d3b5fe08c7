"""Reads thousands of damaged files, and counts crashes, hangs and values that are not finite.

    python tests/fluency/mutated_files.py [COUNT] [--seed N] [--keep FOLDER]

Each file is a short recording in one of the containers, with bits flipped, bytes replaced, pieces
removed, doubled, moved, or taken from another container. It is read and measured, without the
transcript, in a process of its own, which may have 4 GiB: where that dies or works longer than a
minute, the file is kept and the next one gets a new process. The same seed makes the same files.
"""

import argparse
import json
import multiprocessing
import resource
import sys
import tempfile
from collections import Counter
from dataclasses import asdict
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / "fluency"))

import audio
import made_audio
import numpy as np
import psutil

VOICE = Path(__file__).parents[1] / "golden" / "fluency" / "mary.wav"
HANG_S = 60.0  # of processor time: on a busy machine a minute by the clock means nothing
RATE = 16_000
# container, codec, rate, options: every kind that the README names, and two ways to write some.
KINDS = {
    "wav": ("wav", "pcm_s16le", RATE, {}),
    "wav float": ("wav", "pcm_f32le", RATE, {}),
    "wav adpcm": ("wav", "adpcm_ima_wav", RATE, {}),
    "aiff": ("aiff", "pcm_s16be", RATE, {}),
    "flac": ("flac", "flac", RATE, {}),
    "ogg opus": ("ogg", "libopus", 48_000, {}),
    "webm": ("webm", "libopus", 48_000, {}),
    "mp3": ("mp3", "libmp3lame", RATE, {}),
    "m4a": ("ipod", "aac", RATE, {}),
    "fragmented mp4": ("mp4", "aac", RATE, {"movflags": "frag_keyframe+empty_moov"}),
    "mov": ("mov", "pcm_s16le", RATE, {}),
    "aac": ("adts", "aac", RATE, {}),
    "caf": ("caf", "pcm_s16be", RATE, {}),
    "rf64": ("wav", "pcm_s24le", RATE, {"rf64": "always"}),
    "wav mu-law": ("wav", "pcm_mulaw", 8000, {}),
    "aifc": ("aiff", "pcm_mulaw", RATE, {}),
    "alac": ("ipod", "alac", RATE, {}),
}
_MEMORY_BYTES = 4 << 30
ODD = (0x00, 0xFF, 0x7F, 0x80, 0x01)


def originals(samples: made_audio.Samples) -> dict[str, bytes]:
    """The recording in each container; AMR, which PyAV cannot write, from a file.

    Two are joined by hand, as people join them: the second WAV or MP4 stands behind the first.
    """
    made = {
        name: made_audio.encode(samples, container, codec, rate, **options)
        for name, (container, codec, rate, options) in KINDS.items()
    }
    made |= {f"joined {name}": made[name] * 2 for name in ("wav", "m4a")}
    return {**made, "amr": VOICE.with_name("voice.amr").read_bytes()}


def mutated(whole: bytes, other: bytes, random: np.random.Generator) -> bytes:
    """One to four changes; half of them in the first 200 bytes, where headers are."""
    data = bytearray(whole)
    for _ in range(int(random.integers(1, 5))):
        if len(data) < 2:
            break
        end = min(200, len(data)) if random.random() < 0.5 else len(data)
        at = int(random.integers(0, end))
        size = int(random.integers(1, 1 + min(64, len(data) - at)))
        change = int(random.integers(0, 8))
        if change == 0:
            data[at] ^= 1 << int(random.integers(0, 8))
        elif change == 1:
            data[at : at + size] = bytes([int(random.choice(ODD))]) * size
        elif change == 2:
            data[at : at + size] = random.bytes(size)
        elif change == 3:
            del data[at : at + size]
        elif change == 4:
            data[at:at] = data[at : at + size]
        elif change == 5:
            del data[at:]
        elif change == 6:
            start = int(random.integers(0, len(other)))
            data[at : at + size] = other[start : start + size]
        else:
            data[at : at + 4] = int(random.integers(0, 2**32)).to_bytes(4, "little")
    return bytes(data)


def worker(line: Connection) -> None:
    """Read and measure each path that comes in; send back what became of it."""
    import acoustics
    import report
    import torch
    from errors import InvalidInput
    from score import ScoreMap
    from vad import SileroVad

    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))
    torch.set_num_threads(1)
    vad, scores = SileroVad.load(), ScoreMap.load()
    line.send("ready")
    while path := line.recv():
        try:
            recording = audio.read(Path(path))
            finite = bool(np.isfinite(recording.samples).all())
            heard = acoustics.analyse(recording.samples, vad, 0.25)
            if heard is None:
                answer = report.silence(recording.duration_s, 0.25, scores)
            else:
                answer = report.compose(
                    heard,
                    None,
                    duration_s=recording.duration_s,
                    pause_threshold_s=0.25,
                    reference=None,
                    scores=scores,
                    model=None,
                    contours=True,
                )
            json.dumps(asdict(answer), allow_nan=False)
            found = "read" if finite else "not finite"
        except InvalidInput:
            found = "refused"
        except ValueError as problem:
            found = "not finite" if "JSON compliant" in str(problem) else f"raised {problem!r}"
        except Exception as problem:  # whatever it is, it is a finding
            found = f"raised {problem!r}"
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        line.send((found, peak_mb))


class Reader:
    """The process that reads, started again when it is lost."""

    def __init__(self) -> None:
        self.peak_mb = 0
        self._start()

    def _start(self) -> None:
        here, there = multiprocessing.Pipe()
        self._line = here
        context = multiprocessing.get_context("spawn")
        self._process = context.Process(target=worker, args=(there,), daemon=True)
        self._process.start()
        there.close()
        here.recv()
        self._usage = psutil.Process(self._process.pid)

    def read(self, path: Path) -> str:
        """What became of the file: read, refused, not finite, raised …, crashed, hung."""
        limit_s = self._busy_s() + HANG_S
        self._line.send(str(path))
        try:
            while self._busy_s() < limit_s:
                if self._line.poll(1.0):
                    found, self.peak_mb = self._line.recv()
                    return str(found)
            found = "hung"
        except (EOFError, psutil.NoSuchProcess):
            found = "crashed"
        self._process.kill()
        self._process.join()
        self._start()
        return found

    def _busy_s(self) -> float:
        spent = self._usage.cpu_times()
        return float(spent.user + spent.system)

    def close(self) -> None:
        self._line.send("")
        self._process.join()


def run(count: int, seed: int, keep: Path | None = None) -> tuple[Counter[tuple[str, str]], int]:
    """How often each (container, result) came, and the reader's peak memory in MB."""
    random = np.random.default_rng(seed)
    known = originals(audio.read(VOICE).samples)
    names = sorted(known)
    found: Counter[tuple[str, str]] = Counter()
    reader = Reader()
    with tempfile.TemporaryDirectory() as folder:
        for index in range(count):
            name, other = names[index % len(names)], str(random.choice(names))
            path = Path(folder) / "voice"
            path.write_bytes(mutated(known[name], known[other], random))
            result = reader.read(path)
            found[name, result] += 1
            if keep and result not in ("read", "refused"):
                keep.mkdir(parents=True, exist_ok=True)
                (keep / f"{seed}-{index}").write_bytes(path.read_bytes())
            if index % 250 == 249:
                sys.stderr.write(f"{index + 1} of {count}\n")
    reader.close()
    return found, reader.peak_mb


def main() -> None:
    """Print a table, and end with 1 if anything else came than a reading or a refusal."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("count", type=int, nargs="?", default=5000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path)
    options = parser.parse_args()
    found, peak_mb = run(options.count, options.seed, options.keep)
    for (name, result), times in sorted(found.items()):
        sys.stdout.write(f"{name:16} {times:6} {result}\n")
    bad = sum(times for (_, result), times in found.items() if result not in ("read", "refused"))
    sys.stdout.write(f"{found.total()} files, {bad} bad, {peak_mb} MB at most\n")
    sys.exit(bad > 0)


if __name__ == "__main__":
    main()
