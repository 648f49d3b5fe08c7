"""What a process answers is the same to the last bit, however often it has slept."""

from __future__ import annotations

import gc
import importlib
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from router.models.worker_hook.callme_sleep import Refused, storages
from tests.router.models.sleep_hook.card import Card, Ended, Package, sleeper

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True, scope="module")
def frozen_imports() -> Iterator[None]:
    """What torch's imports have made, 330,000 objects, need not be looked through in each sleep."""
    for name in ("torch._dynamo", "torch._inductor.compile_fx"):
        importlib.import_module(name)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


def test_fifty_sleeps() -> None:
    """Tied weights, views, closures, inference tensors: all come back; asleep, nothing is held."""
    package, card = Package(), Card()
    before = package.predict()
    s = sleeper(card)
    first = s.sleep()
    assert s.memory()["awake_bytes"] == 0
    assert first["freed_bytes"] == first["device_bytes"] > 1_000_000
    s.wake()
    for _ in range(50):
        copied = s.sleep()
        assert copied["changed"] == 0
        assert copied["copied_bytes"] < 0.1 * first["copied_bytes"], "weights are copied once"
        woken = s.wake()
        assert woken["copied_bytes"] == copied["freed_bytes"]
        assert package.predict() == before
    assert card.released == 51
    assert package.net.out.weight is package.net.embed.weight


def test_modules_come_and_go() -> None:
    """The place of a freed module is used again; the arena does not grow with their number."""
    package, s = Package(), sleeper()
    sizes = []
    for number in range(8):
        torch.manual_seed(number)
        package.loras = [nn.Linear(512, 512) for _ in range(3)]
        before = package.predict()
        s.sleep()
        s.wake()
        assert package.predict() == before
        sizes.append(s.memory()["host_bytes"])
    assert max(sizes) < 1.2 * sizes[0] + (1 << 20), sizes
    with_loras = s.memory()["storages"]
    package.loras = []
    s.sleep()
    s.wake()
    assert s.memory()["storages"] == with_loras - 6


def test_freed_in_its_sleep() -> None:
    """What nobody refers to any more is left out of the wake."""
    package, s = Package(), sleeper()
    package.loras = [nn.Linear(512, 512)]
    asleep = s.sleep()
    package.loras = []
    woken = s.wake()
    assert woken["copied_bytes"] == asleep["freed_bytes"] - 4 * (512 * 512 + 512)
    assert package.predict() == Package().predict()


class Counting(Card):
    """Knows what is in use, as a GPU's allocator does. `scans`: how often storages were looked
    for."""

    scans = 0

    def in_use_bytes(self) -> int:
        """All that there is."""
        self.scans -= 1  # this one is the test's
        return sum(s.nbytes() for s in storages.find(self)[0].values())


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    """A card whose scans are counted."""
    find = storages.find

    def counted(device: Card) -> Any:
        card.scans += 1
        return find(device)

    card = Counting()
    monkeypatch.setattr(storages, "find", counted)
    return card


def test_it_looks_for_what_is_new_when_that_is_much(counting: Counting) -> None:
    """Predictions allocate and free; that alone is no reason. What is missed stays as it is."""
    package, s = Package(), sleeper(counting)
    before = package.predict()
    s.stage()
    for _ in range(3):
        s.sleep()
        s.wake()
        assert package.predict() == before
    assert counting.scans == 1
    little = torch.ones(1 << 18)  # 1 MiB
    s.sleep()
    assert little.untyped_storage().nbytes(), "it has been missed, and can be used"
    s.wake()
    assert counting.scans == 1
    more, sizes = [], []
    for step in range(5):
        more.append(torch.ones(1 << 20))  # 4 MiB, which is little by itself
        sizes.append(s.sleep()["freed_bytes"])
        s.wake()
        assert package.predict() == before, step
    assert counting.scans == 2
    assert sizes[-1] - sizes[0] >= 16 << 20
    del more
    s.sleep()
    s.wake()
    assert package.predict() == before


def test_a_storage_that_the_package_empties(counting: Counting) -> None:
    """It is not filled again by a wake."""
    package, s = Package(), sleeper(counting)
    emptied = torch.ones(1 << 20)
    s.stage()
    emptied.untyped_storage().resize_(0)
    s.sleep()
    s.wake()
    assert emptied.untyped_storage().nbytes() == 0
    assert counting.scans == 1
    assert package.predict() == Package().predict()


def test_a_script_module() -> None:
    """Its parameters have no tensor in Python until they are asked for."""
    with torch.no_grad():
        scripted = torch.jit.freeze(torch.jit.script(nn.Linear(300, 300).eval()))
        x = torch.ones(300)
        before = scripted(x).tolist()
        s = sleeper()
        s.sleep()
        s.wake()
        assert scripted(x).tolist() == before


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_function(backend: str) -> None:
    """It keeps its tensors, and they keep their storages; also as machine code."""
    if backend == "inductor" and shutil.which("g++") is None:
        pytest.skip("torch.compile needs a compiler for C++")
    net = nn.Sequential(nn.Linear(300, 300), nn.ReLU(), nn.Linear(300, 3))
    compiled: Any = torch.compile(net, backend=backend)
    with torch.inference_mode():
        x = torch.ones(2, 300)
        before = compiled(x).tolist()
        s = sleeper()
        for _ in range(50):
            s.sleep()
            s.wake()
            assert compiled(x).tolist() == before


