"""What predictions leave in the model's temp folder goes, what set-up made stays."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.models import temp_folder
from router.models.temp_folder import TempFolder
from tests.waiting import until, wait_until


def made(path: Path) -> TempFolder:
    """A folder in which set-up has left a file and a folder."""
    folder = TempFolder(path / "tmp")
    folder.make()
    (folder.path / "kept").mkdir()
    (folder.path / "kept.txt").write_text("kept")
    folder.keep_present()
    return folder


def test_only_what_set_up_made_stays(tmp_path: Path) -> None:
    """Files, folders with something in them, and links, whose targets are not touched."""
    folder = made(tmp_path)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").touch()
    (folder.path / "a.png").touch()
    (folder.path / "deep" / "er").mkdir(parents=True)
    (folder.path / "link").symlink_to(tmp_path / "elsewhere")
    folder.sweep()
    assert {p.name for p in folder.path.iterdir()} == {"kept", "kept.txt"}
    assert (tmp_path / "elsewhere" / "file").exists()
    folder.remove()
    assert not folder.path.exists()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.booleans(), max_size=30))
def test_nothing_is_overlooked(
    tmp_path_factory: pytest.TempPathFactory, leaves: list[bool]
) -> None:
    """However soon after the last sweep it comes: a time stamp may not tell."""
    folder = made(tmp_path_factory.mktemp("sweep"))
    for number, leave in enumerate(leaves):
        if leave:
            (folder.path / str(number)).touch()
        folder.sweep()
        assert len(list(folder.path.iterdir())) == 2


def test_it_does_not_look_when_nothing_can_have_changed(tmp_path: Path) -> None:
    """A file put there behind the time stamp's back stays: the folder was not listed."""
    folder = made(tmp_path)
    past = (1_000_000_000, 1_000_000_000)
    os.utime(folder.path, past)
    folder.sweep()
    (folder.path / "new").touch()
    os.utime(folder.path, past)
    folder.sweep()
    assert (folder.path / "new").exists()
    os.utime(folder.path)
    folder.sweep()
    assert not (folder.path / "new").exists()


def test_a_folder_that_was_removed(tmp_path: Path) -> None:
    """Some program has cleaned up: no prediction fails by that, and the folder is there again."""
    folder = made(tmp_path)
    shutil.rmtree(folder.path)
    folder.sweep()
    assert folder.path.is_dir()
    (folder.path / "new").touch()
    folder.sweep()
    assert list(folder.path.iterdir()) == []
    shutil.rmtree(tmp_path)
    folder.keep_present()
    folder.sweep()
    assert folder.path.is_dir()
    folder.path.rmdir()
    folder.path.write_text("a file in its place")
    folder.sweep()


def test_between_quick_predictions_it_looks_now_and_then(tmp_path: Path) -> None:
    """What one of them leaves is removed by a later sweep, or at the latest at rest."""
    folder = made(tmp_path)
    (folder.path / "new").touch()
    folder.sweep_if_due()
    assert (folder.path / "new").exists()  # `made` has just looked

    def is_gone() -> bool:
        folder.sweep_if_due()
        return not (folder.path / "new").exists()

    wait_until(is_gone)
    (folder.path / "newer").touch()
    folder.sweep()
    assert not (folder.path / "newer").exists()


def test_a_folder_removed_while_nothing_ran(tmp_path: Path) -> None:
    """The next prediction has one."""
    folder = made(tmp_path)
    shutil.rmtree(folder.path)

    def is_there() -> bool:
        folder.ensure_exists()
        return folder.path.is_dir()

    wait_until(is_there)


async def test_at_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, when no prediction has ended for a while: coglet's folders go, and the rest is done."""
    monkeypatch.setattr(temp_folder, "COGLET_FOLDERS", tmp_path)
    monkeypatch.setattr(temp_folder, "REST_S", 0.05)
    rests: list[bool] = []
    left_behind = temp_folder.LeftBehind(lambda: rests.append(True))
    for name in ("a", "b"):
        (tmp_path / name / "inputs").mkdir(parents=True)
        (tmp_path / name / "outputs").mkdir()
        left_behind.add(name)
    await until(lambda: not list(tmp_path.iterdir()))
    assert rests == [True]
    await left_behind.close()
