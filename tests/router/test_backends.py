"""Where models run: what the settings may say, and what comes of it."""

from __future__ import annotations

import asyncio
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pydantic import ValidationError

from router import backends as backends_module
from router import composition
from router.backends import Backends
from router.clock import SystemClock
from router.model_settings import ModelSettings, RemoteSettings
from router.models.catalog import Package
from router.models.process_interface import StartError
from router.models.schemas import Description
from router.predictions.overflow import OverflowRule
from router.predictions.scheduler_loop import SchedulerLoop
from router.remote.cog import CogBackend
from router.remote.process import RemoteProcess
from router.scheduling.messages import Described, Event
from router.settings import Settings
from tests.router.remote.remote_stand_in import never, stand_in

BOX = {"url": "http://10.0.0.2:7777/models/m"}
MODAL = {"kind": "modal", "url": "https://me--m.modal.run", "key": "wk:ws", "concurrency": 3}


def backends(models: dict[str, Any], *folders: str) -> Backends:
    """What these settings make of these packages."""
    settings = Settings(models={name: ModelSettings(**m) for name, m in models.items()})
    local = {n: Package(n, Path("/p") / n, "run.py:Runner", Path(sys.executable)) for n in folders}
    return Backends(settings, local, SystemClock())


def test_nothing_said_is_local() -> None:
    """One model each, with the memory that it takes."""
    made = backends({}, "a", "b")
    assert (made.concurrency, made.remote_models, made.rules) == ({"a": 1, "b": 1}, frozenset(), {})
    assert (made.kind("a"), made.process("a")) == ("local", None)


async def test_elsewhere_only() -> None:
    """Under its own name, without memory; with or without a folder here."""
    made = backends(
        {"a": {"backend": "cog", "remote": BOX}, "far": {"backend": "cog", "remote": BOX}}, "a"
    )
    assert made.remote_models == {"a", "far"}
    assert made.concurrency == {"a": 4, "far": 4}
    assert (made.packages["a"].runner, made.packages["far"].runner) == ("run.py:Runner", "")
    assert made.kind("far") == "cog"
    assert isinstance(made.process("far"), RemoteProcess)


async def test_a_remotes_description_leaves_its_concurrency() -> None:
    """The settings have it; the runner of a local model declares it."""
    made = backends({"far": {"backend": "cog", "remote": BOX}}, "near")
    posted: list[Event] = []
    loop = cast(SchedulerLoop, SimpleNamespace(post=posted.append))
    for model in ("far", "near"):
        composition.note_concurrency(made, loop, model, Description({}, 2))
    assert posted == [Described("near", 2)]


async def test_a_model_that_overflows() -> None:
    """The APIs see one model, the scheduler two."""
    made = backends({"a": {"backend": "overflow", "overflow_after_s": 7, "remote": MODAL}}, "a")
    assert set(made.packages) == {"a"}
    assert made.concurrency == {"a": 1, "a@modal": 3}
    assert made.remote_models == {"a@modal"}
    assert made.rules == {"a": OverflowRule("a@modal", 7.0)}
    assert made.scheduled["a@modal"].folder == made.scheduled["a"].folder
    assert (made.kind("a"), made.kind("a@modal")) == ("local", "modal")


async def test_what_is_paid_for_is_bounded() -> None:
    """By 100 an hour where nothing is said; what is free, not."""
    replicate = {"model": "me/m"}
    made = backends(
        {
            "a": {"backend": "modal", "remote": MODAL},
            "b": {"backend": "replicate", "remote": replicate},
            "c": {"backend": "replicate", "remote": {**replicate, "requests_per_hour": 7}},
            "d": {"backend": "cog", "remote": BOX},
        }
    )
    allowed = {n: made._remotes[n][1].allowance.per_hour for n in "abcd"}
    assert allowed == {"a": 100, "b": 100, "c": 7, "d": None}


async def test_what_is_repeatable() -> None:
    """What costs nothing; not what is paid for or limited, and what the settings say otherwise."""
    made = backends(
        {
            "free": {"backend": "cog", "remote": BOX},
            "limited": {"backend": "cog", "remote": {**BOX, "requests_per_hour": 7}},
            "declared": {"backend": "cog", "remote": {**BOX, "repeatable": False}},
            "paid": {"backend": "modal", "remote": MODAL},
        }
    )
    assert [n for n in made.packages if made._remotes[n][0].repeatable] == ["free"]
    for name in made.packages:
        process = made.process(name)
        assert process is not None
        assert process._repeatable is (name == "free")
        backend = cast(CogBackend, process._backend)
        assert backend._repeatable is (name == "free")


