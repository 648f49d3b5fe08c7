"""`callme doctor`: checks what the box needs, and says how to fix what is missing."""

from __future__ import annotations

import asyncio
import platform
import shlex
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from importlib.metadata import distributions
from pathlib import Path

import psutil
import pynvml
import typer
from rich.markup import escape

from router.cli.client import RouterClient, find_router
from router.cli.common import Json, console, print_json, read_settings
from router.cli.install import lacking_of_own, package_folders
from router.cli.progress import hub_cache
from router.errors import ResultStoreFailed
from router.keys.key import who_is_served
from router.keys.key_store import FILE_NAME, KeyFile, KeyFileError
from router.models.catalog import Package, PackageError, discover
from router.models.install import State, missing_system_packages, state_of, version_of
from router.models.requirements import Requirements, lacking, read_requirements
from router.predictions.webhook_sender import WEBHOOK_FILE
from router.settings import Settings, Weights
from router.storage.private_files import is_readable_by_others
from router.storage.result_store_settings import ResultStoreSettings
from router.storage.sealed_store import BOX_KEY_FILE

GIB = 1 << 30
LOW_DISK_BYTES = 10 * GIB
LEAST_DISK_BYTES = 1 * GIB
PROGRAM_LIMIT_S = 20.0
TORCH_LIMIT_S = 120.0
TORCH = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available())"
HUB = ("huggingface.co", 443)
HUB_LIMIT_S = 5.0


class CheckStatus(StrEnum):
    """The result of one check. `warn`: the box works without it, but less well."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


MARKS = {
    CheckStatus.OK: "[green]✓[/green]",
    CheckStatus.WARN: "[yellow]·[/yellow]",
    CheckStatus.FAIL: "[red]✗[/red]",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check: what was found and, unless it is ok, how to fix it."""

    check: str
    status: CheckStatus
    found: str
    fix: str = ""


def add_commands(app: typer.Typer) -> None:
    """Add `doctor`."""
    app.command()(doctor)


def doctor(as_json: Json = False) -> None:
    """Check what the box needs, and say how to fix it; exit code 1 if a check fails."""
    settings = read_settings()
    findings = []
    for finding in examine(settings):
        findings.append(finding)
        if not as_json:
            show(finding)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    if any(finding.status is CheckStatus.FAIL for finding in findings):
        raise typer.Exit(1)


def examine(settings: Settings) -> Iterator[Finding]:
    """Run all checks, in the order in which to fix what they find."""
    yield check_python()
    yield from check_distribution()
    has_gpu = False
    for finding in check_gpu():
        has_gpu = has_gpu or (finding.check == "GPU" and finding.status is CheckStatus.OK)
        yield finding
    packages = discover(settings.packages_dir.resolve(), {})
    yield from check_packages(settings, packages)
    needs = {}
    for folder in package_folders(settings):
        name = folder.name
        if (package := packages.get(name)) is None:
            continue
        try:
            needs[name] = read_requirements(package.folder)
        except PackageError as error:
            yield Finding(f"environment of {name}", CheckStatus.FAIL, str(error), "correct it")
            continue
        yield from check_environment(name, package, needs[name])
    with_torch = {packages[name].python for name, needed in needs.items() if needed.names("torch")}
    for python in sorted(with_torch):
        yield check_torch(python, has_gpu)
    yield from check_weights(settings, packages, has_gpu)
    yield check_disk("disk for state", settings.state)
    yield check_disk("disk for weights", hub_cache())
    if settings.result_store is not None:
        yield check_result_store(settings.result_store)
    yield check_port(settings)
    yield check_keys(settings)
    yield check_program(
        "cloudflared", "--version", "for `callme up --public`: install it from Cloudflare's pages"
    )
    yield check_program(
        "supabase", "--version", "for `callme supabase deploy`: npm install -g supabase"
    )


def check_python() -> Finding:
    """Whether all pinned packages have wheels for this Python."""
    found = platform.python_version()
    if (3, 11) <= sys.version_info[:2] <= (3, 13):
        return Finding("Python", CheckStatus.OK, found)
    return Finding("Python", CheckStatus.FAIL, found, "make setup PYTHON=/path/to/python3.11")


def check_distribution() -> Iterator[Finding]:
    """Whether the index's project `callme` is here, which is another one."""
    for found in distributions(name="callme"):
        # An old checkout of this project has a folder of this name too.
        if "router" not in (found.read_text("top_level.txt") or "").split():
            fix = f"{shlex.quote(sys.executable)} -m pip uninstall callme"
            what = f"callme {found.version} is another project; this one is callme-gpu"
            yield Finding("distribution", CheckStatus.WARN, what, fix)


