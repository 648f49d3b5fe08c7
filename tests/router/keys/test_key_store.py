"""The keys of the state folder, as the command changes them and the router reads them."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.keys.key import Caller, parse_keys, verifier_of, who_is_served
from router.keys.key_store import (
    FILE_NAME,
    LOCAL_NAME,
    MARKER_NAME,
    KeyFile,
    KeyFileError,
    Keyring,
    read_local_key,
)


def test_a_key_is_seen_once_and_kept_as_its_verifier(tmp_path: Path) -> None:
    """The file holds what the key is verified by, and is readable by this user only."""
    secret = KeyFile(tmp_path).create("web", requests_per_minute=60)
    assert len(secret) >= 43
    text = (tmp_path / FILE_NAME).read_text()
    assert secret not in text
    entry = json.loads(text)["keys"][0]
    assert entry["verifier"] == verifier_of(secret).hex()
    assert (entry["id"], entry["requests_per_minute"]) == ("web", 60)
    assert stat.S_IMODE((tmp_path / FILE_NAME).stat().st_mode) == 0o600


def test_a_running_router_takes_new_keys_and_drops_revoked_ones(tmp_path: Path) -> None:
    """Without a restart, from the next request on."""
    ring = Keyring(tmp_path, parse_keys(["ops:0123456789abcdef"]), 600, 8)
    assert [key.id for key in ring.current().keys] == ["ops"]
    secret = KeyFile(tmp_path).create("web", concurrent_requests=2)
    web = ring.current().keys[1]
    assert web.id == "web"
    assert (web.verifier, web.requests_per_minute, web.concurrent_requests) == (
        verifier_of(secret),
        600,
        2,
    )
    KeyFile(tmp_path).revoke("web")
    assert [key.id for key in ring.current().keys] == ["ops"]


def test_whose_a_key_is(tmp_path: Path) -> None:
    """Its own name's where nothing else was said, as in files of an earlier version; an admin
    is one by name only."""
    file = KeyFile(tmp_path)
    file.create("web")
    file.create("web-2027", holder="web")
    file.create("ops", admin=True)
    document = json.loads((tmp_path / FILE_NAME).read_text())
    for field in ("holder", "admin"):
        del document["keys"][0][field]
    (tmp_path / FILE_NAME).write_text(json.dumps(document))
    callers = [key.caller() for key in Keyring(tmp_path, ()).current().keys]
    assert callers == [Caller("web"), Caller("web"), Caller("ops", is_admin=True)]
    with pytest.raises(KeyFileError, match="name must be"):
        file.create("app", holder="local")


def test_whose_a_configured_key_is() -> None:
    """`id@holder:secret`; one without a name shares with no other, whatever stands before it."""
    secrets = ["a" * 32, "b" * 32]
    first, second = (key.caller() for key in parse_keys(secrets))
    assert first != second
    assert parse_keys(secrets[1:])[0].caller() == second
    assert second.owner not in ("key1", "key2", "")
    assert "b" * 32 not in second.owner
    named = parse_keys([f"web:{secrets[0]}", f"web2@web:{secrets[1]}"])
    assert [(key.id, key.caller()) for key in named] == [
        ("web", Caller("web")),
        ("web2", Caller("web")),
    ]
    (admin,) = parse_keys(secrets[:1], is_admin=True)
    assert admin.caller().is_admin


def test_what_a_caller_may_see() -> None:
    """What their own holder made, and an admin everything."""
    assert Caller("web").may_see("web")
    assert not Caller("web").may_see("app")
    assert not Caller("").may_see("web")
    assert Caller("ops", is_admin=True).may_see("web")


def test_the_parts_of_a_configured_key() -> None:
    """A secret may have colons; keys without a name are numbered from 1; limits are kept."""
    (key,) = parse_keys(["web@team:0123456789:abcdef"], 60, 2)
    assert (key.id, key.holder) == ("web", "team")
    assert key.verifier == verifier_of("0123456789:abcdef")
    assert (key.requests_per_minute, key.concurrent_requests) == (60, 2)
    texts = ["0123456789abcdef", "another-0123456789"]
    assert [k.id for k in parse_keys(texts)] == ["key1", "key2"]
    assert [k.id for k in parse_keys(texts, is_admin=True)] == ["admin1", "admin2"]
    assert all(len(k.holder) == len("key-") + 32 for k in parse_keys(texts))


def test_the_local_key_lives_with_the_router(tmp_path: Path) -> None:
    """It is there while the router runs, private, and does not make others need a key."""
    ring = Keyring(tmp_path, ())
    ring.open()
    secret = read_local_key(tmp_path)
    assert secret is not None
    (local,) = ring.current().keys
    assert (local.id, local.caller().is_admin) == ("local", True)
    assert (local.verifier, local.local, ring.current().required) == (
        verifier_of(secret),
        True,
        False,
    )
    assert stat.S_IMODE((tmp_path / LOCAL_NAME).stat().st_mode) == 0o600
    for _ in range(2):  # also where the file is gone
        ring.close()
        assert (read_local_key(tmp_path), ring.current().keys) == (None, ())


def test_closed_stays_closed(tmp_path: Path) -> None:
    """After the last key is revoked, after a restart, and where keys.json is gone, nobody is
    served without a key, until a person says otherwise; a next key closes it again."""
    file = KeyFile(tmp_path)
    ring = Keyring(tmp_path, ())
    ring.open()
    assert not ring.current().required
    file.create("web")
    file.revoke("web")
    assert ring.current().required
    assert Keyring(tmp_path, ()).current().required
    (tmp_path / FILE_NAME).unlink()
    assert ring.current().required
    assert Keyring(tmp_path, ()).current().required
    file.open_to_this_machine()
    assert not ring.current().required
    assert not Keyring(tmp_path, ()).current().required
    file.create("web")
    assert ring.current().required
    with pytest.raises(KeyFileError, match="there are keys"):
        file.open_to_this_machine()
    file.revoke("web")
    assert ring.current().required


def test_a_configured_key_closes_too(tmp_path: Path) -> None:
    """One of CALLME_KEYS that is taken out again leaves nobody served, also on a box that was
    open to its machine."""
    file = KeyFile(tmp_path)
    for opened_before in (False, True):
        if opened_before:
            file.open_to_this_machine()
        ring = Keyring(tmp_path, parse_keys(["web:0123456789abcdef"]))
        ring.open()
        ring.close()
        assert Keyring(tmp_path, ()).current().required


def test_a_key_closes_whatever_the_file_says(tmp_path: Path) -> None:
    """An edit by hand that opens a router with keys has no effect, nor has one that was made
    before a key was configured."""
    file = KeyFile(tmp_path)
    file.open_to_this_machine()
    assert Keyring(tmp_path, parse_keys(["web:0123456789abcdef"])).current().required
    file.create("web")
    document = json.loads((tmp_path / FILE_NAME).read_text())
    (tmp_path / FILE_NAME).write_text(json.dumps(document | {"open_to_this_machine": True}))
    assert file.is_closed()
    assert Keyring(tmp_path, ()).current().required


def test_an_unchanged_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And not for each request."""
    KeyFile(tmp_path).create("web")
    ring = Keyring(tmp_path, ())
    assert len(ring.current().keys) == 1
    monkeypatch.setattr(KeyFile, "read", lambda _: [])
    assert len(ring.current().keys) == 1


