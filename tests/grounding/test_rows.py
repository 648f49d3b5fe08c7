"""How many rows go through at once, and that nothing of a failed pass stays alive."""

import gc
import threading
import weakref

import pytest
import rows
import torch
from batching import Batcher
from model import Detector
from prediction import DetectInput
from rows import (
    BYTES_PER_POSITION,
    BYTES_PER_POSITION_AND_TOKEN,
    RowLimit,
    is_out_of_memory,
    positions_of,
)
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from weights import Source, resolve

CPU = torch.device("cpu")
GIB = 1 << 30


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that operations make, and the most that lived at once."""

    def __init__(self):
        super().__init__()
        self.live = self.peak = 0
        self._known = weakref.WeakSet()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        output = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage):
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.live += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._forget, size)

    def _forget(self, size):
        self.live -= size


@pytest.fixture(scope="module")
def wide(tmp_path_factory, tokenizer):
    """An MM-Grounding-DINO of the published width, but one layer deep, with random weights."""
    from transformers import (
        BertConfig,
        GroundingDinoProcessor,
        MMGroundingDinoConfig,
        MMGroundingDinoForObjectDetection,
        SwinConfig,
    )
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import (
        GroundingDinoImageProcessorPil,
    )

    torch.manual_seed(0)
    swin = SwinConfig(embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 4])
    swin.out_indices = [2, 3, 4]
    bert = BertConfig(
        hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64
    )
    config = MMGroundingDinoConfig(
        backbone_config=swin,
        text_config=bert,
        encoder_layers=1,
        decoder_layers=2,
        num_queries=50,
        disable_custom_kernels=True,
    )
    folder = tmp_path_factory.mktemp("wide")
    MMGroundingDinoForObjectDetection(config).save_pretrained(folder)
    images = GroundingDinoImageProcessorPil(size={"height": 256, "width": 320})
    GroundingDinoProcessor(images, tokenizer).save_pretrained(folder)
    return Detector(Source("wide", str(folder)), "cpu", "float32")


@pytest.mark.parametrize("tokens", [8, 128, 256])
def test_the_estimate_is_above_what_a_row_takes_but_not_far(wide, tokens):
    """Counted at the published width: 8 rows at 800 × 1333 with 256 tokens are eleven gigabytes."""
    prompt = (101, *[2417] * (tokens - 3), 1012, 102)
    pixels = torch.zeros(1, 3, 256, 320)
    wide.detect(pixels, [prompt])  # the text cache is filled
    with LiveBytes() as counted:
        wide.detect(pixels, [prompt, prompt])
    taken = counted.peak / 2
    per_position = BYTES_PER_POSITION + BYTES_PER_POSITION_AND_TOKEN * tokens
    assert taken <= positions_of(320, 256) * per_position <= 1.5 * taken


@pytest.mark.parametrize(
    ("free_gib", "expected"), [(100, 8), (11, 5), (2.6, 1), (0.1, 1), (None, 8)]
)
def test_rows_follow_the_free_memory(monkeypatch, free_gib, expected):
    """At 800 × 1333 with 256 tokens, and never less than one."""
    free = None if free_gib is None else free_gib * GIB
    monkeypatch.setattr(rows, "free_bytes", lambda device: free)
    need = positions_of(1333, 800), 256
    assert RowLimit(CPU, 8).rows(need) == expected
    assert RowLimit(CPU, 8, powers_of_two=True).rows(need) == 1 << (expected.bit_length() - 1)


@pytest.mark.parametrize(("device", "allowed"), [("cuda", 50), ("cuda:1", 25)])
def test_free_memory_of_a_card_by_any_name(monkeypatch, device, allowed):
    """torch takes "cuda" for most of its questions about memory, but not for the fraction: there
    its own check of the index runs."""
    cuda = torch.cuda
    monkeypatch.setattr(cuda.memory, "_lazy_init", lambda: None)
    monkeypatch.setattr(cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch._C, "_cuda_getMemoryFraction", {0: 0.5, 1: 0.25}.get, raising=False)
    monkeypatch.setattr(cuda, "mem_get_info", lambda _: (90, 100))
    monkeypatch.setattr(cuda, "memory_reserved", lambda _: 20)
    monkeypatch.setattr(cuda, "memory_allocated", lambda _: 5)
    assert rows.free_bytes(torch.device(device)) == allowed - 5


class Scarce:
    """Work that fails above some rows, with a tensor of its own in every call.

    error: the exception's class and text. An instance would keep the traceback of each raise.
    """

    def __init__(self, most, error):
        self.most, self.error = most, error
        self.calls, self.tensors, self.alive_before = [], [], []

    def __call__(self, group):
        self.alive_before.append(sum(t() is not None for t in self.tensors))
        activations = torch.ones(10)
        self.tensors.append(weakref.ref(activations))
        self.calls.append(len(group))
        if len(group) > self.most:
            raise self.error[0](self.error[1])
        return [pair * 2 for pair in group]


# Every allocator's way to say it.
ERRORS = [
    (torch.OutOfMemoryError, "CUDA out of memory"),
    (MemoryError, ""),
    (RuntimeError, "DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
]


@pytest.mark.parametrize("error", ERRORS)
def test_rows_are_halved_and_the_failed_pass_is_gone(monkeypatch, error):
    """Nothing of a failed pass lives when the next begins, and the limit is remembered."""
    monkeypatch.setattr(rows, "free_bytes", lambda device: None)
    limit, work = RowLimit(CPU, 8), Scarce(2, error)
    assert limit.run(work, range(10), (100, 10)) == [2 * n for n in range(10)]
    assert work.calls == [8, 4, 2, 2, 2, 2, 2]
    assert set(work.alive_before) == {0}
    assert limit.rows((100, 10)) == 2
    assert limit.rows((50, 10)) == 8


def test_one_row_too_large_or_another_error_is_raised():
    """There is nothing left to halve; a bug is no lack of memory."""
    with pytest.raises(torch.OutOfMemoryError):
        RowLimit(CPU, 8).run(Scarce(0, ERRORS[0]), [1, 2], (1, 1))
    broken = Scarce(0, (RuntimeError, "shapes differ"))
    with pytest.raises(RuntimeError, match="shapes differ"):
        RowLimit(CPU, 8).run(broken, [1, 2], (1, 1))
    assert broken.calls == [2]
    assert not is_out_of_memory(RuntimeError("shapes differ"))


def test_what_failed_in_a_batch_is_gone_before_the_retry():
    """The batcher's retries hold no tensor of the call that failed, nor does the exception that a
    caller keeps."""
    alive = []

    made = []
    held = threading.Event()

    def work(jobs):
        held.wait(60)
        gc.collect()
        alive.append(sum(t() is not None for t in made))
        activations = torch.ones(10)
        made.append(weakref.ref(activations))
        if len(jobs) > 1 or "bad" in jobs:
            try:
                raise KeyError("a cause")
            except KeyError as cause:
                raise torch.OutOfMemoryError("out of memory") from cause
        return jobs

    batcher = Batcher(work, most=8)
    futures = [batcher.submit("a", job) for job in ("first", "x", "bad", "y")]
    held.set()
    assert [f.result(60) for f in (futures[0], futures[1], futures[3])] == ["first", "x", "y"]
    error = futures[2].exception(60)
    batcher.close()
    assert isinstance(error, torch.OutOfMemoryError)
    assert max(alive) == 0
    gc.collect()
    assert [t() for t in made] == [None] * len(made)


def test_a_failed_pass_leaves_nothing_in_the_model(shapes):
    """Out of memory in the encoder: the features that were made for the pass are gone, and the
    next pass answers as before."""
    detector = Detector(resolve("drawn"), "cpu", "float32")
    pixels, prompt = detector.prepare(shapes), (101, 2417, 4418, 1012, 102)
    expected = detector.detect(pixels, [prompt])[0]
    fail = True

    def fails_once(module, args, kwargs):
        nonlocal fail
        if fail:
            fail = False
            raise torch.OutOfMemoryError("CUDA out of memory")

    detector.model.model.encoder.register_forward_pre_hook(fails_once, with_kwargs=True)
    seen = detector.detect_many([DetectInput(pixels, (prompt, prompt))])[0]
    assert [s.token_probabilities.shape for s in seen] == [expected.token_probabilities.shape] * 2
    torch.testing.assert_close(
        torch.tensor(seen[1].boxes), torch.tensor(expected.boxes), atol=1e-4, rtol=0
    )
    fail = True
    with pytest.raises(torch.OutOfMemoryError):
        detector.detect(pixels, [prompt])
    assert detector._text.value is detector._vision.value is None