async def test_what_the_guards_know_outlives_a_process() -> None:
    """Or each restart of the process would forget what was spent."""
    made = backends({"d": {"backend": "cog", "remote": BOX}})
    first, second = made.process("d"), made.process("d")
    assert first is not None and second is not None and first is not second
    assert first._guards is second._guards


async def test_one_that_never_answers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not when it is asked what it takes: a caller waits for that."""
    monkeypatch.setattr(backends_module, "SCHEMA_LIMIT_S", 0.3)
    async with stand_in() as silent:
        silent.script["GET /openapi.json"] = [never]
        made = backends({"far": {"backend": "cog", "remote": {"url": silent.url}}})
        async with asyncio.timeout(30):
            with pytest.raises(StartError, match="did not say within"):
                await made.describe(made.packages["far"])


async def test_which_remotes_are_boxes() -> None:
    """A box may overflow to a remote of its own; Modal and Replicate do not."""
    remotes: dict[str, dict[str, Any]] = {
        "a": MODAL,
        "b": {"kind": "replicate", "model": "me/m"},
        "c": {"kind": "cog", **BOX},
        "d": {"kind": "replicate", "model": "me/m", "url": "http://10.0.0.2:7777"},
    }
    models = {n: {"backend": "overflow", "remote": r} for n, r in remotes.items()}
    made = backends(models, *remotes)
    assert [made.rules[n].to_box for n in "abcd"] == [False, False, True, True]


def test_what_cannot_be_served_is_left_out() -> None:
    """Overflow from a package that is not here; a name that is a path of the router's."""
    made = backends(
        {
            "a": {"backend": "overflow", "remote": MODAL},
            "status": {"backend": "cog", "remote": BOX},
            "Up@per": {"backend": "cog", "remote": BOX},
        }
    )
    assert made.packages == {}
    assert made.concurrency == {}


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ({"backend": "cog"}, "needs a [remote]"),
        ({"backend": "overflow", "remote": BOX}, "needs remote.kind"),
        ({"backend": "cog", "remote": {}}, "needs remote.url"),
        ({"backend": "modal", "remote": {"key": "a:b"}}, "needs remote.url"),
        ({"backend": "replicate", "remote": BOX}, "needs remote.model"),
        (
            {"backend": "cog", "remote": {**BOX, "kind": "modal"}},
            "backend cog and remote.kind modal",
        ),
        ({"backend": "cog", "remote": {"url": "file:///etc/passwd"}}, "url"),
        ({"backend": "cog", "remote": {"url": "box2:7777"}}, "url"),
        ({"backend": "replicate", "remote": {"model": "only-a-name"}}, "model"),
        ({"backend": "replicate", "remote": {"model": "a/b", "requests_per_hour": -1}}, "requests"),
        ({"backend": "nowhere"}, "backend"),
        ({"backend": "cog", "remote": {"url": ["http://a", "b"]}}, "must begin with http://"),
        ({"backend": "cog", "remote": {"url": []}}, "needs remote.url"),
        ({"backend": "modal", "remote": {"url": ["http://a", "http://b"]}}, "several URLs"),
        ({"backend": "modal", "remote": {**BOX, "repeatable": True}}, "needs kind cog"),
        (
            {"backend": "cog", "remote": {**BOX, "repeatable": True, "requests_per_hour": 9}},
            "and no requests_per_hour",
        ),
    ],
)
def test_settings_that_make_no_sense(model: dict[str, Any], told: str) -> None:
    """Are told at start, and no key is shown."""
    if "remote" in model:
        model = {**model, "remote": {"key": "r8_secret", **model["remote"]}}
    with pytest.raises(ValidationError) as caught:
        ModelSettings(**model)
    assert told in str(caught.value)
    assert "r8_secret" not in str(caught.value)


def test_every_key_is_in_the_table() -> None:
    """docs/remote/settings.md names what may be said of a back-end, and nothing else."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "remote" / "settings.md").read_text()
    table = text[text.index("| key of `[models.NAME]`") :]
    named = set(re.findall(r"^\| `([a-z_.]+)` \|", table[: table.index("\n\n")], re.M))
    fields = {"backend", "overflow_after_s", *(f"remote.{f}" for f in RemoteSettings.model_fields)}
    assert named == fields


def test_a_key_may_stand_in_the_environment(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Beside what the file says of the same back-end."""
    toml = '[models.a]\nbackend = "cog"\n[models.a.remote]\nurl = "http://x/models/a"\n'
    (tmp_path / "callme.toml").write_text(toml)
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(tmp_path))
    monkeypatch.setenv("CALLME_MODELS__A__REMOTE__KEY", "from-the-environment")
    model = Settings().models["a"]
    assert model.remote is not None
    assert model.remote.key.get_secret_value() == "from-the-environment"
    assert model.remote.url == "http://x/models/a"
