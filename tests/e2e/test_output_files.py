"""Files in outputs: URLs in Replicate's API, data: URIs in the app's and Cog's, stored once."""

from __future__ import annotations

import base64
import hashlib
import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.e2e.remote_boxes import front
from tests.e2e.service import Service, running_service
from tests.e2e.test_disk import DISK_BYTES, small_disk
from tests.e2e.test_replicate_api import completed
from tests.e2e.test_streaming import EVENTS, followed, outputs
from tests.e2e.webhook_receiver import webhook_receiver
from tests.waiting import wait_until

KEY = "0123456789abcdef0123456789abcdef"
WAIT = {"Prefer": "wait"}
ASYNC = {"Prefer": "respond-async"}
TEXT_URI = "data:text/plain;base64,a cat"  # no base64 follows: a text, and no file


@pytest.fixture(scope="module")
def service(file_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key."""
    state = tmp_path_factory.mktemp("outputs") / "state"
    env = {"CALLME_KEYS": f"team:{KEY}", "CALLME_ALLOW_PRIVATE_URLS": "true"}
    with running_service(file_packages, state, env) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        yield service


def painted(service: Service, **inputs: Any) -> dict[str, Any]:
    """A prediction of the painter's that has ended, as Replicate's API shows it."""
    body = {"input": inputs}
    answer = service.http.post("/v1/models/a/painter/predictions", json=body, headers=WAIT)
    assert answer.status_code == 201, answer.text
    prediction: dict[str, Any] = answer.json()
    assert prediction["status"] == "succeeded", prediction
    return prediction


def kept(state: Path) -> list[str]:
    """Names of the output files on the disk."""
    return sorted(p.name for p in (state / "outputs").iterdir())


def is_stored(state: Path) -> bool:
    """Whether the one prediction on the disk has ended."""
    with closing(sqlite3.connect(f"file:{state / 'predictions.sqlite3'}?mode=ro", uri=True)) as c:
        (document,) = c.execute("SELECT document FROM predictions").fetchone()
    return bool(json.loads(document)["status"] == "succeeded")


# ---- the three APIs ----------------------------------------------------------------------


def test_each_api_shows_them_its_way(service: Service) -> None:
    """URLs at once and later, in lists too; data: URIs for the app and for Cog, as before."""
    p = painted(service, text="a cat", layers=2)
    output = p["output"]
    urls = [output["picture"], *output["layers"]]
    assert [httpx.get(url).content for url in urls] == [b"a cat", b"a cat 0", b"a cat 1"]
    assert output["text"] == TEXT_URI
    url = f"/v1/predictions/{p['id']}"
    assert service.http.get(url).json()["output"] == output
    listed = service.http.get("/v1/predictions").json()["results"]
    assert next(q for q in listed if q["id"] == p["id"])["output"] == output
    inline = {
        "picture": "data:image/png;base64,YSBjYXQ=",
        "layers": ["data:text/plain;base64,YSBjYXQgMA==", "data:text/plain;base64,YSBjYXQgMQ=="],
        "text": TEXT_URI,
    }
    for path in (f"/predictions/{p['id']}", f"/models/painter/predictions/{p['id']}"):
        assert service.http.get(path).json()["output"] == inline
    made = service.http.post("/models/painter/predictions", json={"input": {}})
    assert made.json()["output"] == inline
    made = service.http.put("/models/painter/predictions/mine", json={"input": {}})
    assert made.json()["output"] == inline
    assert service.http.get("/models/painter/predictions/mine").json()["output"] == inline
    form = {"text": (None, "a cat")}
    assert service.http.post("/painter", files=form).json() == inline
    later = service.http.post("/painter", files=form, headers=ASYNC).json()
    wait_until(lambda: service.http.get(later["urls"]["get"]).json()["output"] == inline)


def test_what_a_download_says_of_itself(service: Service) -> None:
    """Type, length, a name to save it by, and that nothing in it may run."""
    url = painted(service, size_bytes=1 << 20)["output"]["picture"]
    assert url.partition("?")[0].endswith("/output-picture.png")
    answer = httpx.get(url)
    assert answer.content == bytes(range(256)) * 4096
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-length"] == str(1 << 20)
    assert answer.headers["content-disposition"] == 'inline; filename="output-picture.png"'
    assert "sandbox" in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert httpx.head(url).headers["content-length"] == str(1 << 20)
    for asked, status, content in (
        ("bytes=1-3", 206, b"\1\2\3"),
        ("bytes=-2", 206, b"\xfe\xff"),
        (f"bytes={(1 << 20) - 1}-", 206, b"\xff"),
        ("bytes=0-1,4-5", 200, answer.content),
        ("bytes=3-1", 200, answer.content),
        ("lines=1-3", 200, answer.content),
    ):
        part = httpx.get(url, headers={"Range": asked})
        assert (part.status_code, part.content) == (status, content), asked
    over = httpx.get(url, headers={"Range": f"bytes={1 << 20}-"})
    assert (over.status_code, over.json()["code"]) == (416, "range_not_satisfiable")


def test_a_page_as_an_output_runs_nothing(service: Service) -> None:
    """It is saved and not shown, and may run nothing where it is shown."""
    url = painted(service, text="<script>alert(1)</script>", suffix=".html")["output"]["picture"]
    answer = httpx.get(url)
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-security-policy"] == (
        "default-src 'none'; frame-ancestors 'none'; sandbox"
    )


def test_only_the_url_opens_it(service: Service) -> None:
    """No key is needed with its token, and none helps without."""
    p = painted(service, layers=1)
    picture, layer = p["output"]["picture"], p["output"]["layers"][0]
    bare, _, query = picture.partition("?")
    last = "0" if query[-1] != "0" else "1"
    for url in (bare, f"{bare}?{query[:-1]}{last}", f"{layer.partition('?')[0]}?{query}"):
        for headers in ({}, {"Authorization": f"Bearer {KEY}"}):
            answer = httpx.get(url, headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (401, "unauthorized")
    assert httpx.get(picture.replace(p["id"], "0" * 32)).status_code == 401


def test_an_upload_is_read_by_its_holder(service: Service) -> None:
    """`files.download` gives the content; without the key nobody gets it."""
    made = service.http.post("/v1/files", files={"content": ("a é.txt", b"hello", "text/plain")})
    url = f"{made.json()['urls']['get']}/download?expiry=1&owner=x&signature=y"
    answer = service.http.get(url)
    assert (answer.content, answer.headers["content-type"]) == (
        b"hello",
        "text/plain; charset=utf-8",
    )
    assert answer.headers["content-disposition"] == "attachment; filename*=utf-8''a%20%C3%A9.txt"
    assert httpx.get(url).status_code == 401
    service.http.delete(made.json()["urls"]["get"])


# ---- streams and webhooks ----------------------------------------------------------------


def test_a_stream_of_files(service: Service) -> None:
    """Each element is a URL, the same in the stream, while it runs and at the end."""
    path = "/v1/models/a/gallery/predictions"
    p = service.http.post(path, json={"input": {"count": 3, "delay_s": 0.2}}).json()
    stream = p["urls"]["stream"]
    events = followed(stream)
    urls = outputs(events)
    assert [httpx.get(url).content for url in urls] == [b"picture %d" % i for i in range(3)]
    ended = wait_until(
        lambda: (q := service.http.get(p["urls"]["get"]).json())["status"] == "succeeded" and q
    )
    assert ended["output"] == urls
    assert outputs(followed(stream)) == urls
    assert httpx.get(stream.partition("?")[0]).status_code == 401
    slow = service.http.post(path, json={"input": {"count": 2, "delay_s": 20}}).json()
    with httpx.stream("GET", slow["urls"]["stream"], headers=EVENTS, timeout=240) as response:
        line = next(line for line in response.iter_lines() if line.startswith("data: http"))
        assert httpx.get(line.removeprefix("data: ")).content == b"picture 0"
        assert service.http.get(slow["urls"]["get"]).json()["output"] == [line[6:]]
        service.http.post(slow["urls"]["cancel"])
    ended = wait_until(
        lambda: (q := service.http.get(slow["urls"]["get"]).json())["status"] == "canceled" and q
    )
    assert httpx.get(ended["output"][0]).content == b"picture 0"


def test_a_stream_that_fails(service: Service) -> None:
    """What it had put out before stays."""
    body = {"input": {"count": 1, "end": "raise"}}
    path = "/v1/models/a/gallery/predictions"
    p = service.http.post(path, json=body, headers=WAIT).json()
    assert p["status"] == "failed"
    assert [httpx.get(url).content for url in p["output"]] == [b"picture 0"]


def test_cogs_stream_is_as_before(service: Service) -> None:
    """Chunks are data: URIs there, as coglet's are."""
    url = "data:image/png;base64," + base64.b64encode(b"picture 0").decode()
    body = {"input": {"count": 1}}
    for path in ("/models/gallery/predictions", "/models/gallery/predictions/once"):
        method = "PUT" if path.endswith("once") else "POST"
        for _ in range(2):
            answer = service.http.request(method, path, json=body, headers=EVENTS)
            assert answer.text.count(url) == 2, answer.text  # a chunk, and the end's output


def test_webhooks(service: Service) -> None:
    """As the API shows them that the prediction was made by."""
    with webhook_receiver() as inbox:
        told = {"webhook": inbox.url, "webhook_events_filter": ["output", "completed"]}
        body = {"input": {"layers": 0}, **told}
        p = service.http.post("/v1/models/a/painter/predictions", json=body).json()
        for hook in completed(inbox, p["id"]):
            assert httpx.get(hook["output"]["picture"]).content == b"a cat"
        p = service.http.post("/models/painter/predictions", json=body).json()
        for hook in completed(inbox, p["id"]):
            assert hook["output"] == p["output"]
            assert hook["output"]["picture"].startswith("data:image/png;base64,")


# ---- as inputs, and on other boxes -------------------------------------------------------


def test_an_output_is_an_input(service: Service) -> None:
    """Of any model and in any API, under any name of the box; a forged URL is not taken."""
    url = painted(service, text="from one to another")["output"]["picture"]
    elsewhere = url.replace(service.url, "https://tunnel.invalid")
    sha256 = hashlib.sha256(b"from one to another").hexdigest()
    for given in (url, elsewhere):
        answer = service.http.post("/models/echo/predictions", json={"input": {"file": given}})
        assert answer.json()["output"]["file_sha256"] == sha256
        assert answer.json()["output"]["file_suffix"] == ".png"
        assert service.http.post("/echo", files={"file": (None, given)}).json()["file_bytes"] == 19
    forged = elsewhere.rpartition("=")[0] + "=" + "0" * 32
    answer = service.http.post("/models/echo/predictions", json={"input": {"file": forged}})
    assert answer.status_code == 422
    assert service.spooled() == []


def test_outputs_of_another_box(service: Service, tmp_path: Path) -> None:
    """A router whose model runs on this one through Replicate's API fetches them."""
    toml = f"""
[models.far]
backend = "replicate"
[models.far.remote]
url = "{service.url}"
model = "callme/painter"
key = "{KEY}"
"""
    with front(tmp_path, toml) as far:
        body = {"input": {"text": "from afar", "layers": 1}}
        p = far.http.post("/v1/models/a/far/predictions", json=body, headers=WAIT).json()
        urls = [p["output"]["picture"], *p["output"]["layers"]]
        assert all(url.startswith(far.url) for url in urls)
        assert [httpx.get(url).content for url in urls] == [b"from afar", b"from afar 0"]
        assert httpx.get(urls[0]).headers["content-type"] == "image/png"
        made = far.http.post("/far", files={"text": (None, "from afar"), "layers": (None, "0")})
        assert made.json()["picture"] == "data:image/png;base64,ZnJvbSBhZmFy"


# ---- on the disk -------------------------------------------------------------------------


def test_rows_are_small_and_links_survive_kill_9(file_packages: Path, tmp_path: Path) -> None:
    """Not the database but files hold what models put out; a restart finds them, and deletes
    what belongs to no result; swept results take theirs with them."""
    state = tmp_path / "state"
    with running_service(file_packages, state) as service:
        p = painted(service, size_bytes=4 << 20, layers=0)
        wait_until(lambda: is_stored(state))  # the answer comes before its row is written
        assert len(kept(state)) == 1
        service.child.kill()
        service.child.wait()
    (state / "outputs" / f"{'0' * 32}.stranger.png").write_bytes(b"x")
    rows = sqlite3.connect(state / "predictions.sqlite3").execute(
        "SELECT length(document) FROM predictions"
    )
    assert [size < 4096 for (size,) in rows] == [True]
    with running_service(file_packages, state) as service:
        moved = p["output"]["picture"].partition("/v1/")[2]
        assert len(service.http.get(f"/v1/{moved}").content) == 4 << 20
        shown = service.http.get(f"/predictions/{p['id']}").json()["output"]["picture"]
        assert len(shown) > 5 << 20
        assert len(kept(state)) == 1
    with running_service(file_packages, state, {"CALLME_KEEP_RESULTS_S": "0.001"}) as service:
        wait_until(lambda: kept(state) == [])
        answer = service.http.get(f"/v1/{moved}")
        assert (answer.status_code, answer.json()["status"]) == (404, 404)


def test_rows_of_an_earlier_version(file_packages: Path, tmp_path: Path) -> None:
    """A result that was written with its files in the row is shown with URLs, and the row is
    written again without them."""
    state = tmp_path / "state"
    with running_service(file_packages, state) as service:
        p = painted(service, layers=0)
        wait_until(lambda: len(kept(state)) == 1)
    with sqlite3.connect(state / "predictions.sqlite3") as database:
        (row,) = database.execute("SELECT document FROM predictions").fetchone()
        document = json.loads(row)
        del document["output_files"]
        document["output"]["picture"] = "data:image/png;base64," + "QUJD" * 10_000
        encoded = json.dumps(document).encode()
        database.execute("UPDATE predictions SET document = ?", (encoded,))
    database.close()
    with running_service(file_packages, state) as service:
        path = f"/v1/predictions/{p['id']}"
        urls = {service.http.get(path).json()["output"]["picture"] for _ in range(3)}
        assert [httpx.get(url).content for url in urls] == [b"ABC" * 10_000]
        shown = service.http.get(f"/predictions/{p['id']}").json()["output"]["picture"]
        assert shown == "data:image/png;base64," + "QUJD" * 10_000


def test_a_full_disk(file_packages: Path, tmp_path: Path) -> None:
    """The output is shown as a data: URI, and no half of a file stays."""
    (tmp_path / "state").mkdir()
    with (
        small_disk(tmp_path / "state" / "outputs") as disk,
        running_service(file_packages, tmp_path / "state") as service,
    ):
        painted(service, layers=0)
        before = kept(tmp_path / "state")
        (disk / "ballast").write_bytes(bytes(DISK_BYTES - (1 << 20)))
        p = painted(service, size_bytes=4 << 20, layers=0)
        assert p["output"]["picture"].startswith("data:image/png;base64,")
        assert kept(tmp_path / "state") == sorted([*before, "ballast"])
        (disk / "ballast").unlink()

        def moved() -> str | None:
            output = service.http.get(f"/v1/predictions/{p['id']}").json()["output"]
            shown: str = output["picture"]
            return shown if shown.startswith("http") else None

        assert len(httpx.get(wait_until(moved)).content) == 4 << 20