def check_gpu() -> Iterator[Finding]:
    """NVIDIA's driver and its GPUs."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        fix = "models run on the CPU; if there is a GPU, install NVIDIA's driver"
        yield Finding("GPU", CheckStatus.WARN, f"none ({error})", fix)
        return
    driver = pynvml.nvmlSystemGetDriverVersion()
    yield Finding("driver", CheckStatus.OK, f"NVIDIA {driver}")
    for i in range(pynvml.nvmlDeviceGetCount()):
        card = pynvml.nvmlDeviceGetHandleByIndex(i)
        memory = pynvml.nvmlDeviceGetMemoryInfo(card)
        name = pynvml.nvmlDeviceGetName(card)
        free = f"{int(memory.free) / GIB:.1f} of {int(memory.total) / GIB:.1f} GiB free"
        yield Finding("GPU", CheckStatus.OK, f"{name}, {free}")


def check_packages(settings: Settings, packages: dict[str, Package]) -> Iterator[Finding]:
    """Whether there are packages, and none was left out."""
    folders = {path.parent.name for path in settings.packages_dir.glob("*/cog.yaml")}
    if left_out := sorted(folders - packages.keys()):
        fix = "the log of callme serve says what is wrong with their cog.yaml"
        yield Finding("packages", CheckStatus.FAIL, f"left out: {', '.join(left_out)}", fix)
    if packages:
        yield Finding("packages", CheckStatus.OK, ", ".join(packages))
    elif not left_out:
        fix = "set CALLME_PACKAGES_DIR to the folder that contains them"
        yield Finding("packages", CheckStatus.FAIL, f"none in {settings.packages_dir}", fix)


def check_environment(name: str, package: Package, needs: Requirements) -> Iterator[Finding]:
    """Whether a package's Python has what its cog.yaml names, and what the machine lacks of it."""
    check, fix = f"environment of {name}", f"callme install {name}"
    state = state_of(package.folder, needs)
    version = version_of(package.python) or "none"
    if state.needs_install:
        lacks = ", ".join(lacking(needs)) if state is not State.CHANGED else ""
        found = f"{state.value}{f', and the router has no {lacks}' if lacks else ''}"
        worst = CheckStatus.WARN if state is State.CHANGED else CheckStatus.FAIL
        yield Finding(check, worst, found, fix)
    elif state is State.BY_HAND and (lacks := ", ".join(lacking_of_own(package.folder, needs))):
        fix = f"install it with {package.python}, or: callme install --again {name}"
        yield Finding(check, CheckStatus.FAIL, f"{state.value}, and lacks {lacks}", fix)
    elif needs.python and not f"{version}.".startswith(f"{needs.python}."):
        found = f"cog.yaml names Python {needs.python}, and it runs with {version}"
        yield Finding(check, CheckStatus.WARN, found, f"callme install --again {name}")
    else:
        yield Finding(check, CheckStatus.OK, f"{state.value}, Python {version}")
    if missing := missing_system_packages(needs.system_packages):
        found = f"the machine lacks {', '.join(missing)}"
        yield Finding(f"system of {name}", CheckStatus.WARN, found, f"{fix} --system")
    if needs.commands:
        found = f"cog.yaml's commands may not have been run: {'; '.join(needs.commands)}"
        yield Finding(f"commands of {name}", CheckStatus.WARN, found, f"{fix} --system")


def check_torch(python: Path, has_gpu: bool) -> Finding:
    """Whether models can use the GPU, by the torch of the interpreter that would run them."""
    try:
        done = _run([str(python), "-c", TORCH], TORCH_LIMIT_S)
        version, cuda, available = done.split()
    except (OSError, subprocess.SubprocessError, ValueError):
        fix = f"make setup, or install the package's requirements with {python}"
        return Finding("CUDA", CheckStatus.WARN, f"no torch for {python}", fix)
    if available == "True":
        return Finding("CUDA", CheckStatus.OK, f"torch {version} with CUDA {cuda}")
    if not has_gpu:
        return Finding("CUDA", CheckStatus.OK, f"torch {version} on the CPU, as there is no GPU")
    fix = "install torch for CUDA, or a driver that is new enough for this torch"
    return Finding("CUDA", CheckStatus.FAIL, f"torch {version} (CUDA {cuda}) sees no GPU", fix)


def check_weights(
    settings: Settings, packages: dict[str, Package], has_gpu: bool
) -> Iterator[Finding]:
    """Whether demo weights exist where they are used, and the hub answers where it is needed."""
    demo = settings.weights is Weights.DEMO or (settings.weights is Weights.AUTO and not has_gpu)
    needs_hub = False
    for name, package in packages.items():
        own = settings.models[name].env.get("WEIGHTS") if name in settings.models else None
        wanted = own or package.env.get("WEIGHTS") or ("demo" if demo else "full")
        folder = package.folder / "weights" / "demo"
        if wanted != "demo":
            needs_hub = True
        elif folder.is_dir() and any(folder.rglob("*.safetensors")):
            yield Finding(f"weights of {name}", CheckStatus.OK, "demo")
        elif folder.parent.is_dir() or (package.folder / "demo_weights.py").exists():
            yield Finding(
                f"weights of {name}", CheckStatus.FAIL, "demo weights missing", "make weights"
            )
    if needs_hub:
        yield _check_hub()