def test_a_file_of_an_earlier_version_is_closed(tmp_path: Path) -> None:
    """All its keys were revoked: there had been one. One that had keys when a router started is
    missed when it is gone."""
    (tmp_path / FILE_NAME).write_text('{"version": 1, "keys": []}')
    assert Keyring(tmp_path, ()).current().required
    KeyFile(tmp_path).create("web")
    (tmp_path / MARKER_NAME).unlink()
    ring = Keyring(tmp_path, ())
    ring.open()
    assert [key.id for key in KeyFile(tmp_path).read()] == ["web"]
    (tmp_path / FILE_NAME).unlink()
    assert ring.current().required
    assert Keyring(tmp_path, ()).current().required


@pytest.mark.parametrize("mode", [0o660, 0o606, 0o666, 0o622])
def test_a_file_that_others_may_write_opens_nothing(tmp_path: Path, mode: int) -> None:
    """From the request after the change on; the sentence names the file and the command, which
    repairs it."""
    file, path = KeyFile(tmp_path), tmp_path / FILE_NAME
    secret = file.create("web")
    ring = Keyring(tmp_path, ())
    assert len(ring.current().keys) == 1
    path.chmod(mode)
    assert (ring.current().keys, ring.current().required) == ((), True)
    for use in (ring.open, file.read, lambda: file.create("app"), lambda: file.revoke("web")):
        with pytest.raises(KeyFileError) as caught:
            use()
        assert f"others may write {path}" in str(caught.value)
    command = str(caught.value).rpartition("run: ")[2]
    subprocess.run(shlex.split(command), check=True)
    assert [key.verifier for key in ring.current().keys] == [verifier_of(secret)]


def test_a_folder_that_others_may_write_opens_nothing(tmp_path: Path) -> None:
    """A user who may write the folder can put another keys.json there. An empty one is made
    private and taken."""
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    file = KeyFile(state)
    file.create("web")
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    state.chmod(0o770)
    accepted = Keyring(state, ()).current()
    assert (accepted.keys, accepted.required) == ((), True)
    with pytest.raises(KeyFileError, match="chmod go-w"):
        file.create("app")


