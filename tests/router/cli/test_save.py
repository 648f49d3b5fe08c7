"""Files of an output land on the disk, and nothing is overwritten unasked."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from router.cli.save import decode_data_uri, take_files


def uri(content: bytes, kind: str = "image/png") -> str:
    """`content` as a model's output has it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each test runs in an empty folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_one_file_goes_where_it_was_asked_for(here: Path) -> None:
    """Wherever in the output it stands; the rest stays as it was."""
    output = {"seed": 7, "images": [{"image": uri(b"png")}]}
    told, written = take_files(output, here / "out.png")
    assert written == [here / "out.png"]
    assert (here / "out.png").read_bytes() == b"png"
    assert told == {"seed": 7, "images": [{"image": str(here / "out.png")}]}


def test_a_name_without_a_suffix_and_a_folder(here: Path) -> None:
    """As in Cog: the file gets the suffix of its type, and files of a list are numbered."""
    assert take_files(uri(b"a"), Path("out"))[1] == [Path("out.png")]
    assert take_files(uri(b"a"), here)[1] == [here / "output.png"]
    written = take_files([uri(b"a"), uri(b"b")], Path("out.png"))[1]
    assert written == [Path("out.0.png"), Path("out.1.png")]


def test_without_a_destination_nothing_is_overwritten(here: Path) -> None:
    """`output` with the suffix of its type, numbered if there is one already."""
    assert take_files(uri(b"a"), None)[1] == [Path("output.png")]
    assert take_files(uri(b"b", "audio/wav"), None)[1] == [Path("output.wav")]
    assert take_files(uri(b"c"), None)[1] == [Path("output-1.png")]
    assert (here / "output.png").read_bytes() == b"a"


def test_several_files_are_named_for_their_fields(here: Path) -> None:
    """And one that stands in two places is written once."""
    output = {"image": uri(b"a"), "mask": uri(b"b", "image/jpeg"), "all": [uri(b"a")]}
    told, written = take_files(output, here / "out")
    assert sorted(path.name for path in written) == ["out-image.png", "out-mask.jpg"]
    assert told["all"] == [told["image"]]
    assert (here / "out-mask.jpg").read_bytes() == b"b"


def test_an_output_without_files_stays_as_it_is(here: Path) -> None:
    """Nothing is written; text that only looks a little like a URI is text."""
    output = {"text": "see data: here", "score": 0.5, "none": None}
    assert take_files(output, here / "out") == (output, [])
    assert not list(here.iterdir())


@pytest.mark.parametrize("text", ["data:image/png;base64", "data:image/png;base64,!!!"])
def test_a_broken_uri_is_an_error(text: str) -> None:
    """Not a file of rubbish."""
    with pytest.raises(ValueError, match="Cannot decode"):
        take_files(text, None)


def test_percent_encoded_text() -> None:
    """RFC 2397 without base64."""
    assert decode_data_uri("data:,a%20b") == ("text/plain", b"a b")


def test_the_files_of_a_list_are_named_as_cog_does(here: Path) -> None:
    """By their number, and none is overwritten."""
    assert take_files([uri(b"a"), uri(b"b")], None)[1] == [
        Path("output.0.png"),
        Path("output.1.png"),
    ]
    again = take_files([uri(b"c"), uri(b"d")], None)[1]
    assert again == [Path("output.0-1.png"), Path("output.1-1.png")]
    assert (here / "output.0.png").read_bytes() == b"a"


@pytest.mark.parametrize(
    ("name", "kind", "told"),
    [
        ("out.png", "image/webp", "out.png is image/webp: out.webp would be its name"),
        ("out.jpg", "image/png", "out.jpg is image/png: out.png would be its name"),
        *[("out.jpg", "image/jpeg", ""), ("out.jpeg", "image/jpeg", "")],
        *[("OUT.WAV", "audio/wav", ""), ("out.wav", "audio/x-wav", ""), ("out.x", "image/png", "")],
    ],
)
def test_a_suffix_that_is_not_true(
    here: Path, capsys: pytest.CaptureFixture[str], name: str, kind: str, told: str
) -> None:
    """The file is written where it was asked for, and stderr says what it is."""
    assert take_files(uri(b"x", kind), Path(name))[1] == [Path(name)]
    assert capsys.readouterr().err.strip() == told
    assert (here / name).read_bytes() == b"x"
