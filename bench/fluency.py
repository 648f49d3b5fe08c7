"""How fast is fluency, and how much memory does it take, against other ways to transcribe?

`make bench-fluency`. The same recordings go through each engine, each in a process of its own
that waits while the others work: all engines do a pass, in an order that turns, then the next
pass, so that a busy moment of the machine hurts them alike and ratios within a pass mean
something. The first pass is not timed. Prints a table and appends a JSON line per engine to
bench/results/fluency.jsonl: `real_time_factor` is wall clock over sound and `cpu_factor` CPU time
over sound (medians of the passes, lower is faster), `of_pipeline` the median over the passes of
the CPU time over that of transformers' pipeline, `peak_mb` the process's largest resident set.

    acoustic          the package without the transcript (its model is loaded, and counts as memory)
    full              the package: everything, with whisper-base
    pipeline          transformers' ASR pipeline with its defaults (5 beams), words without times
    pipeline greedy   the same with one beam, as the package decodes
    faster            faster-whisper, the same weights as int8, its defaults (5 beams)
    faster greedy     the same with one beam and word times: the package's work, but for the signal
    gpu               the package on CUDA, random weights of large-v3-turbo's size, one by one
    gpu together      the same, eight recordings at once
"""

# ruff: noqa: PLC0415 - each engine's process loads its own libraries only

from __future__ import annotations

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
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "fluency"
GOLDEN = ROOT / "tests" / "golden" / "fluency"
RESULTS = ROOT / "bench" / "results" / "fluency.jsonl"
BENCH_PYTHON = ROOT / ".venv-bench" / "bin" / "python"
CLIPS = [
    *sorted(GOLDEN.glob("austen-*.wav")),
    GOLDEN / "phone_call.flac",
    GOLDEN / "two_cities.flac",
]
ON_CPU = ("acoustic", "full", "pipeline", "pipeline greedy", "faster", "faster greedy")
ON_GPU = ("gpu", "gpu together")
AT_ONCE = 8

Pass = Callable[[], list[str]]


def package(engine: str) -> Pass:
    """The package's own steps, as run() takes them."""
    from pipeline import Options, Pipeline

    if engine in ON_GPU:
        let_random_weights_talk()
    ours = Pipeline()
    options = Options(language="en", transcribe=engine != "acoustic")

    def transcript(path: Path) -> str:
        return ours.run(path, options).transcript or ""

    if engine != "gpu together":
        return lambda: [transcript(clip) for clip in CLIPS]
    threads = ThreadPoolExecutor(AT_ONCE)
    return lambda: list(threads.map(transcript, CLIPS))


def let_random_weights_talk() -> None:
    """As many tokens as speech has, once: random text would be tried again at every temperature."""
    import decoding
    import recogniser

    decoding.TEMPERATURES = ()  # type: ignore[misc]
    decoding._LOOP_REPEATS.clear()
    recogniser._TOKENS_PER_S = 5  # type: ignore[misc]


def pipeline(beams: int | None) -> Pass:
    """transformers' pipeline on decoded samples; the decoding of the file is timed, as for all."""
    import audio
    from transformers import pipeline as make

    asr = make("automatic-speech-recognition", str(PACKAGE / "weights" / "demo"), chunk_length_s=30)
    options: dict[str, Any] = {"language": "en", "task": "transcribe"}
    if beams:
        options["num_beams"] = beams

    def transcribe(path: Path) -> str:
        sound = {"raw": audio.read(path).samples, "sampling_rate": 16_000}
        return str(asr(sound, generate_kwargs=options)["text"])

    return lambda: [transcribe(clip) for clip in CLIPS]


def faster(weights: str, threads: int, **options: Any) -> Pass:
    """faster-whisper; it decodes the file itself."""
    from faster_whisper import WhisperModel

    model = WhisperModel(weights, device="cpu", compute_type="int8", cpu_threads=threads)

    def transcribe(path: Path) -> str:
        segments, _ = model.transcribe(str(path), language="en", **options)
        return "".join(segment.text for segment in segments)

    return lambda: [transcribe(clip) for clip in CLIPS]


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


def child(engine: str, weights: str, threads: int) -> None:
    """Load one engine; then a pass over all clips for each line that comes in."""
    sys.path.insert(0, str(PACKAGE))
    if not engine.startswith("faster"):
        import torch

        torch.set_num_threads(threads)
    began = time.perf_counter()
    if engine == "faster":
        work = faster(weights, threads)
    elif engine == "faster greedy":
        work = faster(weights, threads, beam_size=1, word_timestamps=True)
    elif engine.startswith("pipeline"):
        work = pipeline(1 if engine.endswith("greedy") else None)
    else:
        work = package(engine)
    loaded_s = time.perf_counter() - began
    for _ in sys.stdin:
        begun, busy = time.perf_counter(), time.process_time()
        texts = work()
        result = {
            "load_s": loaded_s,
            "wall_s": time.perf_counter() - begun,
            "cpu_s": time.process_time() - busy,
            "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            "texts": texts,
        }
        print("result " + json.dumps(result), flush=True)  # libraries print other things