@pytest.mark.parametrize(
    "content",
    ["{", '{"keys": [{"id": "a"}]}', '{"keys": [{"id":"a","verifier":"","created_at":1}]}'],
)
def test_a_damaged_file_opens_nothing(tmp_path: Path, content: str) -> None:
    """Nobody is let in without a key because the keys cannot be read."""
    ring = Keyring(tmp_path, ())
    KeyFile(tmp_path).create("web")
    assert ring.current().required
    (tmp_path / FILE_NAME).write_text(content)
    assert (ring.current().keys, ring.current().required) == ((), True)
    with pytest.raises(KeyFileError, match="damaged"):
        ring.open()
    with pytest.raises(KeyFileError, match="damaged"):
        KeyFile(tmp_path).create("other")
    assert (tmp_path / FILE_NAME).read_text() == content


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("requests_per_minute", "ten"),
        ("requests_per_minute", "10"),
        ("requests_per_minute", -5),
        ("requests_per_minute", 0),
        ("requests_per_minute", True),
        ("requests_per_minute", 1.5),
        ("concurrent_requests", "2"),
        ("concurrent_requests", 0),
        ("requests_per_second", 1),
        ("id", 5),
        ("id", "Web"),
        ("id", "local"),
        ("verifier", "0" * 63),
        ("verifier", "0" * 64 + "\n"),
        ("created_at", "today"),
        ("holder", ""),
        ("holder", "local"),
        ("admin", "yes"),
        ("admin", 1),
    ],
)
def test_a_mistake_in_the_file_is_no_limit_left_out(
    tmp_path: Path, field: str, value: object
) -> None:
    """The error says where an edit by hand is wrong; until it is fixed, no key is accepted."""
    file = KeyFile(tmp_path)
    file.create("web", requests_per_minute=60, concurrent_requests=2)
    document = json.loads((tmp_path / FILE_NAME).read_text())
    verifier = document["keys"][0]["verifier"]
    document["keys"][0][field] = value
    (tmp_path / FILE_NAME).write_text(json.dumps(document))
    with pytest.raises(KeyFileError, match="damaged") as caught:
        file.read()
    assert field in str(caught.value) or "name must be" in str(caught.value)
    assert verifier not in str(caught.value)
    accepted = Keyring(tmp_path, ()).current()
    assert (accepted.keys, accepted.required) == ((), True)


def test_limits_of_a_key_are_its_own(tmp_path: Path) -> None:
    """Null is the router's limit; none of a key's limits is overruled."""
    KeyFile(tmp_path).create("web", requests_per_minute=1)
    (key,) = Keyring(tmp_path, (), 600, 8).current().keys
    assert (key.requests_per_minute, key.concurrent_requests) == (1, 8)
    with pytest.raises(KeyFileError, match="greater than or equal to 1"):
        KeyFile(tmp_path).create("none", requests_per_minute=0)


def test_a_file_that_cannot_be_seen_opens_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder whose rights are gone is no folder without keys, and no failure of every
    request."""
    KeyFile(tmp_path).create("web")
    ring = Keyring(tmp_path, ())
    assert len(ring.current().keys) == 1

    def deny(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "stat", deny)
    monkeypatch.setattr(Path, "read_bytes", deny)
    assert (ring.current().keys, ring.current().required) == ((), True)
    monkeypatch.undo()
    assert len(ring.current().keys) == 1


@pytest.mark.parametrize("name", ["", "Web", "a b", "../x", "local", "x" * 33])
def test_odd_names_are_refused(tmp_path: Path, name: str) -> None:
    """A name stands in logs, headers and commands."""
    with pytest.raises(KeyFileError, match=r"^Cannot create the key: its name must be"):
        KeyFile(tmp_path).create(name)


def test_one_name_one_key(tmp_path: Path) -> None:
    """A second of the same name, and revoking what is not there, are errors."""
    keys = KeyFile(tmp_path)
    keys.create("web")
    with pytest.raises(KeyFileError, match="there is one named 'web'"):
        keys.create("web")
    with pytest.raises(KeyFileError, match="no such key"):
        keys.revoke("app")
    assert [key.id for key in keys.read()] == ["web"]


def test_two_commands_at_once_lose_nothing(tmp_path: Path) -> None:
    """Twenty keys made at a time are all there."""
    names = [f"k{i}" for i in range(20)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: KeyFile(tmp_path).create(name), names))
    assert sorted(key.id for key in KeyFile(tmp_path).read()) == sorted(names)


def test_who_is_served_in_words() -> None:
    """How many keys there are, and what to do where there is none and nobody is served."""
    for closed in (False, True):
        assert who_is_served(1, closed).startswith("1 key;")
        assert who_is_served(2, closed).startswith("2 keys;")
    assert "callme keys create NAME" in who_is_served(0, closed=True)
    assert who_is_served(0, closed=False).startswith("no key: programs of this machine are served")