def _check_hub() -> Finding:
    try:
        socket.create_connection(HUB, timeout=HUB_LIMIT_S).close()
    except OSError:
        fix = "connect the box, or copy a filled cache there (HF_HOME); demo: CALLME_WEIGHTS=demo"
        return Finding(
            "hub", CheckStatus.WARN, f"{HUB[0]} does not answer; cache: {hub_cache()}", fix
        )
    return Finding("hub", CheckStatus.OK, f"{HUB[0]} answers; cache: {hub_cache()}")


def check_disk(what: str, folder: Path) -> Finding:
    """Free space in `folder` or, if it does not exist, in the nearest folder above it that does."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = psutil.disk_usage(str(there)).free
    found = f"{free / GIB:.1f} GiB free at {there}"
    if free < LEAST_DISK_BYTES:
        return Finding(
            what, CheckStatus.FAIL, found, "free some space: uploads are refused with 507"
        )
    if free < LOW_DISK_BYTES:
        return Finding(what, CheckStatus.WARN, found, "full weights take 2 to 40 GB per model")
    return Finding(what, CheckStatus.OK, found)


def check_result_store(settings: ResultStoreSettings) -> Finding:
    """Whether the store takes a file, gives it and deletes it."""
    from router.storage.result_store import ResultStore  # noqa: PLC0415 - takes 10 MB of memory

    try:
        found = asyncio.run(ResultStore(settings, "doctor").check())
    except ResultStoreFailed as error:
        fix = "until it works, results stay on this disk"
        return Finding("result store", CheckStatus.FAIL, error.reason, fix)
    return Finding("result store", CheckStatus.OK, found)


def check_port(settings: Settings) -> Finding:
    """Whether the port is free, or a router of this machine uses it."""
    where = f"{settings.host}:{settings.port}"
    try:
        with socket.socket(socket.AF_INET6 if ":" in settings.host else socket.AF_INET) as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            s.bind((settings.host, settings.port))
    except OSError as error:
        if asyncio.run(_is_router(settings)):
            return Finding("port", CheckStatus.OK, f"a router runs on {where}")
        reason = (error.strerror or str(error)).lower()
        return Finding(
            "port", CheckStatus.FAIL, f"{where}: {reason}", "set another one: CALLME_PORT"
        )
    return Finding("port", CheckStatus.OK, f"{where} is free")


async def _is_router(settings: Settings) -> bool:
    async with RouterClient(find_router(settings, None, None)) as router:
        return await router.is_router()


def check_keys(settings: Settings) -> Finding:
    """Who may call, and whether other users can read the keys."""
    try:
        file = KeyFile(settings.state)
        count = len(file.read()) + len(settings.keys) + len(settings.admin_keys)
        served = who_is_served(count, file.is_closed())
    except KeyFileError as error:
        fix = "its keys do not work until it is fixed; or move it away and make new keys"
        return Finding("keys", CheckStatus.FAIL, str(error), fix)
    secrets = [settings.state / name for name in (FILE_NAME, WEBHOOK_FILE, BOX_KEY_FILE)]
    if seen := [path for path in secrets if is_readable_by_others(path)]:
        fix = f"chmod 600 {shlex.join(map(str, seen))}"
        return Finding("keys", CheckStatus.WARN, f"others may read {seen[0].name}", fix)
    return Finding("keys", CheckStatus.OK, served)


def check_program(name: str, ask: str, fix: str) -> Finding:
    """Whether a program is on PATH and prints its version."""
    path = shutil.which(name)
    if path is None:
        return Finding(name, CheckStatus.WARN, "not on PATH", fix)
    try:
        printed = _run([path, ask], PROGRAM_LIMIT_S)
    except (OSError, subprocess.SubprocessError):
        return Finding(name, CheckStatus.FAIL, f"{path} does not run", fix)
    return Finding(name, CheckStatus.OK, printed.strip().partition("\n")[0] or path)


def _run(argv: list[str], limit_s: float) -> str:
    """The program's output. Raises OSError or subprocess.SubprocessError when it fails."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=limit_s, check=True)  # noqa: S603 - found on PATH or a package's own interpreter
    return done.stdout


def show(finding: Finding) -> None:
    console.print(
        f" {MARKS[finding.status]} {finding.check}: {escape(finding.found)}", soft_wrap=True
    )
    if finding.fix and finding.status is not CheckStatus.OK:
        console.print(f"     {finding.fix}", soft_wrap=True, markup=False)
