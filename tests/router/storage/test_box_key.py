"""The box's key: made once, private, and good for nothing else than what it has sealed."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from router.storage.private_files import NotPrivateError
from router.storage.sealed_store import BoxKey, BoxKeyError, UnsealError, load_box_key

VALUES = {"token": "hunter2", "more": ["a", None]}


def test_it_is_made_once(tmp_path: Path) -> None:
    """And opens what it has sealed before; only this user may read it."""
    path = tmp_path / "box_key"
    sealed = load_box_key(path).seal("a", VALUES)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_box_key(path).unseal("a", sealed) == VALUES
    assert b"hunter2" not in sealed
    assert load_box_key(path).seal("a", VALUES) != sealed


def test_what_does_not_open(tmp_path: Path) -> None:
    """Another key, another prediction, a changed byte, a part of it."""
    key = load_box_key(tmp_path / "box_key")
    sealed = key.seal("a", VALUES)
    changed = bytes([*sealed[:-1], sealed[-1] ^ 1])
    for opener, prediction_id, text in (
        (BoxKey(bytes(32)), "a", sealed),
        (key, "b", sealed),
        (key, "a", changed),
        (key, "a", sealed[:20]),
        (key, "a", b""),
    ):
        with pytest.raises(UnsealError):
            opener.unseal(prediction_id, text)


def test_a_digest_needs_the_key(tmp_path: Path) -> None:
    """The same for the same text, another with another key."""
    key = load_box_key(tmp_path / "box_key")
    assert key.digest("x") == load_box_key(tmp_path / "box_key").digest("x") != key.digest("y")
    assert BoxKey(bytes(32)).digest("x") != key.digest("x")


@pytest.mark.parametrize("content", [b"", b"short", b"\xff" * 64, b"g" * 64, b"0" * 65])
def test_a_damaged_one_is_named(tmp_path: Path, content: bytes) -> None:
    """And left as it is, so that a person can restore it."""
    path = tmp_path / "box_key"
    path.write_bytes(content)
    with pytest.raises(BoxKeyError, match=f"{path} is damaged"):
        load_box_key(path)
    assert path.read_bytes() == content


def test_one_that_others_may_write_is_refused(tmp_path: Path) -> None:
    """With the command to run."""
    path = tmp_path / "box_key"
    load_box_key(path)
    path.chmod(0o660)
    with pytest.raises(NotPrivateError, match=f"chmod go-w {path}"):
        load_box_key(path)
