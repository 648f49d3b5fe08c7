"""Files uploaded to /v1/files, and their use as inputs of predictions.

The URL of such a file is never fetched over HTTP. The prediction gets its own link to the content
in the spool, so the upload and the prediction may be deleted in any order.

Who deletes an upload from the spool:
- sent to /v1/files: `Uploads`, `keep_results_s` (24 h) after the upload or at DELETE; also `add`
  when it fails. Other files of the same form: `take_file` of `router.http.apis.replicate_files`.
- sent with a prediction, as a part, a data: URI or a URL: `router.predictions.lifecycle`, when the
  prediction ends (`_end`) or is refused (`_refuse`, `create`), or at the next start of the router
  when it must not run again (`open`).
- of a request that breaks off or is invalid: the code that received it, `read_form` of
  `router.http.multipart`, `RequestInputs` of `router.inputs.request_inputs`, or `UrlFetcher` of
  `router.inputs.fetch`.
- at the start of the router, what nothing refers to: `Spool.remove_unreferenced`.
A file that the disk does not delete is tried again with the next deletion (`Spool.remove`).
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from urllib.parse import urlsplit

from router.clock import Clock
from router.errors import NotFound, RouterError
from router.inputs.form_text import invalid
from router.inputs.request_inputs import Fetcher
from router.keys.key import Caller
from router.media_types import ANY_TYPE
from router.prediction import FileRef, Json, new_id
from router.storage.store import Files, StoredFile, UploadIndex

log = logging.getLogger(__name__)

SWEEP_EVERY_S = 600.0
# Any host will do: behind a tunnel the same file has URLs with several host names, and an id
# cannot be guessed.
FILE_PATH = re.compile(r"/v1/files/([0-9a-f]{32})")
# Gives a copy of the output file that a URL names, for the time of a block; None for any other URL.
# Raises NotFound when the file is gone.
FindOutput = Callable[[str], AbstractAsyncContextManager[FileRef | None]]


class Uploads:
    """Keeps uploads for `keep_s` seconds, which is the setting `keep_results_s`.

    Implements Fetcher in front of `other_urls`, the fetcher for all other URLs.
    """

    def __init__(
        self,
        index: UploadIndex,
        files: Files,
        other_urls: Fetcher,
        clock: Clock,
        keep_s: float,
        *,
        find_output: FindOutput,
    ) -> None:
        self._index = index
        self._files = files
        self._other_urls = other_urls
        self._clock = clock
        self._keep_s = keep_s
        self._find_output = find_output
        self._sweeper: asyncio.Task[None] | None = None

    async def open(self) -> Sequence[StoredFile]:
        """Start the regular sweep, and return every file in the index."""
        self._sweeper = asyncio.create_task(self._sweep_regularly())
        return await self._index.list_files()

    async def close(self) -> None:
        """Stop the sweep, and close the fetcher for other URLs."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._other_urls.close()

    async def add(
        self, upload: FileRef, metadata: Mapping[str, Json], caller: Caller
    ) -> StoredFile:
        """Take over an upload. When this raises, it is deleted."""
        now = self._clock.time()
        try:
            size_bytes, sha256 = await asyncio.to_thread(_measure, Path(upload.path))
            stored = StoredFile(
                id=new_id(),
                path=upload.path,
                name=upload.name,
                content_type=upload.media_type or ANY_TYPE,
                size_bytes=size_bytes,
                sha256=sha256,
                created_at=now,
                expires_at=now + self._keep_s,
                metadata=metadata,
                owner=caller.owner,
            )
            await self._index.put_file(stored)
        except BaseException:
            self._files.remove([upload])
            raise
        return stored

    async def get(self, file_id: str, caller: Caller) -> StoredFile:
        """Return the file. Raises NotFound when there is none that the caller may see."""
        stored = await self._index.get_file(file_id)
        if (
            stored is None
            or stored.expires_at <= self._clock.time()
            or not caller.may_see(stored.owner)
        ):
            raise NotFound(f"Cannot find file '{file_id[:80]}'")
        return stored

    async def list(self, caller: Caller) -> Sequence[StoredFile]:
        """Return the files that the caller may see and that have not expired, newest first."""
        now = self._clock.time()
        found = await self._index.list_files()
        return [f for f in found if f.expires_at > now and caller.may_see(f.owner)]

    async def delete(self, file_id: str, caller: Caller) -> None:
        """Delete the file. Predictions that use it keep their link. Raises NotFound as `get`."""
        stored = await self.get(file_id, caller)
        await self._index.delete_file(stored.id)
        self._files.remove([stored.ref()])

    async def fetch(self, url: str, field: str, max_bytes: int, caller: Caller) -> tuple[str, str]:
        """Return the path of the URL's content in the spool and a name for it.

        A file of the caller or of an output becomes a link. Any other URL goes to `other_urls`.
        Raises InvalidInput when the URL is of an output that is not kept any more.
        """
        found = FILE_PATH.fullmatch(urlsplit(url).path)
        stored = await self._index.get_file(found[1]) if found else None
        if stored is not None and caller.may_see(stored.owner):
            return self._files.link(stored.ref()), stored.name
        # Every client that has an output's URL may read it, so it need not be the caller's own.
        try:
            async with self._find_output(url) as output:
                if output is not None:
                    return self._files.link(output), output.name
        except NotFound as error:
            raise invalid(field, "is the URL of an output that is not kept any more") from error
        return await self._other_urls.fetch(url, field, max_bytes, caller)

    async def _sweep_regularly(self) -> None:
        while True:
            with contextlib.suppress(RouterError):
                now = self._clock.time()
                for old in await self._index.list_files():
                    if old.expires_at <= now:
                        await self._index.delete_file(old.id)
                        self._files.remove([old.ref()])
            await asyncio.sleep(SWEEP_EVERY_S)


def _measure(path: Path) -> tuple[int, str]:
    with path.open("rb") as file:
        return path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest()
