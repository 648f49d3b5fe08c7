"""How fast is fluency, and how much memory does it take, against two other ways to transcribe?

    python bench/fluency.py
    python bench/fluency.py --faster-whisper-python PATH    an interpreter with faster-whisper

The same recordings go through each engine in a process of its own, on the same
number of threads; the first pass over them is not timed. One JSON line each:
`real_time_factor` is computing time over sound (lower is faster), the median of
the passes; `peak_mb` the process's largest resident set.

    full        the package: everything, with whisper-base
    acoustic    the package without the transcript
    pipeline    transformers' ASR pipeline, the same weights, words without times
    faster      faster-whisper, the same weights as int8
    full-gpu    the package on CUDA, random weights of large-v3-turbo's size
"""

# ruff: noqa: PLC0415 - each engine's process loads its own libraries only

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "fluency"
GOLDEN = ROOT / "tests" / "golden" / "fluency"
CLIPS = [
    *sorted(GOLDEN.glob("austen-*.wav")),
    GOLDEN / "phone_call.flac",
    GOLDEN / "two_cities.flac",
]


def package(transcribe: bool) -> Callable[[Path], Any]:
    """The package's own run(), as coglet would call it."""
    sys.path.insert(0, str(PACKAGE))
    from run import Runner

    runner = Runner()
    runner.setup()
    return lambda path: runner.run(path, "en", 0.25, transcribe, None, False, False)


def pipeline() -> Callable[[Path], Any]:
    """transformers' pipeline on decoded samples: decoding the file is not timed."""
    sys.path.insert(0, str(PACKAGE))
    import audio
    from transformers import pipeline as make

    asr = make("automatic-speech-recognition", str(PACKAGE / "weights" / "demo"), chunk_length_s=30)
    options = {"language": "en", "task": "transcribe"}
    return lambda path: asr(
        {"raw": audio.read(path).samples, "sampling_rate": 16_000}, generate_kwargs=options
    )


def faster(weights: str, threads: int) -> Callable[[Path], Any]:
    """faster-whisper with its defaults."""
    from faster_whisper import WhisperModel

    model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=threads)
    return lambda path: [s.text for s in model.transcribe(str(path), language="en")[0]]


def turbo_sized(folder: Path) -> Path:
    """Random weights of large-v3-turbo's size, with whisper-base's tokenizer."""
    import shutil

    from transformers import WhisperConfig, WhisperFeatureExtractor, WhisperForConditionalGeneration

    base = PACKAGE / "weights" / "demo"
    config = WhisperConfig.from_pretrained(base)
    sizes = {"d_model": 1280, "encoder_layers": 32, "decoder_layers": 4, "num_mel_bins": 128}
    heads = {"encoder_attention_heads": 20, "decoder_attention_heads": 20}
    config.update({**sizes, **heads, "encoder_ffn_dim": 5120, "decoder_ffn_dim": 5120})
    model = WhisperForConditionalGeneration(config).half()
    source = WhisperForConditionalGeneration.from_pretrained(base)
    model.generation_config = source.generation_config
    model.generation_config.alignment_heads = [[2, 4], [2, 11], [3, 3], [3, 6], [3, 11], [3, 14]]
    model.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=128).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base / name, folder / name)
    return folder


def duration_s(path: Path) -> float:
    import av

    with av.open(str(path)) as container:
        return float((container.duration or 0) / av.time_base)


def child(engine: str, weights: str, threads: int, passes: int) -> None:
    """Run one engine over all clips and print its row."""
    if engine != "faster":
        import torch

        torch.set_num_threads(threads)
    started = time.perf_counter()
    if engine == "faster":
        work = faster(weights, threads)
    elif engine == "pipeline":
        work = pipeline()
    else:
        os.environ["WEIGHTS"] = weights or "demo"
        work = package(engine != "acoustic")
    loaded_s = time.perf_counter() - started
    seconds = []
    for _ in range(passes + 1):
        begun, busy = time.perf_counter(), time.process_time()
        for clip in CLIPS:
            work(clip)
        seconds.append((time.perf_counter() - begun, time.process_time() - busy))
    sound = sum(duration_s(clip) for clip in CLIPS)
    row = {
        "engine": engine,
        "sound_s": round(sound, 1),
        "load_s": round(loaded_s, 2),
        "real_time_factor": round(statistics.median(wall for wall, _ in seconds[1:]) / sound, 4),
        "cpu_factor": round(statistics.median(busy for _, busy in seconds[1:]) / sound, 4),
        "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
        "threads": threads,
        "machine": machine(),
    }
    print(json.dumps(row), flush=True)


def machine() -> str:
    """The processor's or the GPU's name."""
    if "torch" in sys.modules:
        import torch

        if torch.cuda.is_available():
            return str(torch.cuda.get_device_name())
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--faster-whisper-python", help="an interpreter with faster-whisper")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        child(given.engine, given.weights, given.threads, given.passes)
        return
    sys.path.insert(0, str(PACKAGE))
    import demo_weights
    import torch

    demo_weights.prepare()
    with tempfile.TemporaryDirectory() as folder:
        runs = [("acoustic", sys.executable, ""), ("full", sys.executable, "demo")]
        runs.append(("pipeline", sys.executable, ""))
        if given.faster_whisper_python:
            weights = str(demo_weights.fetch(Path(folder)))
            runs.append(("faster", given.faster_whisper_python, weights))
        if torch.cuda.is_available():
            runs.append(("full-gpu", sys.executable, str(turbo_sized(Path(folder) / "turbo"))))
        for engine, python, weights in runs:
            hide = {} if engine == "full-gpu" else {"CUDA_VISIBLE_DEVICES": ""}
            options = ["--threads", str(given.threads), "--passes", str(given.passes)]
            subprocess.run(
                [python, __file__, "--engine", engine, "--weights", weights, *options],
                check=True,
                env={**os.environ, **hide, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"},
            )


if __name__ == "__main__":
    main()
