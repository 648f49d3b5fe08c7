"""The calls of CUDA, against a torch that notes them; the arena; the socket."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import random
import socket
import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from router.models.worker_hook.callme_sleep import Refused, control, device
from router.models.worker_hook.callme_sleep.arena import Arena, Block
from router.models.worker_hook.callme_sleep.device import Cuda, Processor, device_of
from tests.router.models.sleep_hook.card import Card, Package
from tests.waiting import wait_until


def cuda(**changes: Any) -> Cuda:
    """A card in use, as torch would show it."""
    fake = SimpleNamespace(
        is_initialized=lambda: True,
        memory=SimpleNamespace(get_allocator_backend=lambda: "native"),
        memory_snapshot=lambda include_traces: [{"segment_pool_id": (0, 0)}],
        cudart=lambda: SimpleNamespace(cudaHostRegister=lambda *a: 0),
    )
    vars(fake).update(changes)
    return Cuda(SimpleNamespace(cuda=fake))


def test_what_cannot_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps addresses on the card is named; then nothing is freed."""
    assert cuda().why_unfit() == ""
    assert "not used" in cuda(is_initialized=lambda: False).why_unfit()
    other = SimpleNamespace(get_allocator_backend=lambda: "cudaMallocAsync")
    assert "cudaMallocAsync" in cuda(memory=other).why_unfit()
    graph = [{"segment_pool_id": (0, 0)}, {"segment_pool_id": (0, 1)}]
    assert "CUDA graphs" in cuda(memory_snapshot=lambda include_traces: graph).why_unfit()
    assert "CUDA graphs" in cuda(memory_snapshot=lambda: graph).why_unfit(), "an older torch"
    monkeypatch.setitem(sys.modules, "tensorrt", ModuleType("tensorrt"))
    assert "tensorrt" in cuda().why_unfit()


def test_memory_that_cannot_be_pinned() -> None:
    """CUDA's own code is in the error."""
    runtime = SimpleNamespace(cudaHostRegister=lambda address, size, flags: 712)
    with pytest.raises(RuntimeError, match="712"):
        cuda(cudart=lambda: runtime).pin(4096, 4096)


