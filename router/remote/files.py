"""Files that are sent to a back-end on another machine, and those that it returns.

Input files are in the spool and are sent as `data:` URIs. Cog returns output files as `data:` URIs.
Replicate returns URLs that expire; the router fetches them, so that a result has the same form from
every back-end and can still be read a day later. A replica on Ray fetches large inputs from the
router and sends large outputs to it (`ByUrl`).
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from router.prediction import FileRef, Job, Json
from router.predictions.remote_files import RemoteFiles

ANY_TYPE = "application/octet-stream"
# Larger inputs go by URL. For Replicate: "Use a data URL for small files, up to 256 kB" - its HTTP
# reference. On Ray it is where a URL begins to cost less (docs/decisions/ray.md, 60);
# deploy/ray_files.py has it for outputs.
INLINE_BYTES = 256 << 10

AsInput = Callable[[FileRef], Awaitable[str]]
Fetch = Callable[[str], Awaitable[tuple[bytes, str]]]


def media_type(name: str) -> str:
    """The most likely media type of a file with that name."""
    return mimetypes.guess_type(name)[0] or ANY_TYPE


def data_uri(content: bytes, kind: str) -> str:
    """The content as a data: URI."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


async def inline(file: FileRef) -> str:
    """A file of the spool as a data: URI. Its type is guessed from the client's name if that has a
    known suffix, else from the spool's name."""

    def read() -> str:
        kind = media_type(file.name)
        if kind == ANY_TYPE:
            kind = media_type(file.path)
        return data_uri(Path(file.path).read_bytes(), kind)

    return await asyncio.to_thread(read)


async def with_files(job: Job, as_input: AsInput = inline) -> dict[str, Json]:
    """The inputs, with the result of `as_input` for each file."""
    inputs = dict(job.inputs)
    lists: dict[str, list[str]] = {}
    for file in job.files:
        made = await as_input(file)
        if file.in_list:
            lists.setdefault(file.field, []).append(made)
        else:
            inputs[file.field] = made
    return {**inputs, **lists}


class ByUrl:
    """Files that replicas fetch from `url`, an address of this router, and send to it. Their URLs
    work for `lifetime_s`."""

    def __init__(self, files: RemoteFiles, url: str, lifetime_s: float) -> None:
        self._files = files
        self._url = url
        self._lifetime_s = lifetime_s

    async def as_input(self, prediction_id: str, file: FileRef) -> str:
        """The URL of an input; the content of a small one."""
        if (await asyncio.to_thread(os.stat, file.path)).st_size <= INLINE_BYTES:
            return await inline(file)
        return self._url + self._files.input_path(prediction_id, file, self._lifetime_s)

    def outputs_url(self, prediction_id: str) -> str:
        """Where the prediction's outputs go. The URLs of its inputs are below it."""
        return self._url + self._files.outputs_path(prediction_id, self._lifetime_s)

    async def with_data_uris(self, prediction_id: str, output: Json, sent: Json) -> Json:
        """The output with the files that were sent. Raises NotFound."""
        return await self._files.with_data_uris(prediction_id, output, sent)


async def with_outputs(output: Json, is_ours: Callable[[str], bool], fetch: Fetch) -> Json:
    """The output, in which every URL that is a file (`is_ours`) is fetched and replaced by a data:
    URI. Raises what `fetch` raises."""
    if isinstance(output, str) and output.startswith(("https://", "http://")) and is_ours(output):
        content, kind = await fetch(output)
        return data_uri(content, kind or media_type(urlsplit(output).path))
    if isinstance(output, list):
        return [await with_outputs(o, is_ours, fetch) for o in output]
    if isinstance(output, dict):
        return {k: await with_outputs(v, is_ours, fetch) for k, v in output.items()}
    return output
