"""Makes the demo weights: draws scenes, trains the VAE, then UNet and ControlNet, evaluates.

    cd sketch2real
    python -m tools.demo.train FOLDER --minutes 8            # with a GPU: minutes by the clock
    OMP_NUM_THREADS=1 python -m tools.demo.train FOLDER --minutes 120   # without: CPU time
    python -m tools.demo.train FOLDER --tiny                 # a rehearsal of a minute or two

FOLDER holds the scenes, the checkpoints, `log.jsonl` and at the end `weights/`, `figures.json` and
`grid.png`. Stop it at any moment (SIGTERM, Ctrl-C): the same command resumes. The scenes and the
random numbers follow from `--seed`; how many steps fit into the minutes depends on the machine.
"""

import argparse
import json
import logging
import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderTiny,
    ControlNetModel,
    StableDiffusionControlNetPipeline,
    UNet2DConditionModel,
)
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from tools.demo import evaluate, nets, stages, words
from tools.demo.loop import Loop, Stopper, log
from tools.demo.store import CHUNK, Pool

VAE_SHARE, DIFFUSION_SHARE = 0.22, 0.62
"""Of the minutes; the rest is for the first scenes, the export and the evaluation."""

SETTINGS = {
    "name": "demo",
    "steps": 8,
    "guidance_scale": 1.0,
    "control_scale": 1.0,
    "guess_mode": False,
    "paint_area_px": 256 * 256,
    "picture_area_px": 512 * 512,
    "max_area_px": 256 * 256,
    "multiple_px": 32,
    "pen": 0.015,
    "hard_lines": False,
    "instruction": "",
    "safety_checker": "",
}
"""`sketch2real.json`: what the package must know of the weights."""

_CLASSES = {
    "unet": UNet2DConditionModel, "controlnet": ControlNetModel, "text_encoder": CLIPTextModel,
}  # fmt: skip


def main() -> None:
    options = parsed()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    begun = time.monotonic()
    prepare(options)
    stopper = Stopper()
    tokenizer = words.make(options.folder / "tokenizer")
    pool = Pool(
        options.folder / "scenes", options.device, scenes=options.scenes, workers=options.workers,
        seed=options.seed, tokenizer=options.folder / "tokenizer",
        chunk=8 if options.tiny else CHUNK,
    )  # fmt: skip
    try:
        pool.grow(at_least=1024)
        log.info("%d scenes after %.0f s", pool.count, time.monotonic() - begun)
        finished = train(options, pool, tokenizer, stopper)
    finally:
        pool.close()
    log.info("trained for %.0f s, %d scenes drawn", time.monotonic() - begun, pool.count)
    if finished:
        figures = evaluate.evaluate(
            options.folder / "weights", options.device, count=options.count,
            grid_file=options.folder / "grid.png",
        )  # fmt: skip
        (options.folder / "figures.json").write_text(json.dumps(figures) + "\n")
        print(json.dumps(figures), flush=True)
        log.info("done after %.0f s", time.monotonic() - begun)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, default=8, help="in all, see above")
    parser.add_argument("--scenes", type=int, default=40_000, help="drawn in all")
    parser.add_argument("--workers", type=int, help="processes that draw; by the number of cores")
    parser.add_argument("--count", type=int, default=256, help="sketches of the evaluation")
    parser.add_argument("--rate", type=float, default=8e-4, help="learning rate of the diffusion")
    parser.add_argument("--compile", action="store_true", help="torch.compile the networks")
    parser.add_argument("--tiny", action="store_true", help="seconds of each stage, on a CPU")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--init", type=Path, help="weights that the diffusion begins from")
    return parser.parse_args()


def prepare(options: argparse.Namespace) -> None:
    """What depends on the device and on `--tiny`."""
    if options.tiny:
        options.device = "cpu"
        options.minutes, options.scenes, options.count = 0.1, 16, 2
    if options.workers is None:
        cores = len(os.sched_getaffinity(0))
        options.workers = max(1, cores - 2) if options.device == "cuda" else 0
    if options.device == "cpu":
        torch.set_num_threads(1)
    else:
        torch.backends.cudnn.benchmark = True
        torch.backends.cuda.matmul.allow_tf32 = True
        torch.backends.cudnn.allow_tf32 = True
    torch.manual_seed(options.seed)
    options.folder.mkdir(parents=True, exist_ok=True)


