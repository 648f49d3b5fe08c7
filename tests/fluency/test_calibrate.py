"""Fitting the score map: on a made corpus whose ratings are known to follow the speech."""

import json
from pathlib import Path

import calibrate
import made_audio
import numpy as np
import pytest
from score import ScoreMap


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sixty recordings: the rating falls with the pauses and rises with the speed, plus noise."""
    folder = tmp_path_factory.mktemp("corpus")
    random = np.random.default_rng(1)
    voices = {}
    for speed in (100, 150, 200):
        voice = made_audio.say("we walked along the river because it was warm", speed)
        loud = np.flatnonzero(np.abs(voice) > 0.01)
        voices[speed] = voice[loud[0] : loud[-1] + 1]
    lines = ["file,rating"]
    for index in range(60):
        speed = int(random.choice([100, 150, 200]))
        gap = float(random.uniform(0.0, 1.6))
        parts = [made_audio.silence(0.3)] + [voices[speed], made_audio.silence(gap)] * 3
        made_audio.write_wav(folder / f"{index}.wav", np.concatenate(parts))
        rating = 5 + (speed - 150) / 40 - 2.2 * (gap - 0.8) + random.normal(0, 0.5)
        lines.append(f"{index}.wav,{np.clip(rating, 0, 10):.2f}")
    (folder / "ratings.csv").write_text("\n".join(lines))
    return folder


def test_the_fitted_map_predicts_left_out_ratings(corpus: Path, tmp_path: Path) -> None:
    """Cross-validated correlations are clear, their intervals hold them, the map can be used."""
    target = tmp_path / "map.json"
    calibrate.main([str(corpus / "ratings.csv"), "--out", str(target)])
    quality = json.loads(target.read_text())["quality"]
    assert quality["recordings"] == 60
    assert quality["pearson"] > 0.55, quality
    assert quality["spearman"] > 0.55, quality
    assert quality["pearson_interval"][0] < quality["pearson"] < quality["pearson_interval"][1]
    fitted = ScoreMap.load(target)
    assert fitted.calibration.startswith("fitted to 60 rated recordings of ratings")
    good = {"articulation_rate": 6.0, "mean_silent_pause_s": 0.0, "silent_pauses_per_minute": 0.0}
    bad = {"articulation_rate": 3.0, "mean_silent_pause_s": 2.0, "silent_pauses_per_minute": 40.0}
    high, low = fitted.score(good).fluency, fitted.score(bad).fluency
    assert high is not None
    assert low is not None
    assert high > low


def test_random_ratings_are_not_predicted() -> None:
    """No false promise: with ratings drawn by lot the cross-validated correlation is near 0."""
    random = np.random.default_rng(3)
    values = [
        {name: float(random.uniform(0, 5)) for name in calibrate.DIRECTIONS} for _ in range(200)
    ]
    quality = calibrate.cross_validate(values, random.uniform(0, 100, 200))
    assert abs(quality.pearson) < 0.2
    assert quality.pearson_interval[0] < 0.1


def test_the_layout_of_speechocean762(tmp_path: Path) -> None:
    """resource/scores.json and train/wav.scp give files and fluency ratings."""
    (tmp_path / "resource").mkdir()
    (tmp_path / "train").mkdir()
    names = [f"{index:09d}" for index in range(20)]
    scores = {name: {"fluency": index % 11, "total": 3} for index, name in enumerate(names)}
    (tmp_path / "resource" / "scores.json").write_text(json.dumps(scores))
    lines = [f"{name}\tWAVE/SPEAKER0001/{name}.WAV" for name in names]
    (tmp_path / "train" / "wav.scp").write_text("\n".join(lines))
    pairs = calibrate.rated_files(tmp_path)
    assert pairs[1] == (tmp_path / "WAVE/SPEAKER0001/000000001.WAV", 1.0)
    assert len(pairs) == 20


def test_too_few_ratings_are_refused(tmp_path: Path) -> None:
    """A map fitted to a handful would only look like knowledge."""
    (tmp_path / "a.csv").write_text("file,rating\na.wav,3\n")
    with pytest.raises(ValueError, match="at least 20 ratings are needed, got 1"):
        calibrate.rated_files(tmp_path / "a.csv")
