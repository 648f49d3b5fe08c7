"""Files of results in an S3 store: a real server, the real router, and plain clients."""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from replicate.client import Client

from tests.e2e.page_visits import visit
from tests.e2e.s3_server import KEY_ID, SECRET, S3Server
from tests.e2e.service import ROOT, Service, Tls, running_service
from tests.e2e.test_output_files import KEY, WAIT, kept, painted
from tests.waiting import wait_until

OTHER_KEY = "fedcba9876543210fedcba9876543210"
KEYS = {"CALLME_KEYS": f"team:{KEY},others:{OTHER_KEY}"}
BEARER = {"Authorization": f"Bearer {KEY}"}
CONTENT = b"a cat"
URI = "data:image/png;base64,YSBjYXQ="


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A store that answers."""
    server = S3Server(tmp_path_factory.mktemp("s3") / "objects")
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def service(
    file_packages: Path, s3: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A router with that store."""
    state = tmp_path_factory.mktemp("moved") / "state"
    env = {**KEYS, **s3.settings(prefix="team/results"), "CALLME_RESULT_STORE__URL_LIFETIME_S": "2"}
    with running_service(file_packages, state, env) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        yield service


def moved(service: Service, **inputs: Any) -> dict[str, Any]:
    """A prediction whose files are no longer on the disk."""
    p = painted(service, **inputs)
    wait_until(lambda: kept(service.state) == [])
    return p


def store_view(service: Service) -> dict[str, Any]:
    """The store's part of /status, as this machine's own programs see it."""
    local = {"Authorization": f"Bearer {(service.state / 'local_key').read_text()}"}
    view: dict[str, Any] = service.http.get("/status", headers=local).json()["result_store"]
    return view


def test_the_link_leads_to_a_signed_url(service: Service, s3: S3Server) -> None:
    """The link of Replicate's API stays the same; it redirects to a URL of the store, which gives
    the file to a plain client, whole or a range of it, and expires."""
    p = moved(service, layers=1)
    link = p["output"]["picture"]
    assert link.startswith(f"{service.url}/v1/outputs/")
    again = service.http.get(f"/v1/predictions/{p['id']}").json()["output"]
    assert again == p["output"]
    answer = httpx.get(link)
    signed = answer.headers["location"]
    assert answer.status_code == 307
    assert signed.startswith(f"{s3.url}/results/team/results/")
    file = httpx.get(signed)
    assert (file.content, file.headers["content-type"]) == (CONTENT, "image/png")
    assert file.headers["content-disposition"] == 'inline; filename="output-picture.png"'
    part = httpx.get(link, headers={"Range": "bytes=2-"}, follow_redirects=True)
    assert (part.status_code, part.content) == (206, b"cat")
    head = httpx.head(link, follow_redirects=True)
    assert (head.status_code, head.headers["content-length"]) == (200, "5")
    wait_until(lambda: httpx.get(signed).status_code == 403)
    assert httpx.get(link, follow_redirects=True).content == CONTENT
    through = httpx.get(f"{link}&through=router")
    assert (through.status_code, through.content) == (200, CONTENT)
    layer = httpx.get(p["output"]["layers"][0], follow_redirects=True)
    assert layer.content == b"a cat 0"


def test_a_client_that_sends_a_key_gets_the_file(service: Service) -> None:
    """The store must not get the key, and refuses a URL that comes with one."""
    link = moved(service, layers=0, size_bytes=6 << 20)["output"]["picture"]
    content = bytes(range(256)) * (6 << 12)
    answer = httpx.get(link, headers=BEARER)
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-disposition"] == 'inline; filename="output-picture.png"'
    assert "sandbox" in answer.headers["content-security-policy"]
    for asked, status, expected in (
        ("bytes=1-3", 206, content[1:4]),
        ("bytes=-2", 206, content[-2:]),
        (f"bytes={(6 << 20) - 1}-", 206, content[-1:]),
        (f"bytes={5 << 20}-{(6 << 20) + 9}", 206, content[5 << 20 :]),
        ("bytes=0-1,4-5", 200, content),
    ):
        part = httpx.get(link, headers={**BEARER, "Range": asked})
        assert (part.status_code, part.content) == (status, expected), asked
    assert part.headers["content-length"] == str(6 << 20)
    over = httpx.get(link, headers={**BEARER, "Range": f"bytes={6 << 20}-"})
    assert over.status_code == 416
    head = httpx.head(link, headers=BEARER)
    assert (head.headers["content-length"], head.content) == (str(6 << 20), b"")


