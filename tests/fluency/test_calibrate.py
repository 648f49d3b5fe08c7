"""Fitting the score map: on a made corpus whose ratings are known to follow the speech."""

import json
from collections.abc import Iterator
from pathlib import Path

import made_audio
import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from score import ScoreMap
from tools import calibrate
from vad import SileroVad


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
        parts = [made_audio.silence(0.3)] + [voices[speed], made_audio.silence(gap)] * 2
        made_audio.write_wav(folder / f"{index}.wav", np.concatenate(parts))
        rating = 5 + (speed - 150) / 40 - 2.2 * (gap - 0.8) + random.normal(0, 0.5)
        lines.append(f"{index}.wav,{np.clip(rating, 0, 10):.2f}")
    (folder / "ratings.csv").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="module", autouse=True)
def measured_once() -> Iterator[None]:
    """Each recording is heard once for all tests: what is tested here comes after."""
    hear = calibrate.values_of
    known: dict[Path, calibrate.Values | None] = {}

    def remembering(path: Path, vad: SileroVad) -> calibrate.Values | None:
        if path.resolve() not in known:
            known[path.resolve()] = hear(path, vad)
        return known[path.resolve()]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(calibrate, "values_of", remembering)
        yield


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


def test_the_layout_of_speechocean762(corpus: Path, tmp_path: Path) -> None:
    """resource/scores.json, train/wav.scp and WAVE/ are fitted like the CSV of the same ratings."""
    rows = (corpus / "ratings.csv").read_text().splitlines()[1:25]
    scores, lines = {}, []
    for index, (name, rating) in enumerate(row.split(",") for row in rows):
        utterance = f"{index:09d}"
        folder = tmp_path / "WAVE" / f"SPEAKER{index // 4:04d}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{utterance}.WAV").symlink_to(corpus / name)
        scores[utterance] = {"fluency": float(rating), "total": 3, "text": "WE WALKED"}
        lines.append(f"{utterance}\tWAVE/{folder.name}/{utterance}.WAV")
    (tmp_path / "resource").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "resource" / "scores.json").write_text(json.dumps(scores))
    (tmp_path / "train" / "wav.scp").write_text("\n".join(lines))
    (corpus / "same.csv").write_text("\n".join(["file,rating", *rows]))
    maps = []
    for source in (tmp_path, corpus / "same.csv"):
        calibrate.calibrate(source, (0, 10), tmp_path / "map.json")
        maps.append(json.loads((tmp_path / "map.json").read_text())["measures"])
    assert maps[0] == maps[1]


def test_an_utterance_without_scores_is_refused(tmp_path: Path) -> None:
    """The error has its name, and no stack trace."""
    (tmp_path / "resource").mkdir()
    (tmp_path / "train").mkdir()
    (tmp_path / "resource" / "scores.json").write_text("{}")
    (tmp_path / "train" / "wav.scp").write_text("000010011\tWAVE/SPEAKER0001/000010011.WAV\n")
    with pytest.raises(SystemExit, match="has no scores of 000010011"):
        calibrate.main([str(tmp_path), "--out", str(tmp_path / "map.json")])


HEAD = "file,rating\n"


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (HEAD + "0.wav,3\n", "at least 20 ratings are needed, got 1"),
        ("name,score\n0.wav,3\n", "must have the columns 'file' and 'rating'"),
        (HEAD + "0.wav,good\n" * 20, "the rating in line 2 must be a number, got 'good'"),
        (HEAD + "0.wav,nan\n" * 20, "must be a number, got 'nan'"),
        (HEAD + "0.wav,3\n" * 20, "ratings must differ, got 3.0"),
        (HEAD + "gone.wav,3\n" * 20, "20 recordings are missing, first gone.wav"),
    ],
    ids=["few", "columns", "word", "nan", "equal", "missing"],
)
def test_ratings_that_cannot_be_used_are_refused(
    corpus: Path, tmp_path: Path, content: str, complaint: str
) -> None:
    """In one sentence, without a stack trace, and no map is written."""
    (corpus / "bad.csv").write_text(content)
    with pytest.raises(SystemExit, match=complaint) as refusal:
        calibrate.main([str(corpus / "bad.csv"), "--out", str(tmp_path / "map.json")])
    assert str(refusal.value).startswith("calibrate: Cannot fit: ")
    assert not (tmp_path / "map.json").exists()


def test_a_scale_needs_an_extent(corpus: Path, tmp_path: Path) -> None:
    """0 to 0 would divide by nothing."""
    call = [str(corpus / "ratings.csv"), "--scale", "5", "5", "--out", str(tmp_path / "map.json")]
    with pytest.raises(SystemExit, match="ends of --scale must differ"):
        calibrate.main(call)


def test_measures_that_do_not_vary_predict_nothing() -> None:
    """A corpus of one and the same reading: correlations of 0, and no NaN."""
    values = [dict.fromkeys(calibrate.DIRECTIONS, 2.0) for _ in range(30)]
    quality = calibrate.cross_validate(values, np.linspace(0, 100, 30))
    assert quality.pearson == quality.spearman == 0
    assert quality.pearson_interval == (0, 0)


def test_the_correlations_are_scipys() -> None:
    """Pearson and Spearman, ties included, along an axis."""
    random = np.random.default_rng(5)
    a, b = random.integers(0, 9, (2, 4, 40)).astype(float)
    for ours, theirs in ((calibrate._pearson, pearsonr), (calibrate._spearman, spearmanr)):
        expected = [theirs(x, y).statistic for x, y in zip(a, b, strict=True)]
        assert ours(a, b) == pytest.approx(expected)