def test_memory_of_others_stays() -> None:
    """NumPy's memory is not torch's to free; it is reported."""
    numpy = pytest.importorskip("numpy")
    theirs = torch.from_numpy(numpy.arange(100_000, dtype=numpy.float32))
    package, s = Package(), sleeper()
    asleep = s.sleep()
    assert theirs.sum().item() == pytest.approx(100_000 * 99_999 / 2, rel=1e-3)
    assert asleep["kept_bytes"] >= 400_000
    s.wake()
    assert package.predict() == Package().predict()


def test_refused_with_nothing_touched() -> None:
    """At work, unfit or without room in host memory: the model answers on, and sleeps later."""
    package, card, work = Package(), Card(), ["run.py:run"]
    before = package.predict()
    s = sleeper(card, work)
    with pytest.raises(Refused, match=r"run\.py:run") as busy:
        s.sleep()
    with pytest.raises(Refused, match=r"run\.py:run"):
        s.stage()
    work.clear()
    card.unfit = "CUDA graphs"
    with pytest.raises(Refused, match="CUDA graphs") as unfit:
        s.sleep()
    card.unfit = ""
    with pytest.raises(Refused, match="may take 0 MiB") as room:
        s.sleep(limit_bytes=500_000)
    assert [busy.value.kind, unfit.value.kind, room.value.kind] == ["busy", "unfit", "no room"]
    assert not card.pinned
    assert package.predict() == before
    s.sleep(limit_bytes=1 << 30)
    with pytest.raises(Refused, match="asleep"):
        s.stage()
    with pytest.raises(Refused, match="asleep already"):
        s.sleep()
    s.wake()
    with pytest.raises(Refused, match="awake"):
        s.wake()
    assert package.predict() == before


def test_at_work_while_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that begins during the copy is found before anything is freed."""
    package, card, work = Package(), Card(), list[str]()
    s = sleeper(card)
    monkeypatch.setattr(s, "_busy", lambda: work)
    wait = card.synchronize

    def begin() -> None:
        wait()
        work.append("a prediction")

    monkeypatch.setattr(card, "synchronize", begin)
    monkeypatch.setattr(s, "_refuse", lambda: None)
    with pytest.raises(Refused, match="a prediction"):
        s.sleep()
    assert package.predict() == Package().predict()


def test_written_while_it_is_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A copy that was written to is not used: not at once, and not when the old value returns."""
    package, card = Package(), Card()
    s = sleeper(card)
    before = package.predict()
    weight = package.net.hidden.weight.data
    old = weight.clone()
    wait = card.synchronize

    def write() -> None:
        if card.begun:
            weight.fill_(7)
        wait()

    monkeypatch.setattr(card, "synchronize", write)
    s.stage()
    weight.copy_(old)
    with pytest.raises(Refused, match="changed while"):
        s.sleep()
    monkeypatch.setattr(card, "synchronize", wait)
    weight.copy_(old)
    s.sleep()
    s.wake()
    assert package.predict() == before


@pytest.mark.parametrize("step", ["release", "usage"])
def test_a_sleep_that_fails_half_way(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends; it must not answer with a part of its weights. So it is when only the
    report fails: a refusal would say that nothing has been touched."""
    package, card = Package(), Card()
    monkeypatch.setattr(card, step, lambda: 1 / 0)
    with pytest.raises(Ended, match=r"half-way.*ZeroDivisionError"):
        sleeper(card).sleep()
    assert not package.net.hidden.weight.untyped_storage().nbytes()


def test_a_wake_without_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends."""
    package, card = Package(), Card()
    s = sleeper(card)
    s.sleep()

    def full(pairs: object) -> None:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr(card, "copy", full)
    with pytest.raises(Ended, match=r"a wake failed.*out of memory"):
        s.wake()
    assert package


@pytest.mark.parametrize("small", [False, True], ids=["large", "small"])
def test_a_copy_that_was_damaged(small: bool) -> None:
    """What comes back is checked, a bias as well as a matrix; a wrong answer is never given."""
    package, card = Package(), Card()
    s = sleeper(card)
    s.sleep()
    s.wake()
    s.sleep()
    copy = s._block if small else max(s._slots.values(), key=lambda slot: slot.size).copy
    assert copy is not None
    copy.bytes[1234] ^= 1
    with pytest.raises(Ended, match="came back changed"):
        s.wake()
    assert package


def test_nothing_to_put_to_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process without memory on the device says so."""
    card = Card()
    monkeypatch.setattr(Card, "kind", "cuda")  # there are no such storages here
    with pytest.raises(Refused, match="nothing on the device"):
        sleeper(card).sleep()
