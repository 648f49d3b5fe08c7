"""A package that the router has never heard of is served like every other."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.service import ROOT, Service


def test_a_folder_with_a_cog_yaml_is_an_endpoint(echo: Service) -> None:
    """Text parts are converted by the schema, the output is the model's own JSON."""
    answer = echo.http.post("/echo", files={"text": (None, "hi"), "number": (None, "0.25")})
    assert answer.status_code == 200, answer.text
    assert answer.json()["text"] == "hi"
    assert answer.json()["number"] == 0.25
    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["x-prediction-id"])


def test_the_router_names_no_model() -> None:
    """The words fluency, sketch2real and grounding stand nowhere in router/."""
    for path in (ROOT / "router").rglob("*.py"):
        assert not re.search(r"fluency|sketch2real|grounding", path.read_text()), path


def test_an_upload_reaches_the_runner_as_a_path(echo: Service) -> None:
    """The bytes arrive unchanged, with the client's suffix, and leave nothing in the spool."""
    body = bytes(range(256)) * 4096
    answer = echo.http.post("/echo", files={"file": ("some photo.PNG", body)})
    assert answer.status_code == 200, answer.text
    assert answer.json()["file_bytes"] == len(body)
    assert answer.json()["file_sha256"] == hashlib.sha256(body).hexdigest()
    assert answer.json()["file_suffix"] == ".png"
    assert echo.spooled() == []


def test_a_data_uri_is_a_file_too(echo: Service) -> None:
    """A text part with a data: URI fills a file input."""
    answer = echo.http.post("/echo", files={"file": (None, "data:text/plain;base64,aGVsbG8")})
    assert answer.json()["file_sha256"] == hashlib.sha256(b"hello").hexdigest()


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ({"number": (None, "abc")}, 422, "invalid_input"),
        ({"number": (None, "1.5")}, 422, "invalid_input"),
        ({"number": (None, "nan")}, 422, "invalid_input"),
        ({"mode": (None, "sing")}, 422, "invalid_input"),
        ({"nosuch": (None, "1")}, 422, "invalid_input"),
        ({"text": ("a.txt", b"a file")}, 422, "invalid_input"),
        ({"file": (None, "/etc/passwd")}, 422, "invalid_input"),
        ({"file": (None, "file:///etc/passwd")}, 422, "invalid_input"),
        ({"file": (None, "http://127.0.0.1:1/x")}, 422, "invalid_input"),
        ({"file": (None, "http://169.254.169.254/latest")}, 422, "invalid_input"),
        ({"file": (None, "http://spool.callme.invalid/x")}, 422, "invalid_input"),
        ({"mode": (None, "invalid")}, 422, "invalid_input"),
        ({"mode": (None, "raise")}, 500, "prediction_failed"),
    ],
)
def test_bad_input_is_told_in_the_one_shape(
    echo: Service, parts: dict[str, object], status: int, code: str
) -> None:
    """A status, a code and a message; no path, no stack trace, nothing left in the spool."""
    answer = echo.http.post("/echo", files=parts)  # type: ignore[arg-type]
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert error["code"] == code
    assert error["message"]
    assert "Traceback" not in answer.text
    assert str(Path.home().anchor + "tmp") not in answer.text
    assert echo.spooled() == []


def test_unknown_models_and_methods(echo: Service) -> None:
    """404 and 405 in the one shape."""
    missing = echo.http.post("/nosuch", files={"a": (None, "b")})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "unknown_model")
    document = echo.http.get("/models/nosuch/openapi.json")
    assert document.json()["error"]["code"] == "unknown_model"
    assert "base URL" not in document.json()["error"]["message"]  # nothing of Replicate's API
    wrong = echo.http.get("/echo")
    assert (wrong.status_code, wrong.json()["error"]["code"]) == (405, "method_not_allowed")
    deep = echo.http.get("/no/such/path")
    assert (deep.status_code, deep.json()["error"]["code"]) == (404, "not_found")


def test_bodies_that_are_not_forms(echo: Service) -> None:
    """Other media types, broken forms, early ends and missing boundaries are the client's fault."""
    plain = echo.http.post("/echo", content=b"x", headers={"content-type": "text/plain"})
    assert plain.status_code == 415
    with_boundary = "multipart/form-data; boundary=b"
    for kind, body in (
        ("multipart/form-data", b"x"),
        (with_boundary, b"garbage"),
        (with_boundary, b""),
        ("multipart/form-data; boundary=b", b'--b\r\nContent-Disposition: form-data; name="text"'),
        (
            "multipart/form-data; boundary=b",
            b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
        ),
    ):
        answer = echo.http.post("/echo", content=body, headers={"content-type": kind})
        assert answer.status_code == 400, (kind, body, answer.text)
        assert answer.json()["error"]["code"] == "malformed_request"
    assert echo.spooled() == []


def test_too_large_is_refused_while_it_is_read(echo: Service) -> None:
    """25 MiB is the limit, also for a body that does not say how long it is."""
    big = b"\0" * (26 << 20)
    declared = echo.http.post("/echo", files={"file": ("big.bin", big)})
    assert (declared.status_code, declared.json()["error"]["code"]) == (413, "payload_too_large")

    def undeclared() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\n'
        for _ in range(26):
            yield b"\0" * (1 << 20)

    try:
        answer = echo.http.post(
            "/echo",
            content=undeclared(),
            headers={"content-type": "multipart/form-data; boundary=b"},
        )
        assert answer.status_code == 413
    except httpx.WriteError:
        pass  # the server closed while we still sent; what counts is that nothing stays
    assert echo.spooled() == []


def test_openapi_shows_the_models_real_inputs(echo: Service) -> None:
    """The form of /echo in /openapi.json has the runner's own fields; /docs is a page."""
    document = echo.http.get("/openapi.json").json()
    form = document["components"]["schemas"]["echo.Form"]["properties"]
    assert form["number"]["maximum"] == 1
    assert form["file"]["format"] == "binary"
    assert "text/html" in echo.http.get("/docs").headers["content-type"]


def test_health_ready_status(echo: Service) -> None:
    """The operator's three questions."""
    assert echo.http.get("/health").json() == {"status": "ok"}
    assert echo.http.get("/ready").json()["ready"] is True
    view = echo.model("echo")
    assert view["state"] in ("ready", "busy")
    assert view["memory_bytes"] > 0
