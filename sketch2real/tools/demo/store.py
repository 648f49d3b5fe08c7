"""Drawn scenes on disk, and on the training device as they come.

A scene is kept without its colours, with several captions: each time it is taken it gets the
colours of one of them, so one drawing serves as many pictures.
"""

import logging
import os
from collections.abc import Iterable
from concurrent.futures import Future, ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from tools.demo import captions, pairs, words
from tools.demo.scene import DYE_FULL, SIDE_PX

log = logging.getLogger("demo")

CHUNK = 64
"""Scenes in a file, usually."""
CAPTIONS = 16
"""Captions of a scene."""


class Batch(NamedTuple):
    """pictures: (N, 256, 256, 3) float 0 to 255. lines: (N, 256, 256) uint8. tokens: (N, 32).

    dyed: (N, 256, 256) bool, where a caption decides the colour.
    """

    pictures: torch.Tensor
    lines: torch.Tensor
    tokens: torch.Tensor
    dyed: torch.Tensor


def write_chunk(
    file: Path, number: int, seed: int, tokenizer_folder: Path, count: int = CHUNK
) -> Path:
    """Draw the `count` scenes of chunk `number` into `file`, unless it is there."""
    if file.exists():
        return file
    tokenizer = words.load(tokenizer_folder)
    first = (seed * 1_000_000 + number * count) % pairs.HELD_OUT
    drawn = [pairs.draw(first + index) for index in range(count)]
    spoken, colours = [], np.zeros((count, CAPTIONS, pairs.MOST_THINGS + 1, 3), np.float32)
    for index, scene in enumerate(drawn):
        random = np.random.default_rng((first + index, 2))
        for version in range(CAPTIONS):
            said = captions.say(random, scene.things)
            spoken.append(said.caption)
            colours[index, version, 1 : len(said.colours) + 1] = said.colours
    tokens = np.array(words.encoded(tokenizer, spoken), np.int16)
    partial = file.with_suffix(f".{os.getpid()}.partial.npz")
    np.savez(
        partial,
        sketch=np.stack([scene.sketch for scene in drawn]),
        base=np.stack([scene.base for scene in drawn]),
        dye=np.stack([scene.dye for scene in drawn]),
        slot=np.stack([scene.slot for scene in drawn]),
        tokens=tokens.reshape(count, CAPTIONS, words.LONGEST),
        colours=colours,
    )
    partial.replace(file)
    return file


def _one_thread() -> None:
    torch.set_num_threads(1)


class Pool:
    """Scenes on `device`; processes draw more of them meanwhile.

    scenes: how many are drawn in all, rounded up to whole files of `chunk`. workers: processes; 0
    draws them here, at once.
    """

    def __init__(
        self, folder: Path, device: str, *, scenes: int, workers: int, seed: int, tokenizer: Path,
        chunk: int = CHUNK,
    ) -> None:  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        chunks = -(-scenes // chunk)
        self.count, self._most, self._device = 0, chunks * chunk, device
        self._waiting: list[Future[Path]] = []
        files = [folder / f"{seed}-{number:05}.npz" for number in range(chunks)]
        square = (self._most, SIDE_PX, SIDE_PX)
        self._held = {
            "sketch": torch.empty(square, dtype=torch.uint8, device=device),
            "base": torch.empty((*square, 3), dtype=torch.uint8, device=device),
            "dye": torch.empty(square, dtype=torch.uint8, device=device),
            "slot": torch.empty(square, dtype=torch.uint8, device=device),
            "tokens": torch.empty(
                (self._most, CAPTIONS, words.LONGEST), dtype=torch.int16, device=device
            ),
            "colours": torch.empty((self._most, CAPTIONS, pairs.MOST_THINGS + 1, 3), device=device),
        }
        self._alone = torch.empty(0, dtype=torch.long, device=device)
        self._workers: ProcessPoolExecutor | None = None
        if workers == 0:
            self._take(write_chunk(f, n, seed, tokenizer, chunk) for n, f in enumerate(files))
            return
        self._workers = ProcessPoolExecutor(workers, get_context("spawn"), _one_thread)
        self._waiting = [
            self._workers.submit(write_chunk, file, number, seed, tokenizer, chunk)
            for number, file in enumerate(files)
        ]

    def grow(self, at_least: int = 0) -> None:
        """Take what was drawn meanwhile; wait for `at_least` scenes, or for all there will be."""
        while True:
            done = [future for future in self._waiting if future.done()]
            self._waiting = [future for future in self._waiting if future not in done]
            self._take(future.result() for future in done)
            if self.count >= min(at_least, self._most):
                return
            self._waiting[0].exception()  # waits

    def _take(self, files: Iterable[Path]) -> None:
        for file in files:
            held = np.load(file)
            rows = slice(self.count, self.count + len(held["tokens"]))
            for name, tensor in self._held.items():
                tensor[rows] = torch.from_numpy(held[name]).to(self._device)
            things = held["colours"][:, 0].any(-1).sum(-1)
            alone = self.count + torch.from_numpy(np.flatnonzero(things == 1))
            self._alone = torch.cat([self._alone, alone.to(self._device)])
            self.count = rows.stop

    def close(self) -> None:
        """Draw no more."""
        if self._workers:
            self._workers.shutdown(wait=False, cancel_futures=True)

    def batch(self, count: int, *, alone: bool = False) -> Batch:
        """Random scenes, each in the colours of one of its captions. alone: of one thing each."""
        chosen = torch.randint(
            0, len(self._alone) if alone else self.count, (count,), device=self._device
        )
        chosen = self._alone[chosen] if alone else chosen
        version = torch.randint(0, CAPTIONS, (count,), device=self._device)
        table = self._held["colours"][chosen, version] * (255 / DYE_FULL)
        dyed = self._held["slot"][chosen]
        slot = dyed.long().view(count, -1, 1).expand(-1, -1, 3)
        colour = table.gather(1, slot).view(count, SIDE_PX, SIDE_PX, 3)
        exact = self._held["base"][chosen].float()
        pictures = exact.addcmul_(self._held["dye"][chosen].float()[..., None], colour)
        return Batch(
            pictures.clamp_(0, 255),
            self._held["sketch"][chosen],
            self._held["tokens"][chosen, version].long(),
            dyed > 0,
        )
