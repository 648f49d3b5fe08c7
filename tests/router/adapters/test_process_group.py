"""What a model's process is given of the router's surroundings."""

from __future__ import annotations

import pytest

from router.adapters.process_group import inherited_environment


def test_no_secret_of_the_routers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its settings, which may hold keys, and the tokens of what else it does stay with it."""
    for name in ("CALLME_KEYS", "SUPABASE_ACCESS_TOKEN", "TUNNEL_TOKEN"):
        monkeypatch.setenv(name, "secret")
    monkeypatch.setenv("HF_HOME", "/models")
    given = inherited_environment()
    assert "secret" not in given.values()
    assert given["HF_HOME"] == "/models"
