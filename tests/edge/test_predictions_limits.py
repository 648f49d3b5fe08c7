"""What the functions take, however large or strange: results, files, references, inputs."""

from __future__ import annotations

import json
from typing import Any

import pytest
from box import JSON, Answer

pytest.importorskip("psycopg", reason="needs psycopg: run `make setup`")

from test_predictions import A, App, accepted, app, running, upload

__all__ = ["app", "running"]


@pytest.mark.parametrize("size", [1_500_000, 3_000_000, 9_000_000])
def test_a_result_that_no_row_takes_ends_it(app: App, size: int) -> None:
    """Whether the database refuses it, or the function does not parse or even read it."""
    row = app.run()
    event = {"id": row["id"], "status": "succeeded", "at": 1, "output": "x" * size}
    assert app.report(event).status_code == 204
    (ended,) = app.project.rows()
    assert (ended["status"], ended["error_code"]) == ("failed", "output_too_large")


def test_a_body_too_large_to_read_can_only_fail_its_own_row(app: App) -> None:
    """Its signature is not checked, so the URL's token alone says whose row it ends."""
    row, other = app.run(), app.run()
    event = {"id": other["id"], "status": "succeeded", "at": 1, "output": "x" * 9_000_000}
    body = json.dumps(event).encode()
    url = app.webhook_url(row["id"])
    forged = url[:-1] + ("0" if url[-1] != "0" else "1")
    assert app.http.post(forged, content=body).status_code == 401
    assert {r["status"] for r in app.project.rows()} == {"starting"}
    assert app.http.post(url, content=body).status_code == 204
    ended = {r["id"]: (r["status"], r["error_code"], r["output"]) for r in app.project.rows()}
    assert ended[row["id"]] == ("failed", "output_too_large", None)
    assert ended[other["id"]] == ("starting", None, None), "the id in the body counts for nothing"


@pytest.mark.parametrize(
    ("files", "code", "words"),
    [
        ([{"name": f"{i}.png"} for i in range(101)], "output_too_large", "101 files"),
        ([{"name": f"{i}.png"} for i in range(26)], "result_refused", "25 at a time"),
        ([{"name": "good.png"}, {"name": "a/../b.png"}], "result_refused", '"a/../b.png"'),
        ([{"name": None}], "result_refused", "null"),
        ([{"name": "\U0001f436" * 300}], "result_refused", "\U0001f436"),
        ([{"name": ["x"]}], "result_refused", '["x"]'),
        ([None], "result_refused", "null"),
        (["x"], "result_refused", "null"),
    ],
)
def test_files_that_cannot_be_kept_end_the_row(
    app: App, files: list[Any], code: str, words: str
) -> None:
    """A row never names a file that is not in Storage. It says which name or number is wrong."""
    row = app.run()
    asked = app.report({"id": row["id"], "event": "files", "files": files})
    assert (asked.status_code, asked.json()) == (200, {"uploads": {}})
    done = {"id": row["id"], "status": "succeeded", "at": 2, "output": [None] * len(files)}
    assert app.report({**done, "output_files": files}).status_code == 204
    (ended,) = app.project.rows()
    assert (ended["status"], ended["error_code"]) == ("failed", code)
    assert words in ended["error"]
    assert (ended["output"], app.project.files) == (None, {})


def test_a_total_of_files_over_the_most_ends_the_row(app: App) -> None:
    """At the first question, before a file is sent."""
    row = app.run()
    files = [{"name": f"{i}.png"} for i in range(25)]
    asked = app.report({"id": row["id"], "event": "files", "files": files, "total": 101})
    assert asked.json() == {"uploads": {}}
    assert app.project.rows()[0]["error_code"] == "output_too_large"


def test_a_large_result_goes_to_the_database_unread(app: App) -> None:
    """As it came, with a file in its place; not under another prediction's id."""
    row, other = app.run(), app.run()
    output = {'name "}\u0007': ["\u00e9\U0001f436", 1.5, None], "pad": "x" * 100_000, "image": None}
    files = [{"place": ["image"], "name": "a.png"}]
    end = {"status": "succeeded", "at": 1, "output": output, "output_files": files}
    url = app.webhook_url(row["id"])
    assert app.report({"id": other["id"], **end}, url=url).status_code == 401
    assert app.report({**end, "id": row["id"]}, url=url).status_code == 401, "the id comes first"
    question = {"id": row["id"], "event": "files", "files": files, "pad": "x" * 100_000}
    assert app.report(question).status_code == 401, "nothing that could be answered"
    assert {r["status"] for r in app.project.rows()} == {"starting"}
    assert app.report({"id": row["id"], **end}).status_code == 204
    kept = next(r for r in app.project.rows() if r["id"] == row["id"])
    image = f"storage://callme-outputs/{A}/{row['id']}/a.png"
    assert kept["output"] == {**output, "image": image}


def test_references_are_found_wherever_they_are(app: App) -> None:
    """A value that begins so, in whatever characters; no name, and nothing within a text. Of files
    that are named again one URL is made."""
    first, second = upload(app, "a.png", b"1"), upload(app, 'b "c\u00e9 d.png', b"22")
    given = {
        "file": first,
        "list": [second, [first], {"deep": second}],
        first: "as a name",
        "text": f'so: "{first}" \\"{first}\\',
        "rest": ["\\", f" {first}", "storage:/", {}, [], 1.5, None, True, "\u2028\U0001f436"],
    }
    asked = len(app.project.requests)
    app.run("echo", input=given)
    sent = json.loads(app.puts()[0].body)["input"]
    urls = [sent["file"], sent["list"][0]]
    assert sent == {**given, "file": urls[0], "list": [urls[1], [urls[0]], {"deep": urls[1]}]}
    assert [path for _, path in app.project.requests[asked:] if "/sign/" in path] == [
        "/storage/v1/object/sign/callme-inputs"
    ]
    assert [app.http.get(url).content for url in urls] == [b"1", b"22"]


def test_inputs_that_would_cost_too_much_are_refused(app: App) -> None:
    """A file in over a hundred places, or lists within lists without an end."""
    row = app.run(input={"images": [upload(app, "a.png", b"1")] * 101})
    assert (row["status"], row["error_code"]) == ("failed", "invalid_input")
    assert row["error"] == "Cannot use 101 files: the most is 100"
    said = app.post(b'{"model":"echo","input":{"a":' + b"[" * 120_000 + b"]" * 120_000 + b"}}")
    assert (said.status_code, said.json()["error"]["code"]) == (400, "invalid_json")
    assert app.puts() == []


def test_a_sweep_does_a_few_at_a_time(app: App) -> None:
    """So that one call stays cheap: the clock calls again for the others."""
    app.project.database.run("update callme.settings set running = 100")
    app.box.behaviour = lambda _: Answer(503, b"{}", JSON)
    for _ in range(3):
        app.run()
    app.box.behaviour = accepted
    assert app.sweep().json()["tried"] == 2
    assert app.ask("POST", "/sweep", user=None).json()["tried"] == 1
    assert all(r["sent_at"] for r in app.project.rows())
