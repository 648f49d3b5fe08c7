"""What the operator asks of a model: to load it, to unload it, or to restart it with its new code.

A restart reads the package again before anything is stopped. So a package that cannot be read, for
example because of a syntax error, leaves the old process at work.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path

from router.errors import MethodNotAllowed, ModelUnavailable, without_paths
from router.inputs.model_schemas import ModelSchemas
from router.models.catalog import Package, PackageError
from router.models.process_interface import StartError
from router.models.source_files import source_files
from router.models.tracebacks import with_location
from router.scheduling import messages as msg

Post = Callable[[msg.Event], None]


class ModelCommands:
    """Passes the operator's commands on to the scheduler.

    `is_local`: whether the model runs on this machine. `read` returns the package as it is on disk
    now, and raises PackageError. `use` makes the next start use a package.
    """

    def __init__(
        self,
        schemas: ModelSchemas,
        *,
        is_local: Callable[[str], bool],
        read: Callable[[str], Package],
        use: Callable[[Package], None],
        post: Post,
    ) -> None:
        self._schemas = schemas
        self.is_local = is_local
        self._read = read
        self._use = use
        self._post = post

    async def restart(self, model: str) -> None:
        """Start the model again with its present code, when it runs nothing any more.

        Raises ModelUnavailable when its package cannot be read; then nothing is stopped. The
        message names the line, so it is for the operator only.
        """
        self._require_local(model, "restart")
        try:
            package = self._read(model)
            check_syntax(package.folder)
            await self._schemas.refresh(package)
        except (PackageError, StartError) as error:
            location = error.location if isinstance(error, StartError) else ""
            reason = with_location(without_paths(str(error)), location)
            raise ModelUnavailable(f"Cannot restart '{model}': {reason}") from error
        self._use(package)
        self._post(msg.Unload(model, again=True))

    async def load(self, model: str) -> None:
        """Load the model if there is room, also before its back-off is over."""
        self._require_local(model, "load")
        if self._schemas.unreadable(model) is not None:
            await self.restart(model)  # it may have been repaired
        self._post(msg.Load(model, at_once=True))

    def unload(self, model: str) -> None:
        """Free the model's memory when it runs nothing any more. The next prediction loads it."""
        self._require_local(model, "unload")
        self._post(msg.Unload(model))

    def _require_local(self, model: str, verb: str) -> None:
        if not self.is_local(model):
            raise MethodNotAllowed(f"Cannot {verb} '{model}': it runs on another machine")


def check_syntax(folder: Path) -> None:
    """Check all Python files of a package, also those that are imported only later.

    Raises StartError for the first syntax error, with its line and column.
    """
    for path in source_files(folder):
        if path.suffix != ".py":
            continue
        try:
            ast.parse(path.read_bytes())
        except SyntaxError as error:
            location = f"{path.relative_to(folder)}:{error.lineno}:{error.offset or 1}"
            raise StartError(f"SyntaxError: {error.msg}", location=location) from error
        except (OSError, ValueError):
            continue  # the import says what is wrong, if the file is used
