"""Makes the demo weights: draws scenes, trains the VAE, then UNet and ControlNet together.

    cd sketch2real
    OMP_NUM_THREADS=1 python -m tools.demo.train FOLDER --cpu-minutes 75 [--init weights/demo]

FOLDER holds the data, the checkpoints and at the end `weights/`. Stop it at any moment (SIGTERM,
Ctrl-C): the same command resumes. With more minutes it continues a finished run. The scenes and the
random numbers follow from `--seed`; how many steps fit into the minutes depends on the CPU.
"""

import argparse
import logging
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.demo import nets, pairs, stages
from tools.demo.loop import Loop, Stopper, log, write_whole

SHIPPED = Path(__file__).parents[2] / "weights" / "demo"
_CLASSES = {
    "vae": AutoencoderKL, "unet": UNet2DConditionModel,
    "controlnet": ControlNetModel, "text_encoder": CLIPTextModel,
}  # fmt: skip


def main() -> None:
    options = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)
    stopper = Stopper()
    sketches, pictures, prompts = data(options.folder, options.pairs, options.seed)
    vae = trained_vae(options, pictures, stopper)
    if vae is None:
        return
    latents = encoded(options.folder, vae, pictures)
    tokenizer = CLIPTokenizer.from_pretrained(SHIPPED / "tokenizer")
    loop = Loop(
        "diffusion",
        options.folder,
        begun_from(options.init, stages.diffusion_modules(tokenizer)),
        rate=options.rate,
        minutes=options.cpu_minutes - options.vae_minutes,
    )
    finished = loop.run(stages.diffusion_loss(loop, latents, sketches, prompts, tokenizer), stopper)
    export(options.folder / "weights", vae, loop.averages, tokenizer)
    log.info("%s at step %d", "finished" if finished else "stopped", loop.step)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--cpu-minutes", type=float, default=180, help="CPU time in all")
    parser.add_argument("--vae-minutes", type=float, default=15, help="of these for the VAE")
    parser.add_argument("--pairs", type=int, default=12_000)
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate of the diffusion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="weights of the same shapes to begin from")
    return parser.parse_args()


def data(folder: Path, count: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """(N, 128, 128) sketches and (N, 128, 128, 3) pictures, uint8, and prompts; drawn once."""
    file = folder / f"pairs-{seed}-{count}.npz"
    if not file.exists():
        drawn = [pairs.make(seed * count + index)[:3] for index in range(count)]
        sketches, pictures, prompts = zip(*drawn, strict=True)
        partial = file.with_suffix(".partial.npz")
        np.savez(partial, sketches=np.stack(sketches), pictures=np.stack(pictures), prompts=prompts)
        partial.replace(file)
        log.info("drew %d pairs", count)
    held = np.load(file)
    sketches, pictures = (torch.from_numpy(held[name]) for name in ("sketches", "pictures"))
    return sketches, pictures, held["prompts"].tolist()


def begun_from(folder: Path | None, modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """`modules` with the weights that `folder`, a pipeline's, has for them."""
    for name, module in modules.items():
        if folder:
            known = _CLASSES[name].from_pretrained(folder / name, dtype=torch.float32)
            module.load_state_dict(known.state_dict())
    return modules


def trained_vae(
    options: argparse.Namespace, pictures: torch.Tensor, stopper: Stopper
) -> AutoencoderKL | None:
    """The finished VAE, whitened; None if training was stopped earlier."""
    folder = options.folder / "vae"
    if not folder.exists():
        fresh: dict[str, nn.Module] = {"vae": nets.vae().to(memory_format=torch.channels_last)}
        loop = Loop(
            "vae", options.folder, begun_from(options.init, fresh), rate=1.5e-3,
            minutes=options.vae_minutes,
        )  # fmt: skip
        if not loop.run(stages.vae_loss(loop, pictures), stopper):
            return None
        average: Any = loop.averages["vae"]
        stages.whiten(average, pictures[:1024])
        average.to(memory_format=torch.contiguous_format).save_pretrained(folder)
    vae = AutoencoderKL.from_pretrained(folder).eval()
    return vae.to(memory_format=torch.channels_last)


def encoded(folder: Path, vae: AutoencoderKL, pictures: torch.Tensor) -> torch.Tensor:
    """(N, 4, 32, 32) float16, computed once."""
    file = folder / "latents.pt"
    if not file.exists():
        write_whole(file, stages.encode(vae, pictures).half())
    latents: torch.Tensor = torch.load(file, weights_only=True)
    return latents


def export(
    folder: Path, vae: AutoencoderKL, parts: dict[str, nn.Module], tokenizer: CLIPTokenizer
) -> None:
    """A pipeline folder in float16, with the settings of the shipped weights."""
    vae.register_to_config(_name_or_path="")  # else the file would hold a path of this machine
    pipe = StableDiffusionControlNetPipeline(
        vae=vae,
        tokenizer=tokenizer,
        scheduler=nets.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    pipe.to(memory_format=torch.contiguous_format)
    pipe.to(torch.float16).save_pretrained(folder)
    shutil.copy(SHIPPED / "sketch2real.json", folder)


if __name__ == "__main__":
    main()
