"""Secret inputs on disk: there before the acknowledgement, gone with the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec.structs import replace

from router.errors import InsufficientStorage
from router.prediction import Outcome, Prediction, Status, advance, conclude
from router.secret_inputs import split
from router.storage import sealed_store
from router.storage.sealed_store import BoxKey, SealedStore
from tests.router.conftest import AnyStore

pytestmark = pytest.mark.slow

KEY = BoxKey(bytes(32))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where sealed files lie."""
    return tmp_path / "sealed"


@pytest.fixture
def store(any_store: AnyStore, folder: Path) -> SealedStore:
    """Around each kind of store."""
    return SealedStore(any_store, folder, KEY)


def made(prediction_id: str, **inputs: str) -> Prediction:
    """One that waits, its inputs named `pin…` secret."""
    checked = split({"n": 1, **inputs}, [k for k in inputs if k.startswith("pin")])
    return Prediction(prediction_id, "m", checked, 1.0, durable=True, secrets=checked.secrets)


def names(folder: Path) -> list[str]:
    """Of the sealed files."""
    return sorted(path.name for path in folder.iterdir())


async def test_from_claim_to_end(store: SealedStore, folder: Path, any_store: AnyStore) -> None:
    """Sealed once, given back to a next run of the router, shown to nobody, removed at the end."""
    p = made("a", pin="hunter2")
    assert await store.claim(p)
    sealed = (folder / "a").read_bytes()
    assert b"hunter2" not in sealed
    await store.put(advance(p, Status.PROCESSING, 2.0))
    assert (folder / "a").read_bytes() == sealed
    found = await store.get("a")
    assert found is not None
    assert found.inputs["pin"] == "**********"
    (again,) = await SealedStore(any_store, folder, KEY).unfinished()
    assert again.secrets == {"pin": "hunter2"}
    await store.put(conclude(p, Outcome(Status.CANCELED), 3.0))
    assert names(folder) == []
    assert await store.unfinished() == []


async def test_one_that_is_kept_later(store: SealedStore, folder: Path) -> None:
    """A synchronous one that outlasts its caller: sealed when it is first written."""
    p = made("a", pin="hunter2")
    await store.put(advance(p, Status.PROCESSING, 2.0))
    (again,) = await store.unfinished()
    assert again.secrets == {"pin": "hunter2"}
    await store.delete("a")
    assert names(folder) == []


async def test_an_end_is_not_overtaken(store: SealedStore, folder: Path) -> None:
    """Written at once with the step before it: the end stands and nothing sealed is left."""
    p = made("a", pin="hunter2")
    step = store.put(advance(p, Status.PROCESSING, 2.0))
    end = store.put(conclude(p, Outcome(Status.CANCELED), 3.0))
    others = [store.put(made(f"o{i}", pin="x")) for i in range(3)]
    await asyncio.gather(*others, step, end)
    found = await store.get("a")
    assert found is not None
    assert found.status is Status.CANCELED
    assert names(folder) == ["o0", "o1", "o2"]


async def test_a_taken_id_keeps_its_secrets(store: SealedStore, folder: Path) -> None:
    """A second claim of it changes nothing."""
    assert await store.claim(made("a", pin="first"))
    sealed = (folder / "a").read_bytes()
    assert not await store.claim(made("a", pin="second"))
    assert (folder / "a").read_bytes() == sealed


async def test_a_full_disk(
    store: SealedStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Told, and the id is free again; nothing half written is left."""

    def full(path: Path, content: bytes) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(sealed_store, "write_private", full)
        with pytest.raises(InsufficientStorage, match="no space left"):
            await store.claim(made("a", pin="hunter2"))
    assert await store.get("a") is None
    assert names(folder) == []
    assert await store.claim(made("a", pin="hunter2"))


async def test_a_folder_that_was_removed(store: SealedStore, folder: Path) -> None:
    """It is made again."""
    folder.rmdir()
    assert await store.claim(made("a", pin="hunter2"))
    assert names(folder) == ["a"]


async def test_what_cannot_be_had(store: SealedStore, folder: Path, any_store: AnyStore) -> None:
    """With another key, or without the file: the names are known, the values are not."""
    for name in "ab":
        await store.claim(made(name, pin="hunter2", pin2="x"))
    (folder / "b").unlink()
    other = SealedStore(any_store, folder, BoxKey(b"1" * 32))
    lost = {p.id: dict(p.secrets) for p in await other.unfinished()}
    assert lost == {name: {"pin": None, "pin2": None} for name in "ab"}


async def test_leftovers_are_removed(any_store: AnyStore, folder: Path) -> None:
    """Those of a router that was killed; not those that are needed."""
    first = SealedStore(any_store, folder, KEY)
    await first.claim(made("a", pin="hunter2"))
    (folder / "stray").write_bytes(b"x")
    (folder / ".a.1234").write_bytes(b"half written")
    second = SealedStore(any_store, folder, KEY)
    second.remove_others(p.id for p in await second.unfinished())
    assert names(folder) == ["a"]


async def test_those_without_secrets_are_left_alone(store: SealedStore, folder: Path) -> None:
    """No file, and the same rows."""
    p = made("a", label="x")
    assert await store.claim(p)
    assert await store.get("a") == replace(p, inputs=dict(p.inputs))
    assert [q.id for q in await store.page(None)] == ["a"]
    await store.put(conclude(p, Outcome(Status.CANCELED), 3.0))
    assert list(await store.sweep(9.0)) == []
    assert names(folder) == []
