"""A file's upload as each of Replicate's clients writes it, and as none should."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from router.errors import InvalidInput
from router.http.apis.replicate_files import MAX_METADATA_BYTES, take_file
from router.http.multipart import Form
from router.inputs.request_inputs import Text
from router.prediction import FileRef, Json
from router.storage.spool import Spool


class Desk:
    """A spool, and forms whose files lie in it."""

    def __init__(self, folder: Path) -> None:
        self.spool = Spool(folder)

    def upload(self, field: str, name: str, body: bytes, media_type: str = "") -> FileRef:
        """A file part, as the form's reader leaves it."""
        file = self.spool.create(name)
        file.write(body)
        file.close()
        return FileRef(field, str(file.path), name, media_type=media_type)

    def names(self) -> list[str]:
        """What lies in the spool."""
        return sorted(p.name for p in self.spool.folder.iterdir())


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    """An empty spool."""
    return Desk(tmp_path / "spool")


def form_of(texts: Mapping[str, Sequence[str]], *uploads: FileRef) -> Form:
    """A form with these parts."""
    parts = [Text(name, text) for name, many in texts.items() for text in many]
    return Form([*parts, *uploads])


@pytest.mark.parametrize(
    ("texts", "as_file", "metadata"),
    [
        ({}, None, {}),
        ({"metadata": ['{"k": [1]}']}, None, {"k": [1]}),
        ({}, b'{"k": [1]}', {"k": [1]}),
        (
            {
                "metadata[from]": ["x"],
                "metadata[deep][n]": ["1"],
                "metadata[deep][list][]": ["a", "b"],
            },
            None,
            {"from": "x", "deep": {"n": "1", "list": ["a", "b"]}},
        ),
    ],
)
def test_metadata(
    desk: Desk, texts: dict[str, list[str]], as_file: bytes | None, metadata: Json
) -> None:
    """As text, as a file, as a part for each value; only the content stays in the spool."""
    content = desk.upload("content", "a.txt", b"hello", "text/plain")
    form = form_of(texts, content)
    if as_file is not None:
        form.parts.append(desk.upload("metadata", "blob", as_file, "application/json"))
    form.parts.append(desk.upload("other", "x", b"x"))
    assert take_file(form, desk.spool) == (content, metadata)
    assert desk.names() == [Path(content.path).name]


def test_filename_and_type_override_what_the_part_says(desk: Desk) -> None:
    """PyPI's 2.0 betas call every part `upload` and say what it is in parts of their own."""
    content = desk.upload("content", "upload", b"hello", "application/octet-stream")
    form = form_of({"filename": ["a b.PNG"], "type": ["image/png"]}, content)
    upload, _ = take_file(form, desk.spool)
    assert (upload.name, upload.media_type) == ("a b.PNG", "image/png")


def test_content_as_text(desk: Desk) -> None:
    """`curl -F content=hello` is a file, too."""
    upload, _ = take_file(form_of({"content": ["hello"], "filename": ["a.txt"]}), desk.spool)
    assert (Path(upload.path).read_bytes(), upload.name) == (b"hello", "a.txt")


@pytest.mark.parametrize(
    ("texts", "field"),
    [
        ({"content": ["twice"]}, "content"),
        ({"filename": ["a", "b"]}, "filename"),
        ({"filename": ["é" * 128]}, "filename"),
        ({"filename": ["a\nb"]}, "filename"),
        ({"type": ["text/html\r\nx: y"]}, "type"),
        ({"type": ["png"]}, "type"),
        ({"metadata": ["[]"]}, "metadata"),
        ({"metadata": ["{}", "{}"]}, "metadata"),
        ({"metadata": ["{"]}, "metadata"),
        ({"metadata": ["[" * 50_000]}, "metadata"),
        ({"metadata": ['{"k": "' + "x" * MAX_METADATA_BYTES + '"}']}, "metadata"),
        ({"metadata": ["{}"], "metadata[k]": ["v"]}, "metadata"),
        ({"metadata[k]": ["v", "w"]}, "metadata"),
        ({"metadata[]": ["v"]}, "metadata"),
        ({"metadata[a][][b]": ["v"]}, "metadata"),
        ({"metadata[a]": ["v"], "metadata[a][b]": ["w"]}, "metadata"),
        ({"metadata[a][b]": ["v"], "metadata[a]": ["w"]}, "metadata"),
        ({"metadata" + "[a]" * 17: ["v"]}, "metadata"),
    ],
)
def test_what_cannot_be_used(desk: Desk, texts: dict[str, list[str]], field: str) -> None:
    """The field is named, and nothing stays in the spool."""
    form = form_of(texts, desk.upload("content", "a.txt", b"hello"))
    with pytest.raises(InvalidInput) as caught:
        take_file(form, desk.spool)
    assert caught.value.details is not None
    assert caught.value.details["problems"][0]["body"] == field
    assert desk.names() == []
