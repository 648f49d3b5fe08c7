"""Memory that has changed is copied again, however it was changed; memory that has not is not."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import nn

from router.models.worker_hook.callme_sleep import storages
from tests.router.models.sleep_hook.card import Lora, Package, sleeper

pytestmark = pytest.mark.slow


def in_place(p: Package) -> None:
    """As a fine-tuned cache does."""
    assert isinstance(p.net.scale, torch.Tensor)
    p.net.scale.mul_(1.1)


def merged(p: Package) -> None:
    """As peft does."""
    Lora(256).merge(p.net.hidden)


def by_numpy(p: Package) -> None:
    """One bit of a large storage."""
    view = p.net.embed.weight.detach().numpy()
    view[13, 7] = view[13, 7] * 1.000001 + 1e-7
    del view


def by_batch_norm(p: Package) -> None:
    """Running statistics, which no version counter sees."""
    p.net.train()
    p.net.norm(torch.randn(4, 256, 3))
    p.net.eval()


def exchanged(p: Package) -> None:
    """Two rows change places; every sum is as before."""
    weight = p.net.hidden.weight.data
    weight[[3, 200]] = weight[[200, 3]].clone()


def replaced(p: Package) -> None:
    """Another storage under the same parameter."""
    p.net.hidden.weight.data = p.net.hidden.weight.data * 2


CHANGES = [in_place, merged, by_numpy, by_batch_norm, exchanged, replaced]


@pytest.mark.parametrize("staged", [False, True], ids=["slept", "staged"])
@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_kept(change: Callable[[Package], None], staged: bool) -> None:
    """A copy made earlier never brings an old value back."""
    package, s = Package(), sleeper()
    first = package.predict()
    if staged:
        s.stage()
    else:
        s.sleep()
        s.wake()
    with torch.no_grad():
        change(package)
    before = package.predict()
    assert before != first
    for _ in range(3):
        s.sleep()
        s.wake()
        assert package.predict() == before


def swapped(words: torch.Tensor, a: slice, b: slice) -> None:
    """Exchange two parts."""
    words[a], words[b] = words[b].clone(), words[a].clone()


@pytest.mark.parametrize(
    "change",
    [
        lambda w: swapped(w, slice(0, 1024), slice(3072, 4096)),  # whole rows of the fingerprint
        lambda w: swapped(w, slice(5, 6), slice(9, 10)),  # words of one row
        lambda w: w[7].bitwise_xor_(1),
        lambda w: w[-1:].view(torch.uint8)[-1:].bitwise_xor_(128),
        lambda w: w[:2].add_(torch.tensor([1, -1])),
    ],
    ids=["rows", "words", "bit", "last byte", "same sum"],
)
def test_a_fingerprint_sees(change: Callable[[torch.Tensor], object]) -> None:
    """What leaves every plain sum as it was, and the smallest change."""
    words = torch.randint(-(1 << 60), 1 << 60, (40_003,))
    before = storages.fingerprints(torch, [words.untyped_storage()])
    assert storages.fingerprints(torch, [words.untyped_storage()]) == before
    change(words)
    assert storages.fingerprints(torch, [words.untyped_storage()]) != before


def test_staged_sleep_copies_next_to_nothing() -> None:
    """What was copied in idle time is not copied again."""
    package, s = Package(), sleeper()
    staged = s.stage()
    assert staged["copied_bytes"] >= staged["device_bytes"]
    asleep = s.sleep()
    assert asleep["changed"] == 0
    assert asleep["copied_bytes"] < 0.1 * staged["copied_bytes"]
    s.wake()
    assert package.predict() == Package().predict()


def test_random_lives() -> None:
    """Whatever order things happen in, the next answer is the one before."""
    r = random.Random(1)
    package, s = Package(), sleeper()
    before = package.predict()
    for _ in range(60):
        what = r.choice(("stage", "nap", "nap", "add", "drop", "change"))
        if what == "stage":
            s.stage()
        elif what == "nap":
            s.sleep()
            s.wake()
        elif what == "add":
            package.loras.append(nn.Linear(r.choice((8, 300, 700)), 64))
        elif what == "drop" and package.loras:
            package.loras.pop(r.randrange(len(package.loras)))
        elif what == "change":
            with torch.no_grad():
                r.choice(CHANGES)(package)
        if what in ("stage", "nap"):
            assert package.predict() == before, what
        before = package.predict()
