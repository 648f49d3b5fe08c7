"""preview.py: what emerges looks like what will be, for each preset's real classes."""

from pathlib import Path

import diffusers
import numpy as np
import pipeline
import preview
import pytest
import torch
from PIL import Image
from request import Painter, Request, Step
from weights import choose


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True),
        diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
        diffusers.FlowMatchEulerDiscreteScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_a_perfect_models_picture_is_seen_at_once(scheduler: object) -> None:
    """If the model's noise is the true one, the estimate is the picture itself, at every step."""
    steps: object = scheduler
    steps.set_timesteps(6)  # type: ignore[attr-defined]
    random = torch.Generator().manual_seed(0)
    picture, noise = (torch.randn(1, 4, 8, 8, generator=random) for _ in range(2))
    a, s = preview.level(steps, 0)
    latents = a * picture + s * noise
    is_flow = isinstance(steps, diffusers.FlowMatchEulerDiscreteScheduler)
    for index, time in enumerate(steps.timesteps):  # type: ignore[attr-defined]
        before = latents
        if isinstance(steps, diffusers.EulerDiscreteScheduler):
            steps.scale_model_input(before, time)
        output = noise - picture if is_flow else noise
        latents = steps.step(output, time, before).prev_sample  # type: ignore[attr-defined]
        levels = preview.level(steps, index), preview.level(steps, index + 1)
        found = preview.clean_estimate(before, levels[0], latents, levels[1])
        assert found is not None
        assert torch.allclose(found, picture, atol=2e-3)


def test_a_step_that_changed_nothing_shows_nothing() -> None:
    """PNDM repeats a step: two equal latents do not tell picture from noise."""
    latents = torch.ones(1, 4, 2, 2)
    assert preview.clean_estimate(latents, (0.6, 0.8), latents, (0.6, 0.8)) is None


@pytest.mark.parametrize("name", ["sd15", "sdxl", "klein"])
def test_small_pictures_in_the_pictures_shape(name: str, folders: dict[str, Path]) -> None:
    """Every preset's class shows RGB pictures of at most 128 px, unstretched."""
    preset = choose(str(folders[name]), 0.0, has_bfloat16=False)
    painter = pipeline.load(preset, "cpu", torch.float32, 0.0)
    shown = previews(painter, Image.new("RGB", (128, 192), "white"), steps=3)
    assert shown
    for small in shown:
        assert small.mode == "RGB"
        assert max(small.size) <= preview.SIDE_PX
        assert small.width / small.height == pytest.approx(128 / 192, rel=0.1)


@pytest.mark.parametrize(
    "scheduler",
    [
        diffusers.DDIMScheduler(clip_sample=False, set_alpha_to_one=True),
        diffusers.EulerDiscreteScheduler(timestep_spacing="trailing"),
        diffusers.FlowMatchEulerDiscreteScheduler(),
    ],
    ids=lambda scheduler: type(scheduler).__name__,
)
def test_the_noise_goes_with_the_steps(scheduler: object) -> None:
    """Most of it at first, less after each step, none at the end; for every kind of scheduler."""
    scheduler.set_timesteps(6)  # type: ignore[attr-defined]
    shown = [preview.noise_of(preview.level(scheduler, done)) for done in range(7)]
    assert shown == sorted(set(shown), reverse=True)
    assert 0.9 * preview.MOST_NOISE < shown[0] <= preview.MOST_NOISE
    assert shown[-1] == 0.0


def test_the_picture_emerges_from_noise(package: Path) -> None:
    """With the demo weights: each preview is nearer to the picture than the one before, and the
    last is nearer to it than to another's."""
    preset = choose("demo", 0.0, has_bfloat16=False)
    painter = pipeline.load(preset, "cpu", torch.float32, 0.0)
    lines = np.zeros((128, 128, 3), np.uint8)
    lines[80:82] = lines[30:80, [40, 90]] = lines[[30, 79], 40:91] = 255
    control = Image.fromarray(lines)
    shown = previews(painter, control, steps=preset.steps)
    painted = painter.paint([make_request(control, preset.steps)], lambda _step: None)[0]
    picture = np.asarray(painted, float)
    small = [np.asarray(one.resize(painted.size), float) for one in shown]
    away = [np.abs(one - picture).mean() for one in small]
    assert away == sorted(away, reverse=True)
    assert away[-1] < 0.5 * away[0]
    assert away[-1] < 0.5 * np.abs(small[-1][::-1] - picture).mean()


def make_request(control: Image.Image, steps: int) -> Request:
    return Request(control, "", None, 1.0, steps, 1.0, (5,))


def previews(painter: Painter, control: Image.Image, steps: int) -> list[Image.Image]:
    """All previews on the way, as the batcher asks for them."""
    request, shown = make_request(control, steps), []
    earlier: list[torch.Tensor] = []

    def on_step(step: Step) -> None:
        if earlier and step.done < step.steps:
            shown.append(painter.preview(request, earlier[-1], step.latents, step.done))
        earlier.append(step.latents.clone())

    painter.paint([request], on_step)
    return [small for small in shown if small is not None]