def test_copies_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large storage is cut, every byte is copied once, and the streams share the work. They begin
    when what is on its way has been done, and what follows waits for them."""
    monkeypatch.setattr(device, "CHUNK_BYTES", 1000)
    used: list[str] = []

    class Stream:
        def __init__(self, name: str) -> None:
            self.name = name

        def wait_stream(self, other: Stream) -> None:
            used.append(f"{self.name} after {other.name}")

    @contextlib.contextmanager
    def on(stream: Stream) -> Iterator[None]:
        used.append(stream.name)
        yield

    names, current = iter("ab"), Stream("current")
    card = cuda(
        Stream=lambda device: Stream(next(names)), stream=on, current_stream=lambda device: current
    )
    source = torch.arange(5500, dtype=torch.int64).to(torch.uint8)
    to, small = torch.zeros(5500, dtype=torch.uint8), torch.zeros(3, dtype=torch.uint8)
    card.copy([(to, source), (small, source[:3])])
    assert torch.equal(to, source)
    assert torch.equal(small, source[:3])
    before, after = ["a after current", "b after current"], ["current after a", "current after b"]
    assert used == [*before, *"abababa", *after]


def test_a_wake_asks_for_large_pieces() -> None:
    """Not for small storages, and never more at a time than GROW_BYTES; a full card is no error."""
    asked: list[int] = []

    def empty(size: int, **how: object) -> object:
        asked.append(size)
        if len(asked) == 4:
            raise torch.OutOfMemoryError("full")
        return object()

    fake = SimpleNamespace(empty=empty, uint8=None, OutOfMemoryError=torch.OutOfMemoryError)
    gib = 1 << 30
    Cuda(fake).prepare([("cuda:0", 3 * gib // 2), ("cuda:0", 100), ("cuda:1", 3 * gib)])
    assert asked == [gib, gib // 2, gib, gib]


def test_an_unknown_device() -> None:
    """It is named."""
    with pytest.raises(ValueError, match="'tpu'"):
        device_of("tpu", torch)
    assert isinstance(device_of("cpu", torch), Processor)


def test_the_arena_loses_nothing() -> None:
    """Blocks never overlap, freed places are used again, and all that is pinned is unpinned."""
    r = random.Random(3)
    card = Card()
    arena = Arena(card)
    blocks: list[Block] = []
    for _ in range(300):
        if blocks and r.random() < 0.5:
            arena.give(blocks.pop(r.randrange(len(blocks))))
        else:
            blocks += arena.take([r.randrange(1, 50_000) for _ in range(r.randint(1, 4))])
        places = sorted((b.bytes.data_ptr(), b.bytes.numel()) for b in blocks)
        assert all(a + n <= b for (a, n), (b, _) in itertools.pairwise(places))
        assert sum(card.pinned.values()) == arena.size_bytes
    for block in blocks:
        arena.give(block)
    assert arena.size_bytes == 0
    assert not card.pinned


def test_the_arena_has_a_limit() -> None:
    """What does not fit takes nothing, not even the free parts that would have been used."""
    arena = Arena(Card())
    first, second = arena.take([8192, 8192])
    arena.give(first)
    with pytest.raises(Refused, match="main memory"):
        arena.take([8192, 50_000], limit_bytes=30_000)
    assert arena.size_bytes == 16384
    (again,) = arena.take([8192], limit_bytes=30_000)
    assert arena.size_bytes == 16384
    assert (again.start, second.start) == (first.start, 8192)


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A connection to the control socket of this process, in a folder with a long name."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    monkeypatch.setenv(control.PATH_NAME, str(folder / "control.sock"))
    monkeypatch.setenv(control.DEVICE_NAME, "cpu")
    control.start()
    handle = os.open(folder, os.O_PATH)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(f"/proc/self/fd/{handle}/control.sock")
        os.close(handle)
        yield s.makefile("rwb"), folder / "control.sock"


def ask(stream: Any, request: object) -> Any:
    """One line, one answer."""
    line = request if isinstance(request, bytes) else json.dumps(request).encode()
    stream.write(line + b"\n")
    stream.flush()
    return json.loads(stream.readline())


def test_the_socket(client: Any) -> None:
    """Only this user may connect, and what cannot be read is refused and not obeyed."""
    stream, path = client
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for bad in (b"{", b"[]", b'"sleep"', {"do": "reset"}, {"do": None}, b"\xff"):
        assert ask(stream, bad)["refused"] == "unfit", bad
    assert ask(stream, {"do": "busy"})["busy"], "pytest itself is at work"
    assert ask(stream, {"do": "sleep"})["refused"] == "busy"
    assert "wake" not in ask(stream, {"do": "memory"})


@pytest.mark.slow
def test_a_sleep_by_socket(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It sleeps within the limit, tells its bytes, and answers as before."""
    package = Package()
    before = package.predict()
    stream, _ = client
    monkeypatch.setattr("router.models.worker_hook.callme_sleep.threads.work_of", lambda frame: "")
    assert ask(stream, {"do": "sleep", "limit_bytes": 4096})["refused"] == "no room"
    staged = ask(stream, {"do": "stage"})
    assert staged["host_bytes"] >= staged["device_bytes"]
    asleep = ask(stream, {"do": "sleep"})
    assert ask(stream, {"do": "memory"})["awake_bytes"] == 0
    assert ask(stream, {"do": "wake"})["copied_bytes"] == asleep["freed_bytes"]
    assert package.predict() == before


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that does not use torch has nothing to sleep with."""
    monkeypatch.delitem(sys.modules, "torch")
    answer = control.Control("cpu").answer(b'{"do": "sleep"}')
    assert answer == {"refused": "unfit", "why": "it does not use torch"}


def test_no_socket_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the variable nothing listens, and no thread begins."""
    monkeypatch.delenv(control.PATH_NAME, raising=False)
    before = threading.active_count()
    control.start()
    assert wait_until(lambda: threading.active_count() <= before)
