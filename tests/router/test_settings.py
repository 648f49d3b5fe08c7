"""Settings that must not be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from router.settings import Settings


@pytest.mark.parametrize("keys", ["web:", "web:   ", ":", "short", "web:short", "a" * 20 + ",web:"])
def test_a_key_that_lets_everybody_in(monkeypatch: pytest.MonkeyPatch, keys: str) -> None:
    """`web:$UNSET` is refused at start, and the message does not show the key."""
    monkeypatch.setenv("CALLME_KEYS", keys)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "at least 16 characters" in str(caught.value)
    assert "input_value" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["local:", "web@local:", "web@:", "@web:", "@:"], ids=lambda name: name or "none"
)
@pytest.mark.parametrize("setting", ["CALLME_KEYS", "CALLME_ADMIN_KEYS"])
def test_a_key_of_nobody(monkeypatch: pytest.MonkeyPatch, setting: str, name: str) -> None:
    """A holder must not be what is made without a key, nor this machine's own programs."""
    monkeypatch.setenv(setting, f"{name}{'k' * 32}")
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert "k" * 32 not in str(caught.value)


def test_the_environment_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """callme.toml beside the packages, CALLME_… above it, an unknown key is an error."""
    monkeypatch.setenv("CALLME_PACKAGES_DIR", str(tmp_path))
    toml = tmp_path / "callme.toml"
    toml.write_text('queue_limit = 7\nport = 8000\n[models.echo.env]\nA = "b"\n')
    monkeypatch.setenv("CALLME_PORT", "9000")
    settings = Settings()
    assert (settings.queue_limit, settings.port) == (7, 9000)
    assert settings.models["echo"].env == {"A": "b"}
    assert settings.state == (tmp_path / "var").resolve()
    toml.write_text("queue_limt = 7\n")
    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"bucket": "results", "secret_access_key": "s" * 32}, "needs both access_key_id and"),
        ({"bucket": "results", "endpoint": f"https://id:{'s' * 32}@host"}, "result_store.endpoint"),
        ({"bucket": "a/b"}, "result_store.bucket"),
        ({"prefix": "x"}, "result_store.bucket"),
        ({"bucket": "results", "url_lifetime_s": "604801"}, "result_store.url_lifetime_s"),
    ],
)
def test_a_result_store_that_cannot_work(
    monkeypatch: pytest.MonkeyPatch, given: dict[str, str], wanted: str
) -> None:
    """The setting is named, and no secret is shown."""
    for name, value in given.items():
        monkeypatch.setenv(f"CALLME_RESULT_STORE__{name.upper()}", value)
    with pytest.raises(ValidationError) as caught:
        Settings()
    assert wanted in str(caught.value)
    assert "s" * 32 not in str(caught.value)
