"""A training loop that can be stopped at any moment and resumed.

Its schedule follows time, not steps, so that a run of a given number of minutes ends with its
learning rate annealed: time by the clock on a GPU, CPU time without one, since others may use the
processor too.
"""

import copy
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

log = logging.getLogger("demo")

SAVE_EVERY_S = 150.0
LOG_EVERY = 50
WARM_UP_STEPS = 100
LAST_RATE = 0.01
"""Learning rate at the end, as a share of its maximum."""
EMA_DECAY = 0.998


class Stopper:
    """Set by SIGTERM and Ctrl-C, so that the loop can save and end."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def _ask(self, _number: int, _frame: object) -> None:
        self.asked = True


class Loop:
    """Trains `modules` together, keeping an average of their weights.

    rate: learning rate after warm-up; a cosine brings it down to `LAST_RATE` of this.
    minutes: in all, earlier runs in this folder included.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        modules: dict[str, nn.Module],
        *,
        rate: float,
        minutes: float,
        device: str = "cpu",
    ) -> None:
        self.name, self.device = name, device
        self._clock = time.process_time if device == "cpu" else time.monotonic
        self.modules = modules
        self.averages = {
            key: copy.deepcopy(module).eval().requires_grad_(False)
            for key, module in modules.items()
        }
        self._file = folder / f"{name}.pt"
        self._rate, self._seconds = rate, minutes * 60
        self._weights: list[torch.Tensor] = [
            p for module in modules.values() for p in module.parameters()
        ]
        self._average_weights: list[torch.Tensor] = [
            p for m in self.averages.values() for p in m.parameters()
        ]
        self._optimizer = torch.optim.AdamW(
            self._weights, lr=rate, betas=(0.9, 0.99), weight_decay=1e-2, fused=True
        )
        self._log = folder / "log.jsonl"
        self.step = 0
        self._used_s = 0.0
        self._resume()
        self._begun = self._clock()

    def progress(self) -> float:
        """0 at the start of the schedule, 1 at its end."""
        return (self._used_s + self._clock() - self._begun) / self._seconds

    def run(self, loss: Callable[[], torch.Tensor], stopper: Stopper) -> bool:
        """Minimise `loss` until the time is used up; False if it was stopped earlier."""
        total, saved = torch.zeros((), device=self.device), time.monotonic()
        while (progress := self.progress()) < 1 and not stopper.asked:
            self._optimizer.param_groups[0]["lr"] = self._rate_at(progress)
            value = loss()
            value.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self._weights, 1.0)
            self._optimizer.step()
            self._optimizer.zero_grad()
            self.step += 1
            with torch.no_grad():
                decay = min(EMA_DECAY, (1 + self.step) / (10 + self.step))
                torch._foreach_lerp_(self._average_weights, self._weights, 1 - decay)
                total += value.detach()  # not yet read: reading would wait for the GPU
            if self.step % LOG_EVERY == 0:
                self._report(progress, float(total) / LOG_EVERY)
                total.zero_()
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()
        return progress >= 1

    def _report(self, progress: float, loss: float) -> None:
        """A line for the reader, and one for programs."""
        log.info("%s step %d, %.1f %%, loss %.4f", self.name, self.step, 100 * progress, loss)
        row = {"stage": self.name, "step": self.step, "progress": progress, "loss": loss}
        with self._log.open("a") as file:
            file.write(json.dumps({**row, "s": round(self._clock(), 1)}) + "\n")
        if not math.isfinite(loss):
            raise RuntimeError(f"Cannot train on: the loss of {self.name} is {loss}")

    def _rate_at(self, progress: float) -> float:
        warm = min(1.0, (self.step + 1) / WARM_UP_STEPS)
        fallen = LAST_RATE + (1 - LAST_RATE) * (1 + math.cos(math.pi * min(progress, 1))) / 2
        return self._rate * warm * fallen

    def save(self) -> None:
        """Write all that resuming needs; a crash meanwhile leaves the earlier file intact."""
        write_whole(
            self._file,
            {
                "modules": {key: module.state_dict() for key, module in self.modules.items()},
                "averages": {key: module.state_dict() for key, module in self.averages.items()},
                "optimizer": self._optimizer.state_dict(),
                "random": torch.get_rng_state(),
                "random_gpu": [] if self.device == "cpu" else torch.cuda.get_rng_state_all(),
                "step": self.step,
                "used_s": self._used_s + self._clock() - self._begun,
            },
        )

    def _resume(self) -> None:
        if not self._file.exists():
            return
        state = torch.load(self._file, weights_only=True, map_location="cpu")
        for key, module in self.modules.items():
            module.load_state_dict(state["modules"][key])
            self.averages[key].load_state_dict(state["averages"][key])
        self._optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"])
        if self.device != "cpu" and state["random_gpu"]:
            torch.cuda.set_rng_state_all(state["random_gpu"])
        self.step, self._used_s = state["step"], state["used_s"]
        log.info(
            "%s resumes at step %d, %.1f %%",
            self.name,
            self.step,
            100 * self._used_s / self._seconds,
        )


def write_whole(path: Path, state: Any) -> None:
    """torch.save into a temporary file, then an atomic rename."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)
