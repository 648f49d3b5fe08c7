"""Media types and the file name suffixes that belong to them."""

from __future__ import annotations

import mimetypes
import re
from pathlib import PurePosixPath

ANY_TYPE = "application/octet-stream"
# RFC 9110: type "/" subtype, then parameters. No character that could end a header line.
MEDIA_TYPE = re.compile(
    r"[\w.+-]{1,100}/[\w.+-]{1,100}(?:; ?[\w.+-]{1,100}=[\w.+-]{1,100}){0,4}", re.A
)
# Common types of browsers' recorders and of pictures that Python 3.11's table does not have.
EXTRA_SUFFIXES = {
    "audio/mp4": ".m4a",
    "audio/ogg": ".ogg",
    "audio/wav": ".wav",
    "audio/webm": ".webm",
    "image/webp": ".webp",
}
# A browser shows files of these types. It saves all others, HTML included.
SHOWN = ("image/", "audio/", "video/")
SUFFIX = re.compile(r"\.[A-Za-z0-9]{1,8}")


def sent_type(media_type: str) -> str:
    """The type to send a file with: its own, unless that could end a header line."""
    return media_type if MEDIA_TYPE.fullmatch(media_type) else ANY_TYPE


def is_shown(media_type: str) -> bool:
    """Whether a browser shows a file of that type instead of saving it."""
    return media_type.lower().startswith(SHOWN)


def suffix_of_type(media_type: str) -> str:
    """The usual suffix for a file of that type, with its dot; "" when there is none."""
    essence = media_type.partition(";")[0].strip().lower()
    if essence == ANY_TYPE:
        return ""
    return EXTRA_SUFFIXES.get(essence) or mimetypes.guess_extension(essence) or ""


def suffix_of_name(name: str) -> str:
    """The suffix of a client's file name in lower case, with its dot; "" when it has none of at
    most eight letters and digits."""
    suffix = PurePosixPath(name).suffix
    return suffix.lower() if SUFFIX.fullmatch(suffix) else ""