def train(
    options: argparse.Namespace, pool: Pool, tokenizer: CLIPTokenizer, stopper: Stopper
) -> bool:
    """Both stages and the export; False if they were stopped earlier."""
    vae = trained_vae(options, pool, stopper)
    if vae is None:
        return False
    loop = Loop(
        "diffusion",
        options.folder,
        begun_from(options.init, stages.diffusion_modules(tokenizer, options.device)),
        rate=options.rate,
        minutes=options.minutes * DIFFUSION_SHARE,
        device=options.device,
    )
    if options.compile:
        compile_whole(vae.encoder, loop.modules["unet"], loop.modules["controlnet"])
    finished = loop.run(stages.diffusion_loss(loop, pool, vae), stopper)
    export(options.folder / "weights", vae, loop.averages, options.folder / "tokenizer")
    log.info("%s at step %d", "finished" if finished else "stopped", loop.step)
    return finished


def compile_whole(*modules: nn.Module) -> None:
    """By torch.compile, in place."""
    for module in modules:
        module.compile(dynamic=False)


def begun_from(folder: Path | None, modules: dict[str, nn.Module]) -> dict[str, nn.Module]:
    """`modules` with the weights of `folder`, a pipeline's, where it has some of the same shape."""
    for name, module in modules.items():
        if folder:
            known = _CLASSES[name].from_pretrained(folder / name, dtype=torch.float32).state_dict()
            fitting = {
                key: known[key] if key in known and known[key].shape == fresh.shape else fresh
                for key, fresh in module.state_dict().items()
            }
            module.load_state_dict(fitting)
    return modules


def trained_vae(
    options: argparse.Namespace, pool: Pool, stopper: Stopper
) -> AutoencoderTiny | None:
    """The finished VAE; None if training was stopped earlier."""
    folder = options.folder / "vae"
    if not folder.exists():
        fresh = nets.vae().to(options.device, memory_format=torch.channels_last)
        loop = Loop(
            "vae", options.folder, {"vae": fresh}, rate=1e-3,
            minutes=options.minutes * VAE_SHARE, device=options.device,
        )  # fmt: skip
        if options.compile:
            compile_whole(fresh.encoder, fresh.decoder)
        if not loop.run(stages.vae_loss(loop, pool), stopper):
            return None
        average: Any = loop.averages["vae"]
        average.to("cpu", memory_format=torch.contiguous_format).save_pretrained(folder)
    vae = AutoencoderTiny.from_pretrained(folder).eval().requires_grad_(False)
    return vae.to(options.device, memory_format=torch.channels_last)


def export(
    folder: Path, vae: AutoencoderTiny, parts: dict[str, nn.Module], tokenizer_folder: Path
) -> None:
    """A pipeline folder in float16, with its settings."""
    vae.register_to_config(_name_or_path="")  # else the file would hold a path of this machine
    for module in (vae, *parts.values()):
        module.to("cpu", memory_format=torch.contiguous_format)
    pipe = StableDiffusionControlNetPipeline(
        vae=vae,
        tokenizer=words.load(tokenizer_folder),
        scheduler=nets.scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
        **parts,
    )
    shutil.rmtree(folder, ignore_errors=True)
    pipe.to(torch.float16).save_pretrained(folder)
    for name in ("vocab.json", "merges.txt"):  # besides tokenizer.json, for other versions
        shutil.copy(tokenizer_folder / name, folder / "tokenizer")
    (folder / "sketch2real.json").write_text(json.dumps(SETTINGS, indent=2) + "\n")
    config = folder / "vae" / "config.json"  # AutoencoderTiny writes a key that it then warns of
    known = json.loads(config.read_text())
    config.write_text(
        json.dumps({k: v for k, v in known.items() if k != "block_out_channels"}, indent=2) + "\n"
    )


if __name__ == "__main__":
    main()
