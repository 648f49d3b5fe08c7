"""tools/demo: drawn scenes are what they claim, training resumes, figures are sound."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pipeline
import pytest
import torch
from PIL import Image
from request import Request
from tools.demo import (
    backgrounds,
    captions,
    evaluate,
    figures,
    pairs,
    stages,
    store,
    train,
    words,
)
from tools.demo.brush import Setting
from tools.demo.loop import Loop, Stopper, write_whole
from tools.demo.scene import Scene
from tools.demo.things import THINGS
from torch import nn
from weights import choose

SCENES = 24


@pytest.fixture(scope="module")
def scenes() -> list[pairs.Pair]:
    """Held-out pairs."""
    return [pairs.make(pairs.HELD_OUT + index, plain=True) for index in range(SCENES)]


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


@pytest.mark.parametrize(
    "setting", sorted({s for thing in THINGS.values() for s in thing.settings})
)
def test_every_setting_has_room_for_several(setting: Setting) -> None:
    """Also the water, where few things swim: never two of a kind."""
    random = np.random.default_rng(0)
    for first in (name for name, thing in THINGS.items() if setting in thing.settings):
        for _ in range(12):
            names = [name for name, _ in pairs._several(random, first, setting, None)]
            assert 1 <= len(names) == len({*names}) <= pairs.MOST_THINGS


def test_sketch_and_picture_show_the_same(scenes: list[pairs.Pair]) -> None:
    """Lines lie on the picture's edges and not on another picture's: a perfect model's figures."""
    own = [figures.edge_recall(pair.picture, pair.sketch) for pair in scenes]
    others = [
        figures.edge_recall(pair.picture, scenes[(index + 1) % SCENES].sketch)
        for index, pair in enumerate(scenes)
    ]
    assert np.mean(own) > 0.93
    assert np.mean(others) < 0.5


def test_things_have_the_hue_of_their_word(scenes: list[pairs.Pair]) -> None:
    """What evaluation asks of a painted thing holds for every drawn one."""
    judged = evaluate.judged([pair.picture for pair in scenes], scenes)
    assert judged["things"] > SCENES / 2
    assert judged["one_hue_share"] > 0.95
    assert judged["word_hue_share"] > 0.97


def test_the_usual_colours_do_not_follow_the_word(scenes: list[pairs.Pair]) -> None:
    """A painter that ignores the caption fails the figure that asks for it."""
    ignored = []
    for index, pair in enumerate(scenes):
        scene = pairs.draw(pairs.HELD_OUT + index)
        colours = [captions.usual(name) for name, _ in scene.things]
        ignored.append(pairs.coloured(scene, colours))
        assert (ignored[-1].shape, pair.picture.shape) == ((256, 256, 3), (256, 256, 3))
    assert evaluate.judged(ignored, scenes)["word_hue_share"] < 0.5


@pytest.mark.parametrize("name", list(THINGS))
def test_every_thing_is_drawn_within_the_page(name: str) -> None:
    """Each has lines, and what a caption dyes; its size is what the registry says."""
    random = np.random.default_rng(3)
    setting = THINGS[name].settings[0]
    (_, place), *_ = pairs._alone(random, name, setting, None)
    scene = Scene(random)
    backgrounds.paint(scene, setting, 0.6, is_drawn=False)
    pairs._draw(scene, name, setting, place, 0.6)
    lines = scene.finished_sketch()
    _, dye, slot = scene.finished()
    assert (lines > 100).sum() > 150
    border = np.concatenate([lines[0], lines[-1], lines[:, 0], lines[:, -1]])
    assert (border > 100).mean() < 0.02
    assert THINGS[name].fixed == (not (slot == 1).any())
    assert THINGS[name].fixed or dye[slot == 1].mean() > 40


def test_captions_name_the_colours_they_mean() -> None:
    """What a caption does not name has its usual colour; a named one has the word's."""
    random = np.random.default_rng(0)
    things = [("mug", ""), ("chair", "wooden"), ("sun", "")]
    said = [captions.say(random, things) for _ in range(300)]
    for caption, colours, words_of in said:
        for (name, _), colour, word in zip(things, colours, words_of, strict=True):
            if not word:
                assert colour == captions.usual(name)
            elif not set(captions.LIGHTNESS) & set(caption.split()):
                assert colour == captions.COLOURS[word]
        if caption:
            assert "wooden" in caption or "wood" not in caption
        assert words_of[2] == ""  # the sun is not dyed
    blank = [one for one in said if not one.caption]
    assert 0.05 < len(blank) / len(said) < 0.25
    plain = captions.say(random, things[:2], plain=True)
    assert all(word in captions.HUED and word in plain.caption for word in plain.words)