def test_the_other_apis_and_inputs(service: Service) -> None:
    """data: URIs for the app and for Cog, and a link that is an input, as from the disk."""
    p = moved(service, layers=0)
    for path in (f"/predictions/{p['id']}", f"/models/painter/predictions/{p['id']}"):
        assert service.http.get(path).json()["output"]["picture"] == URI
    body = {"input": {"file": p["output"]["picture"]}}
    answer = service.http.post("/models/echo/predictions", json=body)
    assert answer.json()["output"]["file_sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert service.spooled() == []
    assert kept(service.state) == []


def test_holders_stay_apart(service: Service) -> None:
    """Another key does not find the prediction, no link works without its token, and a signed URL
    opens one file."""
    p = moved(service, layers=1)
    other = {"Authorization": f"Bearer {OTHER_KEY}"}
    for path in ("/v1/predictions/", "/predictions/"):
        assert service.http.get(f"{path}{p['id']}", headers=other).status_code == 404
    link, layer = p["output"]["picture"], p["output"]["layers"][0]
    for headers in ({}, other, BEARER):
        assert httpx.get(link.partition("?")[0], headers=headers).status_code == 401
    one, two = (httpx.get(url).headers["location"] for url in (link, layer))
    mixed = f"{two.partition('?')[0]}?{one.partition('?')[2]}"
    assert httpx.get(mixed).status_code == 403


def test_deleted_with_its_prediction(service: Service, s3: S3Server) -> None:
    """Nothing of it stays in the store."""
    p = moved(service, layers=2)
    mine = [name for name in s3.objects() if name.startswith(p["id"])]
    assert len(mine) == 3
    assert service.http.delete(f"/predictions/{p['id']}").status_code == 204
    wait_until(lambda: not [name for name in s3.objects() if name.startswith(p["id"])])
    assert httpx.get(p["output"]["picture"]).status_code == 404


def test_no_secret_is_shown(service: Service) -> None:
    """Neither in the log nor in /status."""
    moved(service, layers=0)
    assert store_view(service) == {"waiting": 0}
    local = {"Authorization": f"Bearer {(service.state / 'local_key').read_text()}"}
    shown = service.log() + service.http.get("/status", headers=local).text
    assert SECRET not in shown
    assert KEY_ID not in shown
    assert "X-Amz-Signature" not in shown


@pytest.mark.parametrize(("signed", "status"), [("true", 307), ("false", 200)])
def test_pypis_client(
    file_packages: Path,
    s3: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    signed: str,
    status: int,
) -> None:
    """It sends its key and follows no redirect, and reads a moved file either way. With
    `signed_urls` false no client needs to reach the store."""
    tls = Tls.make(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    state = tmp_path / "state"
    env = {**KEYS, **s3.settings(signed_urls=signed)}
    with running_service(file_packages, state, env, tls=tls) as service:
        client = Client(api_token=KEY, base_url=service.url)
        output: Any = client.run("acme/painter", input={"text": "read me", "layers": 0})
        wait_until(lambda: kept(state) == [])
        assert output["picture"].read() == b"read me"
        context = ssl.create_default_context(cafile=tls.authority)
        assert httpx.get(output["picture"].url, verify=context).status_code == status


def test_the_boxs_own_page(file_packages: Path, s3: S3Server, tmp_path: Path) -> None:
    """It shows moved files, and asks no other host for anything."""
    with running_service(file_packages, tmp_path / "state", s3.settings()) as service:
        p = moved(service, layers=1)
        files = visit(service.url, tmp_path / "visit", "ended", id=p["id"])["result"]
    assert {(status, redirected) for status, redirected, _ in files} == {(200, False)}
    assert {content for _, _, content in files} == {"a cat", "a cat 0"}


def test_down_at_the_end_and_back_after_a_restart(file_packages: Path, tmp_path: Path) -> None:
    """The result is announced and read from the disk while the store is down; kill -9; the next
    router moves it when the store is back. What a crash left in the store is deleted, and so is
    what is swept."""
    s3 = S3Server(tmp_path / "objects")
    state = tmp_path / "state"
    env = {**KEYS, **s3.settings()}
    with running_service(file_packages, state, env) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        p = painted(service, layers=1)
        link = p["output"]["picture"].removeprefix(service.url)
        wait_until(lambda: store_view(service)["waiting"] == 1)
        wait_until(lambda: store_view(service).get("problem"))
        assert "result_store.endpoint" in service.log()
        assert service.http.get("/ready").status_code == 200
        assert httpx.get(service.url + link).content == CONTENT
        assert len(kept(state)) == 2
        service.child.kill()
        service.child.wait()
    s3.start()
    try:
        with running_service(file_packages, state, env) as service:
            service.http.headers["authorization"] = f"Bearer {KEY}"
            wait_until(lambda: len(s3.objects()) == 2 and kept(state) == [])
            assert httpx.get(service.url + link, follow_redirects=True).content == CONTENT
            s3.stop()
            answer = service.http.get(f"/predictions/{p['id']}")
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "result_store_failed"
            assert "retry-after" in answer.headers
            assert s3.url not in answer.text
            s3.start()
            assert service.http.get(f"/predictions/{p['id']}").json()["output"]["picture"] == URI
            second = moved(service, layers=0)
            service.child.kill()
            service.child.wait()
        with contextlib.closing(sqlite3.connect(state / "predictions.sqlite3")) as database:
            database.execute("DELETE FROM predictions WHERE id = ?", (second["id"],))
            database.commit()
        assert len(s3.objects()) == 3
        with running_service(file_packages, state, env):
            wait_until(lambda: len(s3.objects()) == 2)
            assert all(name.startswith(p["id"]) for name in s3.objects())
        with running_service(file_packages, state, {**env, "CALLME_KEEP_RESULTS_S": "0.001"}):
            wait_until(lambda: s3.objects() == [])
    finally:
        s3.stop()


@pytest.mark.parametrize(
    ("wrong", "setting"),
    [
        ({"bucket": "another"}, "result_store.bucket"),
        ({"secret_access_key": "not-the-secret"}, "result_store.secret_access_key"),
        ({"access_key_id": "NOTTHEKEY"}, "result_store.access_key_id"),
    ],
)
def test_a_wrong_setting(
    file_packages: Path, s3: S3Server, tmp_path: Path, wrong: dict[str, str], setting: str
) -> None:
    """The box serves, and says which setting to look at; so does `callme doctor`."""
    env = {**KEYS, **s3.settings(**wrong)}
    with running_service(file_packages, tmp_path / "state", env) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        wait_until(lambda: setting in service.log())
        assert setting in store_view(service)["problem"]
        body = {"input": {"file": "data:text/plain;base64,aGk="}}
        assert (
            service.http.post("/models/echo/predictions", json=body, headers=WAIT).json()["output"][
                "file_bytes"
            ]
            == 2
        )
        assert "not-the-secret" not in service.log()
    told = doctor(file_packages, tmp_path / "state", env)
    assert setting in told
    assert "not-the-secret" not in told


def test_doctor_says_that_it_answers(file_packages: Path, s3: S3Server, tmp_path: Path) -> None:
    """It writes a file, reads it and deletes it."""
    before = s3.objects()
    told = doctor(file_packages, tmp_path / "state", s3.settings())
    assert f"result store: bucket 'results' at {s3.url}" in told
    assert s3.objects() == before


def doctor(packages: Path, state: Path, env: dict[str, str]) -> str:
    """What `callme doctor` prints."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("CALLME_")}
    more = {"CALLME_PACKAGES_DIR": str(packages), "CALLME_STATE_DIR": str(state), **env}
    done = subprocess.run(
        [sys.executable, "-m", "router.cli", "doctor"],
        cwd=ROOT,
        env={**clean, **more},
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    return done.stdout + done.stderr
