"""cog.yaml's `observability.traces` reaches coglet, as `cog build` would put it into an image."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.models.catalog import PackageError, read_package
from router.models.process_options import ProcessOptions, environment

TRACES = "observability:\n  traces:\n    enabled: true\n"


def package_of(folder: Path, more: str) -> Path:
    """A package's folder."""
    path = folder / "measure"
    path.mkdir()
    (path / "cog.yaml").write_text(f'run: "run.py:Runner"\n{more}')
    return path


def environment_of(folder: Path, *, traced: bool = True) -> dict[str, str]:
    """What its process gets, of tracing."""
    options = ProcessOptions(folder, folder, folder, 60.0, lambda pids: 0, traced=traced)
    env = environment(read_package(folder, {}), options, folder, 5000)
    return {k: v for k, v in env.items() if k.startswith(("COG_TRACE", "OTEL_"))}


def test_what_coglet_gets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package's sampler, since the router's own has decided before; the model's name."""
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "box")
    package = package_of(tmp_path, TRACES)
    assert environment_of(package) == {
        "COG_TRACE_CONFIGURED": "true",
        "COG_TRACE_ENABLED": "true",
        "COG_TRACE_SAMPLER": "parentbased_always_off",
        "OTEL_TRACES_SAMPLER": "parentbased_always_off",
        "OTEL_SERVICE_NAME": "measure",
    }
    assert "COG_TRACE_CONFIGURED" not in environment_of(package, traced=False)


def test_a_ratio(tmp_path: Path) -> None:
    """With its argument."""
    more = "    sampler: parentbased_traceidratio\n    sampler_arg: '0.25'\n"
    env = environment_of(package_of(tmp_path, TRACES + more))
    assert env["COG_TRACE_SAMPLER_ARG"] == env["OTEL_TRACES_SAMPLER_ARG"] == "0.25"


def test_a_package_that_does_not_ask_for_it(tmp_path: Path) -> None:
    """It gets nothing, nor does one that says no."""
    package = package_of(tmp_path, TRACES.replace("true", "false"))
    assert "COG_TRACE_CONFIGURED" not in environment_of(package)


def test_an_environment_without_the_sdk(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """coglet's set-up would fail there, so the model runs untraced, and the log says why."""
    package = package_of(tmp_path, TRACES)
    python = package / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.touch()
    assert "COG_TRACE_CONFIGURED" not in environment_of(package)
    assert "lacks opentelemetry-sdk" in caplog.text
    (package / ".venv/lib/python3.11/site-packages/opentelemetry/sdk").mkdir(parents=True)
    assert environment_of(package)["COG_TRACE_CONFIGURED"] == "true"


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        ("    sampler: sometimes\n", "must be one of always_on"),
        ("    sampler: traceidratio\n", "must be there for a ratio sampler"),
        ("    sampler_arg: '0.5'\n", "and only for one"),
        ("    sampler: traceidratio\n    sampler_arg: '1.5'\n", "a number from 0 to 1"),
    ],
)
def test_mistakes_are_reported(tmp_path: Path, more: str, problem: str) -> None:
    """As Cog refuses them when it builds."""
    with pytest.raises(PackageError, match=problem):
        read_package(package_of(tmp_path, TRACES + more), {})