def test_every_word_is_one_token(tmp_path: Path) -> None:
    """Colours and names are whole to the text encoder; any other word is pieces, not unknown.

    The numbers are the same each time: a resumed run must find its words.
    """
    tokenizer = words.make(tmp_path / "one")
    words.make(tmp_path / "two")
    for name in ("vocab.json", "merges.txt"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    for text in captions.vocabulary():
        for word in text.split():
            assert len(tokenizer(word).input_ids) == 3, word
    found = words.encoded(tokenizer, ["an armchair in Tromsø"])[0]
    assert len(found) == words.LONGEST
    assert found.count(tokenizer.eos_token_id) == len(found) - found.index(tokenizer.eos_token_id)


def test_scenes_on_disk_are_the_scenes_of_their_seeds(tmp_path: Path) -> None:
    """A batch has the picture of one of a scene's captions; processes draw the same."""
    words.make(tmp_path / "tokenizer")
    made = {"scenes": 3, "workers": 0, "seed": 0, "tokenizer": tmp_path / "tokenizer", "chunk": 4}
    pool = store.Pool(tmp_path / "scenes", "cpu", **made)
    assert pool.count == 4
    batch = pool.batch(6)
    assert batch.pictures.shape == (6, 256, 256, 3)
    assert batch.tokens.shape == (6, words.LONGEST)
    assert batch.dyed.any((1, 2)).any()
    sketches = [pairs.draw(seed).sketch for seed in range(4)]
    for picture, lines in zip(batch.pictures.numpy(), batch.lines.numpy(), strict=True):
        number = next(n for n, sketch in enumerate(sketches) if (sketch == lines).all())
        scene = pairs.draw(number)
        random = np.random.default_rng((number, 2))
        captioned = [
            pairs.coloured(scene, captions.say(random, scene.things).colours)
            for _ in range(store.CAPTIONS)
        ]
        assert min(np.abs(picture - one).max() for one in captioned) <= 1


def test_processes_draw_what_one_would(tmp_path: Path) -> None:
    """The pool grows as its processes draw, and ends with all scenes."""
    words.make(tmp_path / "tokenizer")
    made = {"scenes": 4, "seed": 0, "tokenizer": tmp_path / "tokenizer", "chunk": 2}
    here = store.Pool(tmp_path / "here", "cpu", workers=0, **made)
    pool = store.Pool(tmp_path / "there", "cpu", workers=1, **made)
    pool.grow(at_least=4)
    pool.close()
    assert pool.count == 4
    for name, tensor in pool._held.items():
        assert torch.equal(tensor, here._held[name]), name


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


def test_shrunk_pictures_stay_aligned(tmp_path: Path) -> None:
    """Of half the side, with the lines and what is dyed where they were."""
    words.make(tmp_path / "tokenizer")
    pool = store.Pool(tmp_path / "scenes", "cpu", scenes=1, workers=0, seed=0,
                      tokenizer=tmp_path / "tokenizer")  # fmt: skip
    whole = pool.batch(3)
    small = stages.shrunk(whole)
    assert small.pictures.shape == (3, 128, 128, 3)
    assert small.lines.shape == small.dyed.shape == (3, 128, 128)
    assert torch.allclose(small.pictures[:, 9, 7], whole.pictures[:, 18:20, 14:16].mean((1, 2)))
    assert torch.allclose(small.lines[:, 9, 7], whole.lines[:, 18:20, 14:16].float().mean((1, 2)))
    assert torch.equal(small.dyed[:, 9, 7], whole.dyed[:, 18, 14])


def test_scenes_of_one_thing_can_be_had(tmp_path: Path) -> None:
    """Training begins with them."""
    words.make(tmp_path / "tokenizer")
    pool = store.Pool(tmp_path / "scenes", "cpu", scenes=8, workers=0, seed=0, chunk=4,
                      tokenizer=tmp_path / "tokenizer")  # fmt: skip
    alone = {n for n in range(8) if len(pairs.draw(n).things) == 1}
    assert 0 < len(alone) < 8
    sketches = [pool._held["sketch"][number] for number in alone]
    for lines in pool.batch(6, alone=True).lines:
        assert any(torch.equal(lines, sketch) for sketch in sketches)


def test_the_loss_asks_for_colours_before_texture() -> None:
    """The same error counts more where it is even, and more on what a caption dyes."""
    even = torch.full((1, 1, 8, 8), 0.1)
    mottled = even * (1 - 2 * (torch.arange(64).view(1, 1, 8, 8) % 2))
    alike = torch.ones_like(even)
    assert stages.pyramid_loss(even, alike) > 2 * stages.pyramid_loss(mottled, alike)
    assert stages.pyramid_loss(even, 4 * alike) > 3 * stages.pyramid_loss(even, alike)


def test_a_whole_run_makes_weights_that_production_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seconds of each stage: data, VAE, diffusion, export, figures; then the painter paints.

    The batches are small, so that a step takes little time.
    """
    monkeypatch.setattr(stages, "VAE_BATCH", {"cpu": 16})
    monkeypatch.setattr(stages, "BATCH", {"cpu": 2})
    monkeypatch.setattr("sys.argv", ["train", str(tmp_path), "--tiny"])
    train.main()
    preset = choose(str(tmp_path / "weights"), 0.0, has_bfloat16=False)
    assert preset.name == "demo"
    painter = pipeline.load(preset, "cpu", torch.float32, 0.0)
    control = Image.fromarray(pairs.make(1).sketch).convert("RGB")
    request = Request(control, "a red mug", None, 1.0, 2, 1.0, (1,))
    picture = painter.paint([request], lambda _step: None)[0]
    assert picture.size == (256, 256)
    found = json.loads((tmp_path / "figures.json").read_text())
    assert found["sketches"] == 2
    assert (tmp_path / "grid.png").exists()
    weights = (tmp_path / "weights").rglob("*.safetensors")
    assert sum(file.stat().st_size for file in weights) < 42e6
    shipped = Path(train.__file__).parents[2] / "weights" / "demo"
    assert files_in(tmp_path / "weights") == files_in(shipped) - {"README.md", "grid.webp"}


def files_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}
