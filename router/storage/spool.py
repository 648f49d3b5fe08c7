"""The spool: uploads and output files, as private files in one flat folder. The router makes all
file names."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
from collections.abc import Collection, Iterable
from io import FileIO
from pathlib import Path

from router.errors import InsufficientStorage, InvalidInput
from router.media_types import suffix_of_name
from router.prediction import FileRef

log = logging.getLogger(__name__)

OWNER_END = "."  # after the owner in a file name; no prediction's id contains it
DISK_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
    | {errno.ENOENT, errno.ENOTDIR}  # the folder itself is gone, or is a file
)


def make_folder(folder: Path) -> None:
    """Create the folder for this user only, if it does not exist. Raises OSError when it cannot be
    made."""
    for path in (folder.parent, folder):  # `parents` alone would let others read the upper one
        path.mkdir(mode=0o700, parents=True, exist_ok=True)


class SpoolFile:
    """A file being written. Raises InsufficientStorage when the disk does not take it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.size_bytes = 0
        try:
            try:
                self._file = FileIO(path, "xb")
            except FileNotFoundError:
                make_folder(path.parent)  # the folder has been removed
                self._file = FileIO(path, "xb")
        except OSError as error:
            raise _error_of(error) from error

    def write(self, chunk: bytes | memoryview) -> None:
        """Append. This is no coroutine: the write goes to the page cache and takes 0.2 ms per MB,
        as measured. Raises InsufficientStorage."""
        try:
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            raise _error_of(error) from error
        self.size_bytes += len(chunk)

    def close(self) -> None:
        """Close the file after the last write."""
        self._file.close()


class Spool:
    """Implements `router.storage.store.Files`. Only this user can read the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._undeleted: set[Path] = set()
        make_folder(folder)
        folder.chmod(0o700)

    def create(self, client_name: str, owner: str = "") -> SpoolFile:
        """A new file with an unguessable name. Of the client's name only a harmless suffix is kept,
        since some decoders need it. With `owner`, a prediction's id, the name begins with it.
        Raises InsufficientStorage."""
        begin = f"{owner}{OWNER_END}" if owner else ""
        name = f"{begin}{secrets.token_hex(16)}{suffix_of_name(client_name)}"
        return SpoolFile(self.folder / name)

    def remove(self, files: Iterable[FileRef]) -> None:
        """Delete files. A file that does not exist is no error. A file that cannot be deleted is
        tried again with the next call."""
        for path in [*self._undeleted, *(Path(f.path) for f in files)]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # Not raised: on a disk that became read-only, the caller must still get its result.
                self._undeleted.add(path)
                log.error("Cannot delete a file yet: %s", error.strerror)
            else:
                self._undeleted.discard(path)

    def link(self, file: FileRef) -> str:
        """Make a hard link with a new unguessable name, which copies no data; returns its path. Its
        suffix is that of `file.name`: a file may get its name after it was stored. Raises
        InvalidInput when the file is gone, and InsufficientStorage."""
        source = Path(file.path)
        suffix = suffix_of_name(file.name) or source.suffix
        path = self.folder / f"{secrets.token_hex(16)}{suffix}"
        try:
            path.hardlink_to(source)
        except FileNotFoundError as error:
            raise InvalidInput(f"Cannot use '{file.name}': the file has expired") from error
        except OSError as error:
            raise _error_of(error) from error
        return str(path)

    def remove_unreferenced(self, known: Iterable[FileRef]) -> int:
        """Delete every file that is not in `known`, such as the upload that an earlier router was
        receiving when it was killed. Returns how many were deleted."""
        keep = {Path(f.path).name for f in known}
        return self._remove_all(p for p in self.folder.iterdir() if p.name not in keep)

    def remove_unowned(self, owners: Collection[str]) -> int:
        """Delete every file whose owner is none of `owners`: its prediction was deleted, or an
        earlier router was killed before the prediction's end was on disk. Returns how many were
        deleted."""
        return self._remove_all(
            p for p in self.folder.iterdir() if p.name.partition(OWNER_END)[0] not in owners
        )

    def owners(self) -> set[str]:
        """The predictions to which files belong, by their ids."""
        names = (p.name.partition(OWNER_END) for p in self.folder.iterdir())
        return {owner for owner, end, _ in names if end}

    def _remove_all(self, paths: Iterable[Path]) -> int:
        """Delete files, and no folders: the router makes none here, but a disk may have its own
        `lost+found`."""
        count = 0
        for path in [p for p in paths if p.is_symlink() or not p.is_dir()]:
            try:
                path.unlink(missing_ok=True)
                count += 1
            except OSError as error:
                fields = {"folder": self.folder.name, "file": path.name, "reason": error.strerror}
                log.error("Cannot delete a file", extra=fields)
        return count


def size_of(files: Iterable[FileRef]) -> int:
    """The size of the files together, in bytes. One that does not exist counts as empty."""
    size = 0
    for file in files:
        with contextlib.suppress(OSError):
            size += os.stat(file.path).st_size  # noqa: PTH116 - a path object costs more than this
    return size


def _error_of(error: OSError) -> Exception:
    if error.errno in DISK_TROUBLE:
        what = (error.strerror or "disk error").lower()
        return InsufficientStorage(f"Cannot store the upload: {what}", retry_after_s=30)
    return error
