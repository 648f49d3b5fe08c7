"""The spool: uploads as private files, one flat folder, named by the router alone."""

from __future__ import annotations

import errno
import logging
import secrets
from collections.abc import Collection, Iterable
from io import FileIO
from pathlib import Path

from router.errors import InsufficientStorage, InvalidInput
from router.media_types import suffix_of_name
from router.prediction import FileRef

log = logging.getLogger(__name__)

OWNER_END = "."  # no prediction's id has one
DISK_TROUBLE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.EACCES, errno.EPERM}
    | {errno.ENOENT, errno.ENOTDIR}  # the folder itself is gone, or is a file
)


def make_folder(folder: Path) -> None:
    """Create it, for this user only, if it is not there. Raises OSError."""
    for path in (folder.parent, folder):  # `parents` would let others read the upper one
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
                make_folder(path.parent)  # somebody has removed it
                self._file = FileIO(path, "xb")
        except OSError as error:
            raise _told(error) from error

    def write(self, chunk: bytes | memoryview) -> None:
        """Append. Not awaited: it goes to the page cache, in 0.2 ms a MB as measured."""
        try:
            view = memoryview(chunk)
            while view:
                view = view[self._file.write(view) or 0 :]
        except OSError as error:
            raise _told(error) from error
        self.size_bytes += len(chunk)

    def close(self) -> None:
        """No more will be written."""
        self._file.close()


class Spool:
    """Fulfils `router.storage.store.Files`. The folder is readable by this user only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._undeleted: set[Path] = set()
        make_folder(folder)
        folder.chmod(0o700)

    def create(self, client_name: str, owner: str = "") -> SpoolFile:
        """A new file under an unguessable name. Of the client's name only a harmless suffix is
        kept: some decoders go by it. With `owner`, a prediction's id, the name begins with it."""
        begin = f"{owner}{OWNER_END}" if owner else ""
        name = f"{begin}{secrets.token_hex(16)}{suffix_of_name(client_name)}"
        return SpoolFile(self.folder / name)

    def remove(self, files: Iterable[FileRef]) -> None:
        """Delete them; one that is gone already is no error, and one that the disk does not
        let go is tried again with the next."""
        for path in [*self._undeleted, *(Path(f.path) for f in files)]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                # A disk that has turned read-only must not keep a result from its caller.
                self._undeleted.add(path)
                log.error("a file cannot be deleted yet: %s", error.strerror)
            else:
                self._undeleted.discard(path)

    def link(self, file: FileRef) -> str:
        """A hard link under a new unguessable name: no byte is copied. The ending is that of
        the file's name; it may have been named after it was stored."""
        source = Path(file.path)
        suffix = suffix_of_name(file.name) or source.suffix
        path = self.folder / f"{secrets.token_hex(16)}{suffix}"
        try:
            path.hardlink_to(source)
        except FileNotFoundError as error:
            raise InvalidInput(f"Cannot use '{file.name}': the file has expired") from error
        except OSError as error:
            raise _told(error) from error
        return str(path)

    def remove_strangers(self, known: Iterable[FileRef]) -> int:
        """Delete every file that no prediction names (an earlier router was killed while it
        took an upload); return how many."""
        keep = {Path(f.path).name for f in known}
        return self._remove_all(p for p in self.folder.iterdir() if p.name not in keep)

    def remove_unowned(self, owners: Collection[str]) -> int:
        """Delete every file whose owner is none of these (an earlier router was killed before
        its prediction's end was on disk, or its prediction is gone); return how many."""
        return self._remove_all(
            p for p in self.folder.iterdir() if p.name.partition(OWNER_END)[0] not in owners
        )

    def _remove_all(self, paths: Iterable[Path]) -> int:
        """Files only: a folder is not ours, such as the `lost+found` of a disk of its own."""
        count = 0
        for path in [p for p in paths if p.is_symlink() or not p.is_dir()]:
            try:
                path.unlink(missing_ok=True)
                count += 1
            except OSError as error:
                told = {"folder": self.folder.name, "file": path.name, "reason": error.strerror}
                log.error("a file cannot be deleted", extra=told)
        return count


def _told(error: OSError) -> Exception:
    if error.errno in DISK_TROUBLE:
        what = (error.strerror or "disk error").lower()
        return InsufficientStorage(f"Cannot store the upload: {what}", retry_after_s=30)
    return error
