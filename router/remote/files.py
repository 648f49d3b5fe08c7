"""Files that are sent to a back-end on another machine, and those that it returns.

Input files are in the spool and are sent as `data:` URIs. Cog returns output files as `data:` URIs.
Replicate returns URLs that expire; the router fetches them, so that a result has the same form from
every back-end and can still be read a day later.
"""

from __future__ import annotations

import asyncio
import base64
import mimetypes
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import urlsplit

from router.prediction import FileRef, Job, Json

ANY_TYPE = "application/octet-stream"

Place = Callable[[FileRef], Awaitable[str]]
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


async def with_files(job: Job, place: Place = inline) -> dict[str, Json]:
    """The inputs, with the result of `place` for each file."""
    inputs = dict(job.inputs)
    lists: dict[str, list[str]] = {}
    for file in job.files:
        made = await place(file)
        if file.in_list:
            lists.setdefault(file.field, []).append(made)
        else:
            inputs[file.field] = made
    return {**inputs, **lists}


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
