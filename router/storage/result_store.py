"""Files of results in an S3-compatible store. The client is obstore, which is imported only here,
and this module only when a store is set."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from router.errors import ResultStoreFailed
from router.storage.result_store_settings import ResultStoreSettings

if TYPE_CHECKING:  # obstore has the type in its stubs only
    from obstore.store import S3Config

# A file is read and written in pieces, so that each request is short and memory is bounded.
PIECE_BYTES = 5 << 20
PIECES_AT_ONCE = 2
# Of one request. A piece then needs a line of 0.7 Mbit/s.
REQUEST_S = 60.0
CONNECT_S = 5.0
# The client tries again by itself for so long; after that, `ResultMover` does.
RETRY_S = 10.0
RETRIES = 3
CODE = re.compile(r"<Code>(\w{1,64})</Code>")
KEY_REFUSED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch"})
WRONG_REGION = frozenset({"AuthorizationHeaderMalformed", "PermanentRedirect"})
CHECK_NAME = "check"


class ResultStore:
    """The files of one box: `folder` is its own folder below the prefix. Names have no slash."""

    def __init__(self, settings: ResultStoreSettings, folder: str) -> None:
        self._settings = settings
        config: S3Config = {"region": settings.region}
        if settings.endpoint:
            config["endpoint"] = settings.endpoint
        if settings.access_key_id:
            config["access_key_id"] = settings.access_key_id
            config["secret_access_key"] = settings.secret_access_key.get_secret_value()
        self._store = S3Store(
            settings.bucket,
            prefix="/".join(part for part in (*settings.prefix.split("/"), folder) if part),
            config=config,
            client_options={
                "allow_http": settings.endpoint.startswith("http://"),
                "timeout": timedelta(seconds=REQUEST_S),
                "connect_timeout": timedelta(seconds=CONNECT_S),
            },
            retry_config={"max_retries": RETRIES, "retry_timeout": timedelta(seconds=RETRY_S)},
        )

    @property
    def signs_urls(self) -> bool:
        """Whether clients get signed URLs, and not the files through the router."""
        return self._settings.signed_urls

    async def put(self, name: str, path: Path, media_type: str, disposition: str) -> None:
        """Store the file at `path`. Raises FileNotFoundError when there is none, and
        ResultStoreFailed."""
        await asyncio.to_thread(path.stat)
        try:
            await obstore.put_async(
                self._store,
                name,
                path,
                attributes={"Content-Type": media_type, "Content-Disposition": disposition},
                chunk_size=PIECE_BYTES,
                max_concurrency=PIECES_AT_ONCE,
            )
        except (BaseError, OSError, ValueError) as error:
            await asyncio.to_thread(path.stat)
            raise self._error(error) from None

    async def read(self, name: str, first: int, end: int) -> AsyncIterator[bytes]:
        """The bytes from `first` up to, without, `end`. Raises FileNotFoundError when there is no
        such file, and ResultStoreFailed."""
        for start in range(first, end, PIECE_BYTES):
            try:
                piece = await obstore.get_range_async(
                    self._store, name, start=start, end=min(start + PIECE_BYTES, end)
                )
            except (BaseError, OSError, ValueError) as error:
                if isinstance(error, FileNotFoundError) and _code(error) in ("", "NoSuchKey"):
                    raise FileNotFoundError(name) from None
                raise self._error(error) from None
            yield piece.to_bytes()

    async def url(self, name: str, method: Literal["GET", "HEAD"]) -> str:
        """A signed URL, which gives this file to every client that has it, until it expires. Raises
        ResultStoreFailed."""
        lifetime = timedelta(seconds=self._settings.url_lifetime_s)
        try:
            return await obstore.sign_async(self._store, method, name, lifetime)
        except (BaseError, OSError, ValueError) as error:
            raise self._error(error) from None

    async def remove(self, names: Sequence[str]) -> None:
        """Delete files. One that does not exist is no error. Raises ResultStoreFailed."""
        try:
            await obstore.delete_async(self._store, names)
        except FileNotFoundError as error:
            if _code(error) == "NoSuchBucket":
                raise self._error(error) from None
        except (BaseError, OSError, ValueError) as error:
            raise self._error(error) from None

    async def names(self) -> Sequence[str]:
        """The names of all files of this box. Raises ResultStoreFailed."""
        try:
            return [found["path"] async for batch in obstore.list(self._store) for found in batch]
        except (BaseError, OSError, ValueError) as error:
            raise self._error(error) from None

    async def check(self) -> str:
        """Write a file, read it and delete it. Returns what the store is, in words. Raises
        ResultStoreFailed."""
        try:
            await obstore.put_async(self._store, CHECK_NAME, b"callme")
            await obstore.get_range_async(self._store, CHECK_NAME, start=0, end=6)
            await obstore.delete_async(self._store, [CHECK_NAME])
        except (BaseError, OSError, ValueError) as error:
            raise self._error(error) from None
        return f"bucket '{self._settings.bucket}' at {self._place}"

    @property
    def _place(self) -> str:
        return self._settings.endpoint or f"Amazon S3, {self._settings.region}"

    def _error(self, error: Exception) -> ResultStoreFailed:
        """In words of our own: the client's contain what the store said, perhaps the key's id."""
        code = _code(error)
        if code == "NoSuchBucket":
            why = f"there is no bucket '{self._settings.bucket}'; check result_store.bucket"
        elif code in KEY_REFUSED or isinstance(error, PermissionDeniedError | UnauthenticatedError):
            reason = f" ({code})" if code else ""
            why = (
                f"it refuses the key{reason}; check result_store.access_key_id and "
                "result_store.secret_access_key, and what the key may do"
            )
        elif code in WRONG_REGION:
            why = f"the bucket is in another region ({code}); check result_store.region"
        elif code:
            why = f"it answers {code}"
        else:
            why = "it does not answer as S3 does; check result_store.endpoint, and whether it runs"
            if not self._settings.access_key_id:
                why += "; or set result_store.access_key_id"
        return ResultStoreFailed(f"the result store at {self._place}: {why}")


def _code(error: Exception) -> str:
    """S3's code for the error; "" when the answer has none."""
    found = CODE.search(str(error))
    return found[1] if found else ""