class Engine:
    """An engine's process, and the results of its passes."""

    def __init__(self, name: str, weights: str, threads: int) -> None:
        python = str(BENCH_PYTHON) if name.startswith("faster") else sys.executable
        where = {"DEVICE": "cuda"} if name in ON_GPU else {"CUDA_VISIBLE_DEVICES": ""}
        self.name = name
        self.passes: list[dict[str, Any]] = []
        self.process = subprocess.Popen(
            [python, __file__, "--engine", name, "--weights", weights, "--threads", str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ,
                **where,
                "WEIGHTS": weights or "demo",
                "HF_HUB_OFFLINE": "1",
                # As fluency/cog.yaml sets it; and a process that waits must not spin.
                "OMP_WAIT_POLICY": "PASSIVE",
            },
        )

    def do_a_pass(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        for line in self.process.stdout:
            if line.startswith("result "):
                self.passes.append(json.loads(line.removeprefix("result ")))
                return
        raise RuntimeError(f"{self.name} ended without an answer")

    def median(self, what: str) -> float:
        """Over the timed passes: all but the first."""
        return statistics.median(one[what] for one in self.passes[1:])


def row(engine: Engine, peer: Engine, common: dict[str, Any]) -> dict[str, Any]:
    """What is recorded of an engine."""
    sound_s = common["sound_s"]
    pairs = zip(engine.passes[1:], peer.passes[1:], strict=True)
    return {
        **common,
        "engine": engine.name,
        "load_s": round(engine.passes[0]["load_s"], 2),
        "real_time_factor": round(engine.median("wall_s") / sound_s, 4),
        "cpu_factor": round(engine.median("cpu_s") / sound_s, 4),
        "of_pipeline": round(statistics.median(a["cpu_s"] / b["cpu_s"] for a, b in pairs), 3),
        "peak_mb": round(engine.passes[-1]["peak_mb"]),
        "word_error_rate": word_error_rate(engine.passes[-1]["texts"]),
    }


def word_error_rate(texts: list[str]) -> float | None:
    """Over the clips whose words are known; None without a transcript."""
    from reading import align, words_of

    known = json.loads((GOLDEN / "transcripts.json").read_text())
    wrong = count = 0
    for clip, text in zip(CLIPS, texts, strict=True):
        if clip.name in known:
            expected = words_of(known[clip.name].replace("mister", "mr"))
            wrong += sum(a != b for a, b in align(expected, words_of(text)))
            count += len(expected)
    return round(wrong / count, 4) if any(texts) else None


def machine(uses_gpu: bool) -> str:
    """The processor's or the GPU's name."""
    if uses_gpu:
        import torch

        return str(torch.cuda.get_device_name())
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return f"{line.split(':')[1].strip()}, {os.cpu_count()} cores"
    return platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--passes", type=int, default=5)
    parser.add_argument("--only", nargs="*", help="some of the engines; `pipeline` is needed")
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.engine:
        child(given.engine, given.weights, given.threads)
        return
    sys.path.insert(0, str(PACKAGE))
    import torch

    names = [*ON_CPU, *(ON_GPU if torch.cuda.is_available() else ())]
    names = [name for name in names if not given.only or name in given.only]
    common = facts(given.threads, given.passes)
    with tempfile.TemporaryDirectory() as folder:
        weights = weights_of(names, Path(folder))
        engines = [Engine(name, weights[name], given.threads) for name in names]
        for turn in range(given.passes + 1):
            first = turn % len(engines)
            for engine in engines[first:] + engines[:first]:
                engine.do_a_pass()
        for engine in engines:
            engine.process.communicate()
    report(engines, common)


def facts(threads: int, passes: int) -> dict[str, Any]:
    """What every row says of the run."""
    import audio

    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, text=True)
    return {
        "commit": commit.strip(),
        "at": time.strftime("%Y-%m-%d"),
        "load": f"{os.getloadavg()[0]:.1f}",
        "threads": threads,
        "passes": passes,
        "sound_s": round(sum(audio.read(clip).duration_s for clip in CLIPS), 1),
    }


def weights_of(names: list[str], folder: Path) -> dict[str, str]:
    """Where each engine's weights are, made in `folder` where they are not the package's own."""
    import demo_weights

    demo_weights.prepare()
    weights = dict.fromkeys(names, "")
    if any(name.startswith("faster") for name in names):
        converted = str(demo_weights.fetch(folder))
        weights |= {name: converted for name in names if name.startswith("faster")}
    if any(name in ON_GPU for name in names):
        random = str(turbo_sized(folder / "turbo"))
        weights |= {name: random for name in names if name in ON_GPU}
    return weights


def report(engines: list[Engine], common: dict[str, Any]) -> None:
    """Print the table and keep the rows."""
    peer = next(engine for engine in engines if engine.name == "pipeline")
    print(
        f"{'':16} {'x real time':>11} {'cpu factor':>10} {'of pipeline':>11} {'MB':>6} {'WER':>7}"
    )
    with RESULTS.open("a") as file:
        for engine in engines:
            made = row(engine, peer, {**common, "machine": machine(engine.name in ON_GPU)})
            file.write(json.dumps(made) + "\n")
            wrong = made["word_error_rate"]
            print(
                f"{made['engine']:16} {1 / made['real_time_factor']:>11.1f} "
                f"{made['cpu_factor']:>10.4f} {made['of_pipeline']:>11.3f} {made['peak_mb']:>6} "
                f"{'' if wrong is None else format(wrong, '.4f'):>7}"
            )


if __name__ == "__main__":
    main()
