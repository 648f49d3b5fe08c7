"""What every store promises, in memory and on disk."""

from __future__ import annotations

from msgspec.structs import replace

from router.prediction import (
    Callback,
    Delivery,
    Failure,
    FileRef,
    Outcome,
    OutputFile,
    Prediction,
    Status,
    advance,
    conclude,
)
from router.secret_inputs import SecretValues
from router.storage.store import StoredFile
from tests.router.conftest import AnyStore


def made(prediction_id: str, created_at: float = 1.0) -> Prediction:
    """A prediction that waits."""
    files = (FileRef("image", "/spool/x.png", "cat.png"),)
    return Prediction(prediction_id, "echo", {"n": 1, "s": "é"}, created_at, files)


async def test_what_is_put_is_got(any_store: AnyStore) -> None:
    """Every field survives, in every status."""
    p = replace(
        made("a"),
        callback=Callback("https://a.example/", ("start", "completed")),
        digest="d",
        namespace="acme",
        base_url="http://box/",
        deadline_at=9.0,
    )
    await any_store.put(p)
    assert await any_store.get("a") == p
    p = advance(p, Status.PROCESSING, 2.0)
    await any_store.put(p)
    assert await any_store.get("a") == p
    failure = Failure("invalid_input", "no", {"problems": []})
    output = OutputFile(("masks", 0), "/outputs/a.png", "output-masks-0.png", "image/png", 3)
    p = replace(p, output_files=(output,))
    p = conclude(p, Outcome(Status.FAILED, failure=failure, logs="l", predict_time_s=0.5), 3.0)
    await any_store.put(p)
    assert await any_store.get("a") == p
    assert await any_store.get("b") is None
    await any_store.delete("a")
    assert await any_store.get("a") is None


async def test_of_secrets_the_names_are_kept(any_store: AnyStore) -> None:
    """Their values are sealed elsewhere; a prediction that needs them is known by the names."""
    p = replace(made("a"), secrets=SecretValues({"token": "hunter2"}))
    for keep in (any_store.claim, any_store.put):
        await keep(p)
        for found in (await any_store.get("a"), *(await any_store.unfinished())):
            assert found is not None
            assert found.secrets == {"token": None}
        await any_store.delete("a")


async def test_an_id_is_claimed_once(any_store: AnyStore) -> None:
    """The second claim fails and changes nothing, whatever has become of the first."""
    first = made("a")
    assert await any_store.claim(first)
    assert not await any_store.claim(replace(first, model="other"))
    ended = conclude(first, Outcome(Status.CANCELED), 2.0)
    await any_store.put(ended)
    assert not await any_store.claim(first)
    assert await any_store.get("a") == ended


async def test_unfinished_oldest_first(any_store: AnyStore) -> None:
    """What has ended is not among them."""
    for i, name in enumerate("cab"):
        await any_store.put(made(name, float(i)))
    await any_store.put(conclude(made("d"), Outcome(Status.CANCELED), 9.0))
    assert [p.id for p in await any_store.unfinished()] == ["c", "a", "b"]


async def test_sweep_returns_the_files(any_store: AnyStore) -> None:
    """Old results go, newer ones and unfinished ones stay; the files are the inputs' and the
    outputs'."""
    for name, at in (("old", 10.0), ("new", 20.0)):
        output = OutputFile((), f"/outputs/{name}.png", "output.png", "image/png", 3)
        p = replace(made(name), output_files=(output,))
        await any_store.put(conclude(p, Outcome(Status.CANCELED), at))
    await any_store.put(made("waiting"))
    assert await any_store.ended_ids() == {"old", "new"}
    swept = await any_store.sweep(15.0)
    assert [f.path for f in swept] == ["/spool/x.png", "/outputs/old.png"]
    assert await any_store.ended_ids() == {"new"}
    assert await any_store.get("old") is None
    assert await any_store.get("new") is not None
    assert await any_store.get("waiting") is not None


async def test_the_outbox(any_store: AnyStore) -> None:
    """A webhook waits in it from the result on, until it has arrived or its result is swept."""
    ended = {name: conclude(made(name), Outcome(Status.CANCELED), 10.0) for name in "abc"}
    await any_store.put(ended["a"], announce_at=10.0)
    await any_store.put(ended["b"], announce_at=11.0)
    await any_store.put(ended["c"])
    await any_store.postpone(Delivery("b", 2, 99.0))
    assert sorted(await any_store.deliveries(), key=str) == [
        Delivery("a", 0, 10.0),
        Delivery("b", 2, 99.0),
    ]
    await any_store.delivered("a")
    await any_store.delivered("a")
    assert await any_store.deliveries() == [Delivery("b", 2, 99.0)]
    await any_store.sweep(10.5)
    assert await any_store.deliveries() == []


async def test_pages(any_store: AnyStore) -> None:
    """Newest first, forth and back, also among those of one moment; none twice, none left out."""
    for i in range(10):
        await any_store.put(made(f"p{i}", float(i // 3)))
    pages = [[p.id for p in await any_store.page(None, limit=4)]]
    for last in ("p6", "p2"):
        at = await any_store.get(last)
        assert at is not None
        older = await any_store.page(None, before=(at.created_at, at.id), limit=4)
        pages.append([p.id for p in older])
    assert pages == [["p9", "p8", "p7", "p6"], ["p5", "p4", "p3", "p2"], ["p1", "p0"]]
    assert [p.id for p in await any_store.page(None, after=(0.0, "p1"), limit=4)] == pages[1]
    assert list(await any_store.page(None, after=(3.0, "p9"), limit=4)) == []


async def test_pages_of_an_owner(any_store: AnyStore) -> None:
    """Only its own, in either direction, and as many as asked for though others lie between."""
    for i in range(9):
        await any_store.put(replace(made(f"p{i}", float(i)), owner=("ann", "bob", "")[i % 3]))
    assert [p.id for p in await any_store.page("ann", limit=2)] == ["p6", "p3"]
    assert [p.id for p in await any_store.page("ann", before=(3.0, "p3"), limit=2)] == ["p0"]
    assert [p.id for p in await any_store.page("ann", after=(0.0, "p0"), limit=9)] == ["p6", "p3"]
    assert [p.id for p in await any_store.page("", limit=9)] == ["p8", "p5", "p2"]
    assert list(await any_store.page("nobody")) == []


async def test_files(any_store: AnyStore) -> None:
    """What is put is got and listed, newest first, until it is deleted."""
    first, second = (
        StoredFile(
            f"f{i}", f"/spool/{i}", "a.txt", "text/plain", 3, "00", i, i + 9, {"k": [1]}, "ann"
        )
        for i in (1.0, 2.0)
    )
    await any_store.put_file(first)
    await any_store.put_file(second)
    assert list(await any_store.list_files()) == [second, first]
    assert await any_store.get_file(first.id) == first
    await any_store.delete_file(first.id)
    assert await any_store.get_file(first.id) is None
    assert list(await any_store.list_files()) == [second]
