"""What a request's head may be: its size and its framing. `http1_protocol` reads it."""

from __future__ import annotations

from collections.abc import Iterable

from router.errors import MalformedRequest, RequestHeadTooLarge

# Limit for the request line and the fields together. It also limits the chunk extensions and
# trailer fields between two bytes of a body. A signed request's head has about 1 KiB, a
# browser's 4 KiB at most.
MAX_HEAD_BYTES = 64 << 10
MAX_HEAD_FIELDS = 256
# Limit for the target alone, because each line of the access log has the path.
MAX_TARGET_BYTES = 16 << 10
HTTP_VERSIONS = frozenset({"1.0", "1.1"})
MALFORMED = "Cannot read the request: it is not valid HTTP/1.1"

Fields = Iterable[tuple[bytes, bytes]]


def require_plain_framing(version: str, hosts: int, fields: Fields) -> None:
    """Check what httptools allows and RFC 9112 forbids, `hosts` being the number of Host fields.

    Raises MalformedRequest when the head breaks one of these rules.
    """
    if version not in HTTP_VERSIONS or hosts > 1:
        raise MalformedRequest(MALFORMED)
    for name, value in fields:
        if name == b"transfer-encoding" and (version == "1.0" or value.lower() != b"chunked"):
            raise MalformedRequest("Cannot read the body: its Transfer-Encoding is not known")


def require_size(target: bytes, fields: Fields) -> None:
    """Raises RequestHeadTooLarge when the target and the fields exceed MAX_HEAD_BYTES."""
    size = sum(len(name) + len(value) + 4 for name, value in fields)
    if len(target) + size > MAX_HEAD_BYTES:
        raise head_too_large()


def without_upgrade(method: bytes, version: str, target: bytes, fields: Fields) -> bytes:
    """Return the head without its Upgrade field.

    The parser has accepted all of it, so no value contains a line break.
    """
    lines = [method, b" ", target, f" HTTP/{version}\r\n".encode()]
    for name, value in fields:
        if name != b"upgrade":
            lines += [name, b": ", value, b"\r\n"]
    return b"".join([*lines, b"\r\n"])


def head_too_large() -> RequestHeadTooLarge:
    """The refusal of a head with too many bytes or fields."""
    return RequestHeadTooLarge(
        f"Cannot read the request: its head exceeds {MAX_HEAD_BYTES >> 10} KiB or "
        f"{MAX_HEAD_FIELDS} fields"
    )
