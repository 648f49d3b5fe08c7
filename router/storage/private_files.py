"""The state folder and its files may be written by this user only.

A user who may write keys.json can add a key. A user who may write the folder can replace the file.
"""

from __future__ import annotations

import os
import secrets
import shlex
import stat
from pathlib import Path

OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
OTHERS_READ = stat.S_IRGRP | stat.S_IROTH


class NotPrivateError(RuntimeError):
    """Another user may write a file or folder. The message names it and the command to run."""


def require_private(path: Path) -> None:
    """Raises NotPrivateError when another user may write `path`. A path that does not exist passes;
    other errors are left to the code that opens it."""
    try:
        found = path.stat()
    except OSError:
        return
    if found.st_mode & OTHERS_WRITE:
        raise NotPrivateError(
            f"others may write {path}; check what is in it, then run: "
            f"chmod go-w {shlex.quote(str(path))}"
        )
    me = os.geteuid()
    # root reads files that a service's user has made, and its volumes may belong to any user.
    if me != 0 and found.st_uid not in (me, 0):
        raise NotPrivateError(
            f"{path} belongs to another user, who may write it; run this as that user, or: "
            f"sudo chown -R $(id -un) {shlex.quote(str(path))}"
        )


def is_readable_by_others(path: Path) -> bool:
    """Whether another user may read the file, if it exists."""
    try:
        return bool(path.stat().st_mode & OTHERS_READ)
    except OSError:
        return False


def make_state_folder(state: Path) -> None:
    """Create the folder for this user only, or check that no other user could have written into an
    existing one. Raises NotPrivateError when another user may write it, and OSError."""
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    if any(state.iterdir()):
        require_private(state)
    state.chmod(0o700)


def write_private(path: Path, content: bytes) -> None:
    """Replace the file in one step. No other user can read it at any moment, and it survives a
    power cut. Raises OSError when it cannot be written."""
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        new.replace(path)
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    finally:
        new.unlink(missing_ok=True)
