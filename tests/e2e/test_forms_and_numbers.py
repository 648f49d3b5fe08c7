"""What a form or a JSON body says is what arrives at the model, in type, value and order."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.e2e.service import Service, running_service
from tests.package_copies import packages_in

PREDICTIONS = "/models/mirror/predictions"
BIG, BIGGER = 2**63 - 1, 2**64 - 1


@pytest.fixture(scope="module")
def mirror(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a model that says what arrived."""
    folder = tmp_path_factory.mktemp("mirror")
    packages = packages_in(folder / "packages", "mirror")
    with running_service(packages, folder / "state") as service:
        yield service


def values(output: dict[str, Any]) -> dict[str, Any]:
    """What arrived, as it was."""
    seen: dict[str, Any] = ast.literal_eval(output["values"])
    return seen


def post_form(mirror: Service, *parts: tuple[str, Any]) -> httpx.Response:
    """A multipart form."""
    return mirror.http.post("/mirror", files=list(parts))


def post_json(mirror: Service, text: str) -> httpx.Response:
    """The inputs as JSON text, so that numbers are written as the test has them."""
    return mirror.http.post(
        PREDICTIONS,
        content=f'{{"input": {text}}}',
        headers={"content-type": "application/json"},
    )


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("whole", str(BIG), BIG),
        ("whole", str(BIGGER), BIGGER),
        ("whole", str(-(2**63)), -(2**63)),
        ("whole", "0" * 40 + "7", 7),
        ("either", "0.5", 0.5),
        ("either", "half", "half"),
        ("settings", '{"a": [1, 2.5]}', {"a": [1, 2.5]}),
    ],
)
def test_a_forms_text(mirror: Service, name: str, text: str, wanted: Any) -> None:
    """Integers of any length that a runner can get; text where nothing else fits."""
    answer = post_form(mirror, (name, (None, text)))
    assert answer.status_code == 200, answer.text
    assert repr(values(answer.json())[name]) == repr(wanted)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("whole", "18446744073709551616", "must be from -9223372036854775808"),
        ("whole", "9" * 3000, "must be a whole number"),
        ("at_most", "9223372036854775807", "must be at most 1000"),
        ("at_most", "99999999999999999999999", "must be at most 1000"),
        ("whole", "2.0", "must be a whole number"),
    ],
)
def test_a_forms_number_that_does_not_fit(mirror: Service, name: str, text: str, why: str) -> None:
    """Refused with the limit, never bent."""
    answer = post_form(mirror, (name, (None, text)))
    assert (answer.status_code, answer.json()["error"]["code"]) == (422, "invalid_input")
    assert why in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    ("name", "text", "wanted"),
    [
        ("whole", "2.0", 2),
        ("whole", "1e3", 1000),
        ("whole", str(BIGGER), BIGGER),
        ("whole", str(-(2**63)), -(2**63)),
        ("wholes", "[1.0, 2, 3e0]", [1, 2, 3]),
        ("wholes", f"[{BIGGER}]", [BIGGER]),
        ("number", "18446744073709551616", 2.0**64),
        ("number", "2.0", 2.0),
        ("settings", f'{{"a": [{BIGGER}, 2.0]}}', {"a": [BIGGER, 2.0]}),
    ],
)
def test_a_number_in_json(mirror: Service, name: str, text: str, wanted: Any) -> None:
    """A whole number for an integer arrives as an int."""
    answer = post_json(mirror, f'{{"{name}": {text}}}')
    assert answer.status_code == 200, answer.text
    assert repr(values(answer.json()["output"])[name]) == repr(wanted)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("whole", "18446744073709551616"),
        ("whole", "-9223372036854775809"),
        ("whole", "1e19"),
        ("whole", "2.5"),
        ("wholes", "[18446744073709551616]"),
        ("settings", '{"a": {"b": 18446744073709551616}}'),
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "replicate"])
def test_a_number_in_json_that_cannot_be_passed_on(
    mirror: Service, name: str, text: str, method: str
) -> None:
    """Refused rather than turned into its neighbour among the floats, in both JSON APIs."""
    path = f"{PREDICTIONS}/some-id" if method == "PUT" else PREDICTIONS
    path = "/v1/models/callme/mirror/predictions" if method == "replicate" else path
    answer = mirror.http.request(
        "PUT" if method == "PUT" else "POST",
        path,
        content=f'{{"input": {{"{name}": {text}}}}}',
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 422, answer.text
    assert name in answer.text


def test_files_and_texts_of_a_list_keep_their_order(mirror: Service) -> None:
    """Uploads, data: URIs and an untouched file field."""
    answer = post_form(
        mirror,
        ("files", ("a.txt", b"1")),
        ("files", (None, "data:,2")),
        ("files", ("b.txt", b"3")),
        ("files", (None, '["data:,4", "data:,5"]')),
        ("files", (None, "")),
    )
    assert answer.status_code == 200, answer.text
    assert answer.json()["files"] == ["1", "2", "3", "4", "5"]
    assert mirror.spooled() == []


def test_what_a_browser_sends_for_an_untouched_file_field(mirror: Service) -> None:
    """It is not given."""
    body = (
        b'--b\r\nContent-Disposition: form-data; name="file"; filename=""\r\n'
        b"Content-Type: application/octet-stream\r\n\r\n\r\n"
        b"--b\r\nContent-Disposition: form-data; name=\"files\"; filename*=UTF-8''n%C3%A4.txt\r\n"
        b"\r\nhello\r\n--b--\r\n"
    )
    headers = {"content-type": "multipart/form-data; boundary=b"}
    answer = mirror.http.post("/mirror", content=body, headers=headers)
    assert (answer.status_code, answer.json()["files"]) == (200, ["hello"])


def test_a_large_file_in_json(mirror: Service) -> None:
    """As a data: URI with escapes and percent signs; PUT again, it is the same one; the text of a
    data: URI for an input that takes none is a text."""
    text = "".join(chr(33 + i % 90) + "é/" for i in range(100_000))
    uri = "data:text/plain;charset=utf-8," + text.replace("%", "%25")
    body = json.dumps({"input": {"file": uri, "either": "data:,x" + "y" * 200_000}})
    body = body.replace("/", "\\/")
    headers = {"content-type": "application/json"}
    path = f"{PREDICTIONS}/{hashlib.sha256(body.encode()).hexdigest()[:32]}"
    answer = mirror.http.put(path, content=body, headers=headers)
    assert answer.status_code == 200, answer.text
    assert answer.json()["output"]["files"] == [text]
    assert values(answer.json()["output"])["either"] == "data:,x" + "y" * 200_000
    again = mirror.http.put(path, content=body, headers=headers)
    assert (again.status_code, again.json()) == (200, answer.json())
    other = mirror.http.put(path, content=body.replace("!\\u00e9", "?\\u00e9"), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "id_conflict")
    assert mirror.spooled() == []


@pytest.mark.parametrize("path", ["/mirror", PREDICTIONS, "/v1/predictions"])
def test_a_compressed_body(mirror: Service, path: str) -> None:
    """Refused by every API, whatever is in it."""
    answer = (
        mirror.http.post(
            path, json={}, headers={"content-encoding": "gzip", "content-type": "application/json"}
        )
        if path != "/mirror"
        else mirror.http.post(
            path, files={"either": (None, "x")}, headers={"content-encoding": "gzip"}
        )
    )
    assert answer.status_code == 415, answer.text
    assert "Content-Encoding" in answer.text
