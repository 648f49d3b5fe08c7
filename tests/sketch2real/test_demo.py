"""tools/demo: drawn scenes are what they claim, training resumes, figures are sound."""

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pipeline
import pytest
import torch
from PIL import Image
from request import Request
from tools.demo import figures, nets, pairs, stages, train
from tools.demo.loop import Loop, Stopper, write_whole
from tools.demo.things import THINGS
from torch import nn
from weights import choose

SCENES = 24


@pytest.fixture(scope="module")
def scenes() -> list[pairs.Pair]:
    """Held-out pairs."""
    return [pairs.make(pairs.HELD_OUT + index) for index in range(SCENES)]


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """Training catches signals; afterwards they are as before."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_seed_is_one_scene() -> None:
    """The same pair every time, another for another seed."""
    one, again, other = pairs.make(5), pairs.make(5), pairs.make(6)
    assert (one.sketch == again.sketch).all()
    assert (one.picture == again.picture).all()
    assert one.prompt == again.prompt
    assert (one.picture != other.picture).any()


def test_sketch_and_picture_show_the_same(scenes: list[pairs.Pair]) -> None:
    """Lines lie on the picture's edges and not on another picture's: a perfect model's figures."""
    own = [figures.edge_recall(pair.picture, pair.sketch) for pair in scenes]
    others = [
        figures.edge_recall(pair.picture, scenes[(index + 1) % SCENES].sketch)
        for index, pair in enumerate(scenes)
    ]
    assert np.mean(own) > 0.95
    assert np.mean(others) < 0.4


def test_things_are_of_one_hue(scenes: list[pairs.Pair]) -> None:
    """What evaluation asks of a painted thing holds for nearly every drawn one."""
    shares = []
    for pair in scenes:
        assert len(pair.regions) == len(pair.dyed)
        for region, dyed in zip(pair.regions, pair.dyed, strict=True):
            core = figures.core(region)
            if dyed and core.sum() > 40:
                found = figures.dominant_hue(pair.picture, core)
                shares.append(found is not None and found[1] >= figures.ONE_HUE_SHARE)
    assert len(shares) > SCENES / 2
    assert np.mean(shares) > 0.9


def test_every_thing_appears_and_prompts_name_it() -> None:
    """Over some scenes all kinds come first; what is prompted is a colour and a kind we have."""
    prompts = [pairs.make(seed).prompt for seed in range(90)]
    named = [prompt.split()[-1] for prompt in prompts if prompt]
    assert set(named) <= set(THINGS)
    assert len(set(named)) > 0.5 * len(THINGS)
    assert 0.15 < len(named) / len(prompts) < 0.45


def test_hues_are_distinguished() -> None:
    """Red counts as one hue across the circle's seam; a mottled or grey region is of none."""
    whole = np.ones((20, 20), bool)
    red = np.zeros((20, 20, 3), np.uint8)
    red[..., 0] = 200
    red[::2, :, 2] = 20  # a few degrees to the other side of the seam
    hue, share = figures.dominant_hue(red, whole) or (0.0, 0.0)
    assert figures.hue_distance(hue, 0.0) < 15
    assert share == 1
    mottled = red.copy()
    mottled[:, ::2] = (20, 200, 20)
    assert (figures.dominant_hue(mottled, whole) or (0, 1))[1] < figures.ONE_HUE_SHARE
    assert figures.dominant_hue(np.full((20, 20, 3), 90, np.uint8), whole) is None


def loop(folder: Path, minutes: float = 1.0) -> tuple[Loop, nn.Linear]:
    model = nn.Linear(3, 1)
    return Loop("test", folder, {"model": model}, rate=0.01, minutes=minutes), model


def test_training_goes_on_where_it_was(tmp_path: Path) -> None:
    """Stopped by a signal, it leaves weights, optimiser, average, step, time and random numbers."""
    torch.manual_seed(3)
    first, model = loop(tmp_path)
    stopper = Stopper()

    def loss() -> torch.Tensor:
        if first.step == 20:
            signal.raise_signal(signal.SIGTERM)
        return (model(torch.randn(8, 3)) - 1).pow(2).mean()

    assert first.run(loss, stopper) is False
    next_random = torch.rand(3)
    torch.manual_seed(99)
    second, same = loop(tmp_path)
    assert second.step == first.step == 21
    assert torch.equal(same.weight, model.weight)
    assert torch.equal(second.averages["model"].weight, first.averages["model"].weight)
    states = [run._optimizer.state_dict()["state"][0]["exp_avg"] for run in (first, second)]
    assert torch.equal(*states)
    assert torch.equal(torch.rand(3), next_random)
    assert 0 < second.progress() < 1


def test_training_ends_with_its_time_and_can_be_given_more(tmp_path: Path) -> None:
    """The rate falls to a hundredth at the end; with more minutes the same folder goes on."""
    first, model = loop(tmp_path, minutes=0.002)
    assert first.run(lambda: (model(torch.ones(1, 3)) - 1).pow(2).mean(), Stopper()) is True
    assert first._optimizer.param_groups[0]["lr"] < 0.01
    assert first._rate_at(1.0) == pytest.approx(first._rate_at(0.0) / 100, rel=0.01)
    second, _ = loop(tmp_path, minutes=1.0)
    assert second.step == first.step
    assert second.progress() < 0.1


def test_a_crash_while_saving_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    """What cannot be written does not replace what is there."""
    file = tmp_path / "state.pt"
    write_whole(file, {"step": 1})
    with pytest.raises((AttributeError, TypeError, RuntimeError, OSError)):
        write_whole(file, {"step": lambda: 2})
    assert torch.load(file, weights_only=True) == {"step": 1}


def test_whitening_changes_latents_and_not_pictures(scenes: list[pairs.Pair]) -> None:
    """Each channel to mean 0 and deviation 1; what was encoded is decoded as before."""
    torch.manual_seed(0)
    vae = nets.vae().eval()
    pictures = torch.from_numpy(np.stack([pair.picture for pair in scenes]))
    with torch.no_grad():
        before = vae.decode(stages.encode(vae, pictures[:4])).sample
        stages.whiten(vae, pictures)
        latents = stages.encode(vae, pictures)
        after = vae.decode(latents[:4]).sample
    assert torch.allclose(latents.mean((0, 2, 3)), torch.zeros(4), atol=1e-3)
    assert torch.allclose(latents.std((0, 2, 3)), torch.ones(4), atol=1e-3)
    assert torch.allclose(before, after, atol=1e-4)


def test_a_whole_run_makes_weights_that_production_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of each stage: data, VAE, diffusion, export; then the painter paints with it.

    The batches are small, so that a step takes little time.
    """
    monkeypatch.setattr(stages, "VAE_BATCH", 3)
    monkeypatch.setattr(stages, "BATCH", 2)
    words = f"train {tmp_path} --cpu-minutes 0.06 --vae-minutes 0.02 --pairs 8"
    monkeypatch.setattr("sys.argv", words.split())
    train.main()
    preset = choose(str(tmp_path / "weights"), 0.0, has_bfloat16=False)
    assert preset.name == "demo"
    painter = pipeline.load(preset, "cpu", torch.float32, 0.0)
    control = Image.fromarray(pairs.make(1).sketch).convert("RGB")
    picture = painter.paint([Request(control, "", None, 1.0, 2, 1.0, (1,))], lambda _step: None)[0]
    assert picture.size == (128, 128)
    weights = (tmp_path / "weights").rglob("*.safetensors")
    assert sum(file.stat().st_size for file in weights) < 24e6
