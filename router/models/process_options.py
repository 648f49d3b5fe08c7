"""With which options and which environment a model's process is started."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from router.models.catalog import Package
from router.models.driver_client import DriverClient
from router.models.environment import has_mark, is_unfinished, own_python
from router.models.process_group import SPOOL_NAME, inherited_environment
from router.models.process_interface import StartError
from router.models.worker_hook.callme_sleep.control import DEVICE_NAME, PATH_NAME
from router.models.worker_hook.callme_tracebacks import FILE_NAME as TRACEBACK_FILE

log = logging.getLogger(__name__)

# The file in the temporary folder to which the hook writes the traceback of a failed set-up.
TRACEBACK = "callme_traceback"
HOOK_DIR = Path(__file__).parent / "worker_hook"
# A line that a model prints has a `source`. coglet also logs the start and the end of each
# prediction. Those two lines say nothing new and take time while the caller waits, so they are off.
COGLET_LOG = "info,coglet::prediction=warn,coglet::prediction[{source}]=info"
CONTROL_SOCKET = "callme-control.sock"


@dataclass(frozen=True, slots=True)
class ProcessOptions:
    """The options with which every process is started.

    `measure` returns the bytes that these pids hold in the memory that models share.
    `sleep_device`: the memory that may sleep, `cuda` or `cpu`; "" when models are only stopped.
    `traced`: the router reports spans, so a model that asks for it does too.
    `driver`: suspends processes on a GPU; None when none are.
    """

    spool_dir: Path
    tmp_dir: Path
    cache_dir: Path
    setup_timeout_s: float
    measure: Callable[[Sequence[int]], int]
    sleep_device: str = ""
    traced: bool = False
    driver: DriverClient | None = None


def runnable(package: Package) -> Package:
    """Return the package with an interpreter that can be started now.

    It is the one that the package was read with, or the present one if that is gone: `callme
    install` deletes an environment that no process runs with. Raises StartError while
    `callme install` changes that environment, and after it was interrupted.
    """
    used = package.python.parent.parent
    by_router = package.python == Path(sys.executable)  # also while its own cannot be used
    if has_mark(used) or (by_router and is_unfinished(package.folder)):
        raise StartError(
            "its environment is being changed, or was interrupted: "
            f"callme install {package.folder.name}"
        )
    if package.python.exists() or (now := own_python(package.folder)) is None:
        return package
    return replace(package, python=now)


def control_socket(temp_folder: Path) -> Path:
    """Where the hook of a process with this temporary folder is asked to sleep and to wake."""
    return temp_folder / CONTROL_SOCKET


def environment(
    package: Package, options: ProcessOptions, temp_folder: Path, port: int
) -> dict[str, str]:
    """The environment of a coglet server that listens on the port, and of its worker."""
    env = inherited_environment()
    python_dir = str(package.python.parent)
    return {
        **env,
        # coglet spawns its worker as bare `python`.
        "PATH": f"{python_dir}{os.pathsep}{env.get('PATH', os.defpath)}",
        "PORT": str(port),
        "COG_PREDICT_TYPE_STUB": package.runner,
        # With a wrong python coglet would stay STARTING indefinitely.
        "COG_SETUP_TIMEOUT": str(max(1, int(options.setup_timeout_s))),
        "COG_MAX_CONCURRENCY": str(package.max_concurrency),
        "PYTHONUNBUFFERED": "1",
        "RUST_LOG": env.get("RUST_LOG", COGLET_LOG),
        "PYTHONPATH": str(HOOK_DIR),
        SPOOL_NAME: str(options.spool_dir),
        "CALLME_ROUTER_PID": str(os.getpid()),
        TRACEBACK_FILE: str(temp_folder / TRACEBACK),
        "TMPDIR": str(temp_folder),
        # By default this cache is in TMPDIR, and would be deleted with it.
        "TORCHINDUCTOR_CACHE_DIR": str(options.cache_dir / "torchinductor"),
        **_sleep_environment(options.sleep_device, temp_folder),
        **(_trace_environment(package) if options.traced else {}),
        **package.env,
    }


def _sleep_environment(device: str, temp_folder: Path) -> dict[str, str]:
    if not device:
        return {}
    return {PATH_NAME: str(control_socket(temp_folder)), DEVICE_NAME: device}


def _trace_environment(package: Package) -> dict[str, str]:
    """What coglet reads of cog.yaml's `observability.traces`; nothing if it does not enable them.

    coglet imports OpenTelemetry's SDK then, and a set-up fails without it: such a model is not
    traced.
    """
    if not package.traces:
        return {}
    if not has_module(package.python, "opentelemetry/sdk"):
        log.warning(
            "model is not traced: its environment lacks opentelemetry-sdk and "
            "opentelemetry-exporter-otlp-proto-http",
            extra={"model": package.name},
        )
        return {}
    # The router's sampler has decided already. As cog.yaml says, models follow it.
    sampler = {"OTEL_TRACES_SAMPLER": package.traces["COG_TRACE_SAMPLER"]}
    if arg := package.traces.get("COG_TRACE_SAMPLER_ARG"):
        sampler["OTEL_TRACES_SAMPLER_ARG"] = arg
    return {**package.traces, **sampler, "OTEL_SERVICE_NAME": package.name}


def has_module(python: Path, path: str) -> bool:
    """Whether the interpreter's environment has the module in this folder, without running it."""
    if python == Path(sys.executable):
        with contextlib.suppress(ModuleNotFoundError):  # a package above it is not there
            return importlib.util.find_spec(path.replace("/", ".")) is not None
        return False
    return any(python.parent.parent.glob(f"lib/python3*/site-packages/{path}"))
