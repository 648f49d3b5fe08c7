"""The form of Replicate's `POST /v1/files`, in every way that its clients write it.

`content` is the file; `filename` and `type` override what its part says of itself; `metadata` is a
JSON object. PyPI's client 1.x sends metadata as text, npm's as a file, and PyPI's 2.0 betas as
one part for each value, named like `metadata[customer][id]`.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from router.api.callbacks import wrong
from router.api.multipart import Form
from router.domain.errors import PayloadTooLarge
from router.domain.media_types import MEDIA_TYPE
from router.domain.prediction import FileRef, Json
from router.ports import Files
from router.runtime.intake import Upload
from router.runtime.json_text import load_json

MAX_METADATA_BYTES = 64 << 10
MAX_NAME_BYTES = 255
MAX_DEPTH = 16
BRACKETED = re.compile(r"metadata((?:\[[^\[\]]*\])+)")
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
DEFAULT_NAME = "file"


def take_file(form: Form, files: Files) -> tuple[Upload, dict[str, Json]]:
    """The upload and its metadata. Every other file of the form is deleted; all of them when this
    raises InvalidInput or InsufficientStorage."""
    try:
        name, media_type = _name(form), _media_type(form)
        metadata = _metadata(form)
        content = _content(form, files)
    except BaseException:
        files.remove(_ref(u) for u in form.uploads)
        raise
    files.remove(_ref(u) for u in form.uploads if u is not content)
    return replace(
        content,
        name=name or content.name or DEFAULT_NAME,
        content_type=media_type or content.content_type,
    ), metadata


def _content(form: Form, files: Files) -> Upload:
    """The one file, which may have come as text: then it is put into the spool here."""
    contents = [u for u in form.uploads if u.field == "content"]
    texts = form.texts.get("content", [])
    if len(contents) + len(texts) != 1:
        raise wrong("content", f"must be one file, got {len(contents) + len(texts)}")
    if contents:
        return contents[0]
    file = files.create("")
    upload = Upload("content", str(file.path), "", "text/plain")
    form.parts.append(upload)
    try:
        file.write(texts[0].encode())
    finally:
        file.close()
    return upload


def _name(form: Form) -> str:
    name = _one_text(form, "filename")
    if len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES or CONTROL.search(name):
        raise wrong("filename", f"must be at most {MAX_NAME_BYTES} bytes on one line")
    return name


def _media_type(form: Form) -> str:
    media_type = _one_text(form, "type").strip()
    if media_type and not MEDIA_TYPE.fullmatch(media_type):
        raise wrong("type", "must be a media type like image/png")
    return media_type


def _one_text(form: Form, name: str) -> str:
    texts = form.texts.get(name, [])
    if len(texts) > 1 or any(u.field == name for u in form.uploads):
        raise wrong(name, "must be given once, as text")
    return texts[0] if texts else ""


def _metadata(form: Form) -> dict[str, Json]:
    documents: list[str | bytes] = [*form.texts.get("metadata", [])]
    documents += [_head(u) for u in form.uploads if u.field == "metadata"]
    values = {k: v for k, v in form.texts.items() if BRACKETED.fullmatch(k)}
    problem = wrong("metadata", f"must be one JSON object of at most {MAX_METADATA_BYTES} bytes")
    if len(documents) + bool(values) > 1:
        raise problem
    if values:
        return _nested(values)
    if not documents:
        return {}
    try:
        metadata = load_json(documents[0])
    except (ValueError, PayloadTooLarge):
        raise problem from None
    if not isinstance(metadata, dict) or len(documents[0]) > MAX_METADATA_BYTES:
        raise problem
    return metadata


def _nested(values: dict[str, list[str]]) -> dict[str, Json]:
    """`metadata[a][b]` and `metadata[c][]` as objects and lists; the values are texts."""
    root: dict[str, Json] = {}
    for name, texts in values.items():
        found = BRACKETED.fullmatch(name)
        keys = found[1][1:-1].split("][") if found else []
        is_list = keys[-1] == ""
        path = keys[:-1] if is_list else keys
        if not path or "" in path or len(path) > MAX_DEPTH or (len(texts) > 1 and not is_list):
            raise wrong("metadata", f"has a part '{name[:80]}' that is no place in an object")
        place = root
        for key in path[:-1]:
            place = place.setdefault(key, {})
            if not isinstance(place, dict):
                raise wrong("metadata", f"has two values at '{name[:80]}'")
        if path[-1] in place:
            raise wrong("metadata", f"has two values at '{name[:80]}'")
        place[path[-1]] = list(texts) if is_list else texts[0]
    return root


def _head(upload: Upload) -> bytes:
    with Path(upload.path).open("rb") as file:
        return file.read(MAX_METADATA_BYTES + 1)


def _ref(upload: Upload) -> FileRef:
    return FileRef(upload.field, upload.path, upload.name)
