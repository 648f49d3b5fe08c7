"""Media types and the endings of file names that go with them."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath

ANY_TYPE = "application/octet-stream"
# RFC 9110: type "/" subtype, then parameters. Nothing that could end a header's line.
MEDIA_TYPE = re.compile(
    r"[\w.+-]{1,100}/[\w.+-]{1,100}(?:; ?[\w.+-]{1,100}=[\w.+-]{1,100}){0,4}", re.A
)
# What browsers' recorders and pictures of today use, and Python's table of 3.11 lacks.
EXTRA_SUFFIXES = {
    "audio/mp4": ".m4a",
    "audio/ogg": ".ogg",
    "audio/wav": ".wav",
    "audio/webm": ".webm",
    "image/webp": ".webp",
}
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def suffix_of_type(media_type: str) -> str:
    """The usual ending of a file of that type, with its dot; "" where there is none."""
    essence = media_type.partition(";")[0].strip().lower()
    if essence == ANY_TYPE:
        return ""
    return EXTRA_SUFFIXES.get(essence) or mimetypes.guess_extension(essence) or ""


def suffix_of_name(name: str) -> str:
    """The ending of a client's file name, lower case, if it is a harmless one; else ""."""
    suffix = PurePosixPath(name).suffix
    return suffix.lower() if SUFFIX.fullmatch(suffix) else ""
