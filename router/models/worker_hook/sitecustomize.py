"""Loaded into a model's own processes, because this folder is on their PYTHONPATH.

The package and coglet run unchanged. Five things are added around them:

1. **Files as paths.** coglet 0.23 turns URLs into `cog.Path`, but passes a plain path on as
   `str`, which breaks runners that use it as a path. And a URL takes five to ten times as long as
   a path (1 MB: 5.6 ms against 1.1 ms). So the router names a spooled file by a URL whose host
   can never exist, and `Path.validate` here maps it to the file. Without this hook such a URL
   raises an error; it can never fetch anything.
2. **No orphans.** If the router dies without stopping its children (kill -9, out of memory),
   all that the model has started is killed too (`callme_descendants.py`). A process that loses
   its parent becomes a child of the model's server, so that it is counted and found.
3. **A limit on prints.** See `callme_print_limit.py`.
4. **Sleep.** The worker listens for the router's word to free its memory and to take it again
   (`callme_sleep`).
5. **Tracebacks.** See `callme_runner_watch.py`.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote

FILE_URL_PREFIX = "http://spool.callme.invalid/"
HERE = str(Path(__file__).resolve().parent)


def spooled(value: Any) -> str | None:
    """Return the path that a spool URL names, or None for every other value.

    Raises ValueError when the path is outside the spool.
    """
    if not isinstance(value, str) or not value.startswith(FILE_URL_PREFIX):
        return None
    spool = os.environ["CALLME_SPOOL_DIR"]
    path = os.path.realpath(Path(spool, unquote(value[len(FILE_URL_PREFIX) :])))
    if os.path.dirname(path) != os.path.realpath(spool):  # noqa: PTH120 - strings compared
        raise ValueError("Cannot read file: it is outside the spool")
    return path


def patch_cog_types(module: ModuleType) -> None:
    """Make `cog.types` accept the router's file URLs."""
    types: Any = module
    validate_path, validate_file = types.Path.validate, types.File.validate

    def path_from(cls: Any, value: Any) -> Any:
        path = spooled(value)
        return validate_path(value) if path is None else types.Path(path)

    def file_from(cls: Any, value: Any) -> Any:
        path = spooled(value)
        return validate_file(value) if path is None else Path(path).open("rb")

    types.Path.validate = classmethod(path_from)
    types.File.validate = classmethod(file_from)


def beside(name: str) -> Any:
    """Import a module of this folder when it is needed."""
    import importlib  # noqa: PLC0415 - only some processes need it

    return importlib.import_module(name)


def limit_prints() -> None:
    """Limit what a model prints (`callme_print_limit`)."""
    beside("callme_print_limit").install()


def patch_types(module: ModuleType) -> None:
    """What follows the import of `cog.types`."""
    patch_cog_types(module)
    limit_prints()


def patch_predictor(module: ModuleType) -> None:
    """What follows the import of `cog.predictor`."""
    beside("callme_runner_watch").patch_cog_predictor(module)


PATCHES = {"cog.types": patch_types, "cog.predictor": patch_predictor}


class AfterImport(Loader):
    """Runs the real loader, then the patch. So `cog` is not imported earlier than without it."""

    def __init__(self, loader: Loader, patch: Callable[[ModuleType], None]) -> None:
        self.loader = loader
        self.patch = patch

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Do what the real loader does."""
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Do what the real loader does, and patch the result."""
        self.loader.exec_module(module)
        self.patch(module)


class CogFinder(MetaPathFinder):
    """Finds the modules in PATCHES as usual, and has them patched when they are loaded."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return a spec for the modules in PATCHES only."""
        if fullname not in PATCHES:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = AfterImport(spec.loader, PATCHES[fullname])
        return spec


PR_SET_CHILD_SUBREAPER = 36  # prctl(2)
REAP_EVERY_S = 5.0
WORKER = "coglet.server._run_worker"  # in its command line


def adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own parent."""
    import ctypes  # noqa: PLC0415 - only the server needs it

    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def reap_adopted(own: set[int]) -> None:
    """Wait for children that have ended, except `own`, the worker: the server waits for it."""
    read = beside("callme_descendants").read
    for task in os.listdir("/proc/self/task"):  # noqa: PTH208 - names only
        for pid in map(int, read(os.getpid(), f"task/{task}/children").split()):
            if WORKER.encode() in read(pid, "cmdline"):
                own.add(pid)
            elif pid not in own:
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)


def die_with(router_pid: int, *, reaps: bool) -> None:
    """Kill all processes of this start of a model as soon as the router is gone.

    A pidfd wakes the thread at once, and it never refers to another process with the same pid.
    """
    try:
        fd = os.pidfd_open(router_pid)
    except ProcessLookupError:  # it died before we could watch it
        kill_everything()
        return
    if reaps and os.getppid() != router_pid:
        kill_everything()

    def watch() -> None:
        import select  # noqa: PLC0415 - only this thread needs it

        own: set[int] = set()
        while not select.select([fd], [], [], REAP_EVERY_S if reaps else None)[0]:
            with contextlib.suppress(OSError, ValueError):
                reap_adopted(own)
        kill_everything()

    threading.Thread(target=watch, name="die-with-router", daemon=True).start()


def kill_everything() -> None:
    """Kill all processes of this start, this process last."""
    descendants, me = beside("callme_descendants"), os.getpid()
    with contextlib.suppress(OSError):
        if token := os.environ.get(descendants.START_NAME):
            descendants.kill_all(f"{descendants.START_NAME}={token}", [me], spare=[me])
    os.killpg(0, signal.SIGKILL)


def run_shadowed_sitecustomize() -> None:
    """Run the environment's own sitecustomize, which this one hides."""
    others = [p for p in sys.path if p and os.path.realpath(p) != HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = ModuleType("sitecustomize")
        module.__spec__ = spec
        module.__file__ = spec.origin
        spec.loader.exec_module(module)


if "CALLME_SPOOL_DIR" in os.environ:
    sys.meta_path.insert(0, CogFinder())
    # The router's direct child watches the router, and so does the worker, because router and
    # child may be killed together.
    router = os.environ.get("CALLME_ROUTER_PID", "")
    if router == str(os.getppid()):
        adopt_orphans()
        die_with(int(router), reaps=True)
    elif router and any(WORKER in part for part in sys.orig_argv):
        die_with(int(router), reaps=False)
        beside("callme_sleep.control").start()
    run_shadowed_sitecustomize()
