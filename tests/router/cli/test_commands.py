"""Commands that need no running router: keys, config, doctor, models, and how predict fails."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from typer.testing import CliRunner, Result

from router.cli import app, curl_line
from router.cli.common import fail, read_settings
from router.cli.doctor import check_keys
from router.cli.serve import gives_files
from router.cli.status import new_lines
from router.models.catalog import read_package

ECHO = Path(__file__).parents[2] / "packages" / "echo"


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A state folder, a folder of packages with one in it, and a port that is free."""
    packages = tmp_path / "packages"
    packages.mkdir()
    (packages / "echo").symlink_to(ECHO)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CALLME_PORT", str(s.getsockname()[1]))
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(packages))
    monkeypatch.setenv("CALLME_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.delenv("CALLME_KEYS", raising=False)
    return tmp_path / "state"


def run(*arguments: str) -> Result:
    """`callme …`."""
    return CliRunner().invoke(app, list(arguments))


def told(*arguments: str) -> Any:
    """What `callme … --json` prints."""
    done = run(*arguments, "--json")
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_keys_from_making_to_revoking(state: Path) -> None:
    """stdout is the key alone, for a script; the list has names and limits, no key."""
    done = run("keys", "create", "web", "--per-minute", "60", "--at-once", "4")
    secret = done.stdout.strip()
    assert (done.exit_code, secret[:3], secret.split()) == (0, "ck_", [secret])
    assert "Copy it now" in done.stderr or "copy it now" in done.stderr
    (listed,) = told("keys", "list")
    assert (listed["id"], listed["requests_per_minute"], listed["concurrent_requests"]) == (
        "web",
        60,
        4,
    )
    assert secret not in run("keys", "list").output + json.dumps(listed)
    assert "verifier" not in listed
    again = run("keys", "create", "web")
    assert (again.exit_code, "there is one named 'web'" in again.stderr) == (1, True)
    assert "nobody is served" in run("keys", "revoke", "web").stdout
    assert run("keys", "revoke", "web").exit_code == 1
    assert told("keys", "list") == []


def test_a_person_says_that_no_key_is_needed(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not while there are keys, in the file or in the settings; list and doctor say how it is."""

    def served() -> str:
        found = check_keys(read_settings()).found
        assert found.lower() in run("keys", "list").stdout.lower()
        return found

    assert "programs of this machine are served" in served()
    run("keys", "create", "web")
    assert served() == "1 key; without one nobody is served"
    refused = run("keys", "open-to-this-machine")
    assert (refused.exit_code, "revoke them first" in refused.stderr) == (1, True)
    run("keys", "revoke", "web")
    assert "callme keys open-to-this-machine" in served()
    monkeypatch.setenv("CALLME_ADMIN_KEYS", "ops:" + "k" * 32)
    refused = run("keys", "open-to-this-machine")
    assert (refused.exit_code, "CALLME_ADMIN_KEYS" in refused.stderr) == (1, True)
    monkeypatch.delenv("CALLME_ADMIN_KEYS")
    assert run("keys", "open-to-this-machine").exit_code == 0
    assert "programs of this machine are served" in served()


def test_doctor_sees_who_else_may_read_or_write(state: Path) -> None:
    """With the command to run."""
    run("keys", "create", "web")
    for mode, status in ((0o600, "ok"), (0o644, "warn"), (0o666, "fail")):
        (state / "keys.json").chmod(mode)
        found = check_keys(read_settings())
        assert found.status == status
        assert ("chmod" in found.found + found.fix) == (status != "ok")


def test_keys_say_whose_they_are(state: Path) -> None:
    """A second key of one holder, an admin's; in the list, for a person and for a script."""
    assert run("keys", "create", "web").exit_code == 0
    assert run("keys", "create", "web-2027", "--for", "web").exit_code == 0
    assert run("keys", "create", "ops", "--admin").exit_code == 0
    listed = told("keys", "list")
    assert [(key["id"], key["holder"], key["admin"]) for key in listed] == [
        ("web", "web", False),
        ("web-2027", "web", False),
        ("ops", "ops", True),
    ]
    assert "all (admin)" in run("keys", "list").stdout
    refused = run("keys", "create", "other", "--for", "A B")
    assert (refused.exit_code, "name must be" in refused.stderr) == (1, True)


def test_the_schema_accepts_what_the_router_accepts(state: Path) -> None:
    """It is a JSON Schema, names the settings, and refuses a misspelt one."""
    schema = json.loads(run("config", "schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    good = {"port": 8000, "models": {"echo": {"env": {"A": "b"}}}, "keys": ["web:" + "k" * 16]}
    jsonschema.validate(good, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"prot": 8000}, schema)


def test_models_without_a_router(state: Path) -> None:
    """The folder's packages."""
    assert told("models")["echo"]["folder"] == str(ECHO)
    assert "No router runs" in run("models").stderr


def test_models_that_run_elsewhere(state: Path) -> None:
    """Are there too, though the folder has no package of theirs."""
    toml = '[models.far]\nbackend = "cog"\n[models.far.remote]\nurl = "http://box/models/far"\n'
    (state.parent / "packages" / "callme.toml").write_text(toml)
    assert told("models")["far"] == {"backend": "cog"}
    assert "(cog)" in run("models").stdout


@pytest.mark.parametrize("command", [["status"], ["logs", "echo"], ["predict", "echo"]])
def test_without_a_router_they_say_so(state: Path, command: list[str]) -> None:
    """Code 1, and how to start one."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, not listening: refuses, and nobody else gets it
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run(*command, "--url", url)
    assert done.exit_code == 1
    assert f"Cannot reach a router at {url}" in done.stderr
    assert "callme serve" in done.stderr


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (["-i", "novalue"], "must be name=value"),
        (["-i", "=x"], "must be name=value"),
        (["-i", "file=@/no/such"], "there is no file"),
    ],
)
def test_inputs_are_read_before_anything_starts(state: Path, given: list[str], reason: str) -> None:
    """Code 2, in a sentence."""
    done = run("predict", "echo", *given)
    assert (done.exit_code, reason in done.stderr) == (2, True), done.output


def test_an_unknown_model_is_told(state: Path) -> None:
    """Neither a package's name nor a package's folder."""
    done = run("predict", "nosuch")
    assert (done.exit_code, "Cannot find a model 'nosuch'" in done.stderr) == (1, True), done.output
    done = run("predict", str(state.parent))
    assert done.exit_code == 1, done.output


def test_a_setting_that_cannot_be_used_is_named(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not a traceback."""
    monkeypatch.setenv("CALLME_PORT", "99999")
    done = run("status")
    assert (done.exit_code, "'port'" in done.stderr) == (2, True)


@pytest.mark.slow
def test_doctor_finds_what_is_missing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a program that runs, one that does not, a taken port and no packages: each is
    reported with its fix, and the exit code is 1."""
    programs = state.parent / "bin"
    programs.mkdir()
    for name, line in (
        ("cloudflared", "echo cloudflared version 2026.8.2"),
        ("supabase", "exit 3"),
    ):
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(programs))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("CALLME_PORT", str(taken.getsockname()[1]))
        done = run("doctor", "--json")
    found = {f["check"]: f for f in json.loads(done.stdout)}
    assert done.exit_code == 1
    assert found["Python"]["status"] == "ok"
    assert found["cloudflared"]["found"] == "cloudflared version 2026.8.2"
    for check, fix in (
        ("supabase", "npm"),
        ("port", "CALLME_PORT"),
        ("packages", "CALLME_PACKAGES_DIR"),
    ):
        assert found[check]["status"] == "fail", found[check]
        assert fix in found[check]["fix"]


def test_doctor_knows_weights_and_interpreters(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Demo weights that are not there fail with how to make them; of packages that name torch, the
    interpreters are asked for it."""
    package = state.parent / "packages" / "painter"
    (package / "weights").mkdir(parents=True)
    needs_torch = "build: {python_packages: [torch]}\nrun: run.py:Runner\n"
    for folder in (package, state.parent / "packages" / "sculptor"):
        folder.mkdir(exist_ok=True)
        (folder / "cog.yaml").write_text(needs_torch)
    own = package / ".venv" / "bin"
    own.mkdir(parents=True)
    (own / "python").write_text('#!/bin/sh\necho "9.9.9+cpu None False"\n')
    (own / "python").chmod(0o755)
    monkeypatch.setenv("CALLME_WEIGHTS", "demo")
    monkeypatch.setattr("router.cli.doctor.TORCH", "raise SystemExit('no torch asked here')")
    done = run("doctor", "--json")
    findings = json.loads(done.stdout)
    weights = next(f for f in findings if f["check"] == "weights of painter")
    assert (weights["status"], weights["fix"]) == ("fail", "make weights")
    cuda = [f for f in findings if f["check"] == "CUDA"]
    assert any("9.9.9+cpu" in f["found"] for f in cuda)
    assert any(sys.executable in f["found"] for f in cuda)


def test_only_new_lines_of_a_log_are_shown() -> None:
    """Whether lines were added, pushed out, repeated, or a new process began."""
    assert new_lines(["a", "b"], ["a", "b", "c"]) == ["c"]
    assert new_lines(["a", "b", "c"], ["b", "c", "d"]) == ["d"]
    assert new_lines(["a", "a"], ["a", "a", "a"]) == ["a"]
    assert new_lines(["a", "b"], ["x", "y"]) == ["x", "y"]
    assert new_lines([], ["x"]) == ["x"]
    assert new_lines(["a"], []) == []


def test_save_ends_a_pipe(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files out of the JSON, the rest to stdout; an error and rubbish end with code 1."""
    monkeypatch.chdir(state.parent)
    answer = {"seed": 7, "image": "data:image/png;base64,cG5n"}
    done = CliRunner().invoke(app, ["save"], input=json.dumps(answer))
    assert json.loads(done.stdout) == {"seed": 7, "image": "output.png"}
    assert (state.parent / "output.png").read_bytes() == b"png"
    refused = CliRunner().invoke(app, ["save"], input='{"error": {"code": "x", "message": "y"}}')
    assert (refused.exit_code, json.loads(refused.stdout)["error"]["code"]) == (1, "x")
    for rubbish in ("", "<html>"):
        done = CliRunner().invoke(app, ["save"], input=rubbish)
        assert (done.exit_code, "stdin must be a response" in done.stderr) == (1, True)


@pytest.mark.parametrize(
    ("output", "always"),
    [
        ({"type": "string", "format": "uri"}, True),
        ({"type": "array", "items": {"type": "string", "format": "uri"}}, True),
        ({"properties": {"a": {"type": "string", "format": "uri"}}, "required": ["a"]}, True),
        ({"properties": {"a": {"items": {"format": "uri"}}}, "required": ["a"]}, True),
        ({"properties": {"a": {"type": "string", "format": "uri"}}, "required": []}, False),
        ({"properties": {"a": {"type": "string"}}, "required": ["a"]}, False),
        ({}, False),
    ],
)
def test_a_line_saves_where_every_answer_has_a_file(output: dict[str, Any], always: bool) -> None:
    """By the schema of the model's output, whatever the model."""
    assert gives_files({"components": {"schemas": {"Output": output}}}) is always


def test_a_line_for_a_box_with_keys_has_one(state: Path) -> None:
    """The local key, read from its file when the line is run."""
    package = read_package(ECHO, {})
    example = replace(package, example={"text": "a b", "file": "@x.wav"})
    line = curl_line(example, "http://127.0.0.1:1", ECHO.parent, ECHO.parent / "var" / "local_key")
    assert line == (
        'curl -sS http://127.0.0.1:1/echo -H "Authorization: Bearer $(cat var/local_key)" '
        "-F 'text=a b' -F file=@echo/x.wav"
    )


def test_a_tunnel_that_cannot_open_is_told_before_anything_starts(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code 2, each with what is missing."""
    programs = state.parent / "bin"
    programs.mkdir()
    monkeypatch.setenv("PATH", str(programs))
    for name in ("SUPABASE_ACCESS_TOKEN", "SUPABASE_PROJECT_ID", "TUNNEL_TOKEN"):
        monkeypatch.delenv(name, raising=False)

    def refused(*arguments: str) -> str:
        done = run("up", *arguments)
        assert done.exit_code == 2, done.output
        return done.stderr

    assert "'cloudflared' is not on PATH" in refused("--public")
    assert "add --public" in refused("--dry-run")
    (programs / "cloudflared").write_text("#!/bin/sh\n")
    (programs / "cloudflared").chmod(0o755)
    assert "it must be supabase" in refused("--public", "--publish", "vercel")
    assert "SUPABASE_ACCESS_TOKEN" in refused("--public", "--publish", "supabase")
    assert "must be an https URL" in refused("--public", "--publish", "webhook:http://x.example")
    monkeypatch.setenv("TUNNEL_TOKEN", "t")
    assert "CALLME_TUNNEL_URL" in refused("--public")


def test_deploying_says_what_is_missing(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The project, the folder, the CLI; a dry run prints the command."""
    monkeypatch.delenv("SUPABASE_PROJECT_ID", raising=False)
    monkeypatch.setenv("PATH", str(state.parent))
    deploy = ("supabase", "deploy")
    assert "no project is set" in run(*deploy).stderr
    elsewhere = run(*deploy, "--project", "abc", "--folder", str(state.parent))
    assert "no supabase/config.toml" in elsewhere.stderr
    assert "not on PATH" in run(*deploy, "--project", "abc").stderr
    done = run(*deploy, "--project", "abc", "--dry-run")
    line = "SUPABASE_PROJECT_ID=abc supabase functions deploy backend_server --use-api --yes"
    assert (done.exit_code, done.stdout.strip()) == (0, line)


def test_brackets_in_a_message_are_no_markup(capsys: pytest.CaptureFixture[str]) -> None:
    """A model's error may hold anything."""
    with pytest.raises(typer.Exit):
        fail("it must be [red] or [/nothing], got [0, 1]")
    assert "it must be [red] or [/nothing], got [0, 1]" in capsys.readouterr().err


def test_the_version_is_the_installed_one() -> None:
    """One place says it: what was installed."""
    assert run("--version").stdout.strip() == f"callme {metadata.version('callme-gpu')}"


def test_a_command_starts_without_the_router() -> None:
    """Only those that serve import it. It would take half of the time in which the others start."""
    code = "import sys; import router.cli; print({'fastapi', 'router.app'} & sys.modules.keys())"
    argv = [sys.executable, "-c", code]
    assert subprocess.run(argv, capture_output=True, text=True, check=True).stdout == "set()\n"


def test_a_shell_completes_commands_and_options() -> None:
    """As bash asks for them after `callme --install-completion`."""
    program = "import sys; sys.argv = ['callme']; from router.cli import main; main()"
    for typed, expected in (
        ("callme st", ["status"]),
        ("callme usage --da", ["--days", "--daily"]),
    ):
        words = {"COMP_WORDS": typed, "COMP_CWORD": str(len(typed.split()) - 1)}
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, **words, "_CALLME_COMPLETE": "complete_bash"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert sorted(done.stdout.split()) == sorted(expected)
