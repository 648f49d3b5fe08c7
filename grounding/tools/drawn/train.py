"""Trains the drawn weights: `python -m tools.drawn.train --out RUN`, in the package's folder.

It starts from a checkpoint (--init), draws new pictures for every step, and uses --cpu-minutes of
CPU time, over which the learning rate follows a cosine. Interrupted, also by SIGTERM, it leaves
RUN/state.pt, from which the same command resumes: weights, their moving average, optimizer, random
state, time spent. RUN/weights is the average as a folder for WEIGHTS; RUN/log.jsonl holds the
curve. The same seed gives the same pictures.
"""

import argparse
import json
import math
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForZeroShotObjectDetection, AutoTokenizer

from tools.drawn.batches import anchor_centres, make_batch
from tools.drawn.evaluate import score_folder
from tools.drawn.export import save_weights
from tools.drawn.losses import total_loss

EARLY_SIDES, LATE_SIDES = (112, 128, 128, 144), (144, 160, 160, 160, 176)
"""Sides in px that training draws from before and after SWITCH of the budget is spent: small
pictures are cheap, and the drawn weights look at 160."""
SWITCH = 0.5
_WARM_UP_STEPS = 150
_LOWEST_RATE = 0.02
_CLIP = 5.0


class Training:
    """The state of one run; everything in it is saved and restored."""

    def __init__(self, init: Path, out: Path, rate: float, seed: int) -> None:
        self.out = out
        self.rate = rate
        self.tokenizer = AutoTokenizer.from_pretrained(init)
        load = AutoModelForZeroShotObjectDetection.from_pretrained
        self.model: Any = load(init, dtype=torch.float32).train()
        self.average: Any = load(init, dtype=torch.float32).eval()
        self.optimizer = torch.optim.AdamW(_groups(self.model), lr=rate, betas=(0.9, 0.98))
        self.rng = random.Random(seed)
        torch.manual_seed(seed)
        self.step = 0
        self.cpu_s = 0.0
        if (out / "state.pt").exists():
            self._restore()

    def save(self) -> None:
        """Write state.pt by an atomic rename, so that a crash cannot leave half of it."""
        kept = {
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "random": self.rng.getstate(),
            "torch": torch.get_rng_state(),
            "step": self.step,
            "cpu_s": self.cpu_s,
        }
        torch.save(kept, self.out / "state.part")
        (self.out / "state.part").replace(self.out / "state.pt")

    def _restore(self) -> None:
        # weights_only: the file holds tensors, numbers and tuples; nothing in it is executed.
        kept = torch.load(self.out / "state.pt", weights_only=True)
        self.model.load_state_dict(kept["model"])
        self.average.load_state_dict(kept["average"])
        self.optimizer.load_state_dict(kept["optimizer"])
        version, words, gauss = kept["random"]
        self.rng.setstate((version, tuple(words), gauss))
        torch.set_rng_state(kept["torch"])
        self.step, self.cpu_s = kept["step"], kept["cpu_s"]

    def advance(self, batch_size: int, budget_s: float) -> float:
        """One step; the loss."""
        began = time.process_time()
        done = min(1.0, self.cpu_s / budget_s)
        pace = min(1.0, (self.step + 1) / _WARM_UP_STEPS)
        pace *= max(_LOWEST_RATE, 0.5 * (1 + math.cos(math.pi * done)))
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate * pace * group["factor"]
        side = self.rng.choice(LATE_SIDES if done > SWITCH else EARLY_SIDES)
        batch = make_batch(
            self.rng, self.tokenizer, batch_size, side, self.model.config.max_text_len
        )
        output = self.model(
            pixel_values=batch.pixels,
            input_ids=batch.input_ids,
            attention_mask=batch.attention_mask,
        )
        loss = total_loss(self.model, output, batch.truth, anchor_centres(side))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP)
        if torch.isfinite(norm):
            self.optimizer.step()
            self._follow()
        self.step += 1
        self.cpu_s += time.process_time() - began
        return float(loss.detach())

    @torch.no_grad()
    def _follow(self) -> None:
        decay = min(0.998, (1 + self.step) / (20 + self.step))
        pairs = zip(self.average.parameters(), self.model.parameters(), strict=True)
        for average, parameter in pairs:
            average.lerp_(parameter, 1 - decay)


def _groups(model: torch.nn.Module) -> list[dict[str, Any]]:
    """Weight decay for matrices; lower rates where a first run showed that higher ones harm."""
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        factor = 0.1 if "word_embeddings" in name else 0.3 if "sampling_offsets" in name else 1.0
        plain = parameter.ndim < 2 or factor < 1
        plain = plain or any(part in name for part in ("bias_table", "level_embed", "embeddings"))
        groups.setdefault((0.0 if plain else 0.02, factor), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": decay, "factor": factor}
        for (decay, factor), parameters in groups.items()
    ]


def run(training: Training, chosen: argparse.Namespace) -> None:
    """Train until the time is used up or the process gets a signal."""
    stopped: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.append(number))
    budget_s = chosen.cpu_minutes * 60
    next_report_s = training.cpu_s + chosen.report_minutes * 60
    losses: list[float] = []
    while training.cpu_s < budget_s and not stopped:
        losses.append(training.advance(chosen.batch_size, budget_s))
        if training.step % 50 == 0:
            mean = sum(losses) / len(losses)
            losses.clear()
            print(f"step {training.step} cpu {training.cpu_s:.0f} s loss {mean:.3f}", flush=True)
        if training.cpu_s >= next_report_s:
            next_report_s += chosen.report_minutes * 60
            _report(training, chosen.scenes)
    training.save()
    if not stopped:
        _report(training, chosen.scenes)


def _report(training: Training, scenes: int) -> None:
    training.save()
    save_weights(training.average, training.tokenizer, training.out / "weights")
    row = {"step": training.step, "cpu_s": round(training.cpu_s)}
    row |= score_folder(training.out / "weights", scenes)
    print(json.dumps(row), flush=True)
    with (training.out / "log.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")


def main() -> None:
    """Parse the command line and train."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--init", type=Path, default=Path("weights/drawn"))
    parser.add_argument("--cpu-minutes", type=float, default=60)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--rate", type=float, default=6e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--report-minutes", type=float, default=8)
    parser.add_argument("--scenes", type=int, default=120, help="held-out scenes per report")
    chosen = parser.parse_args()
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    torch.set_num_threads(chosen.threads)
    chosen.out.mkdir(parents=True, exist_ok=True)
    run(Training(chosen.init, chosen.out, chosen.rate, chosen.seed), chosen)


if __name__ == "__main__":
    main()
