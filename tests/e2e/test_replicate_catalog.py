"""Every path that Replicate's clients have a method for answers in Replicate's own shapes."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replicate.client import Client
from replicate.exceptions import ReplicateError

from tests.e2e.pypi_tools import pypi_folder, python
from tests.e2e.service import ROOT, Service, running_service
from tests.e2e.test_replicate_api import NPM_CLIENT, node
from tests.e2e.test_replicate_beta import BEGIN, BETA_CLIENT
from tests.edge.npm_tools import npm_folder

KEY = "a-key-of-the-team-0123456789abcdef"
MODEL = "/v1/models/acme/echo"
DEPLOYMENT = "/v1/deployments/acme/app"
PAGE, LIST, OBJECT, PROBLEM, TEXT = "page", "list", "object", "problem", "text"

# Method, path, status, shape: the whole of https://api.replicate.com/openapi.json.
PATHS = [
    ("GET", "/v1/account", 200, OBJECT),
    ("GET", "/v1/collections", 200, PAGE),
    ("GET", "/v1/collections/text-to-image", 404, PROBLEM),
    ("GET", "/v1/deployments", 200, PAGE),
    ("POST", "/v1/deployments", 405, PROBLEM),
    ("GET", DEPLOYMENT, 404, PROBLEM),
    ("PATCH", DEPLOYMENT, 404, PROBLEM),
    ("DELETE", DEPLOYMENT, 404, PROBLEM),
    ("POST", f"{DEPLOYMENT}/predictions", 404, PROBLEM),
    ("GET", "/v1/files", 200, PAGE),
    ("POST", "/v1/files", 415, PROBLEM),
    ("GET", "/v1/files/nosuch", 404, PROBLEM),
    ("DELETE", "/v1/files/nosuch", 404, PROBLEM),
    ("GET", "/v1/files/nosuch/download?owner=a&expiry=1&signature=x", 404, PROBLEM),
    ("GET", "/v1/hardware", 200, LIST),
    ("GET", "/v1/models", 200, PAGE),
    ("POST", "/v1/models", 405, PROBLEM),
    ("QUERY", "/v1/models", 200, PAGE),
    ("GET", MODEL, 200, OBJECT),
    ("GET", "/v1/models/acme/nosuch", 404, PROBLEM),
    ("PATCH", MODEL, 405, PROBLEM),
    ("DELETE", MODEL, 405, PROBLEM),
    ("GET", f"{MODEL}/examples", 200, PAGE),
    ("GET", "/v1/models/acme/nosuch/examples", 404, PROBLEM),
    ("POST", f"{MODEL}/predictions", 422, PROBLEM),
    ("GET", f"{MODEL}/readme", 200, TEXT),
    ("GET", "/v1/models/acme/parrot/readme", 404, PROBLEM),
    ("GET", f"{MODEL}/versions", 200, PAGE),
    ("GET", f"{MODEL}/versions/nosuch", 404, PROBLEM),
    ("DELETE", f"{MODEL}/versions/nosuch", 405, PROBLEM),
    ("POST", f"{MODEL}/versions/nosuch/trainings", 404, PROBLEM),
    ("GET", "/v1/predictions", 200, PAGE),
    ("POST", "/v1/predictions", 422, PROBLEM),
    ("GET", "/v1/predictions/nosuch", 404, PROBLEM),
    ("POST", "/v1/predictions/nosuch/cancel", 404, PROBLEM),
    ("GET", "/v1/search?query=echo", 200, OBJECT),
    ("GET", "/v1/search", 400, PROBLEM),
    ("GET", "/v1/search?query=echo&limit=x", 400, PROBLEM),
    ("GET", "/v1/trainings", 200, PAGE),
    ("GET", "/v1/trainings/nosuch", 404, PROBLEM),
    ("POST", "/v1/trainings/nosuch/cancel", 404, PROBLEM),
    ("GET", "/v1/webhooks/default/secret", 403, PROBLEM),  # for an admin's key
    # Not in it.
    ("GET", "/v1", 405, PROBLEM),
    ("GET", "/v1/nosuch", 404, PROBLEM),
    ("PUT", "/v1/hardware", 405, PROBLEM),
]


@pytest.fixture(scope="module")
def service(echo_packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with a key; the echo has a README.md, the parrot has none."""
    packages = tmp_path_factory.mktemp("catalog") / "packages"
    shutil.copytree(echo_packages, packages)
    (packages / "echo" / "README.md").write_text("# Echo\n<b>é</b>\n")
    state = packages.parent / "state"
    with running_service(packages, state, {"CALLME_KEYS": f"team:{KEY}"}) as service:
        service.http.headers["authorization"] = f"Bearer {KEY}"
        yield service


@pytest.mark.parametrize(("method", "path", "status", "shape"), PATHS)
def test_every_path(service: Service, method: str, path: str, status: int, shape: str) -> None:
    """The status that the clients understand, in a shape that they read."""
    body: dict[str, Any] = {}
    if method in ("POST", "PATCH"):
        body = {"json": {}}
    answer = service.http.request(method, path, **body)
    assert answer.status_code == status, answer.text
    if shape is TEXT:
        assert answer.headers["content-type"] == "text/plain; charset=utf-8"
        assert answer.text == "# Echo\n<b>é</b>\n"
        return
    told = answer.json()
    if shape is PAGE:
        assert told.keys() == {"previous", "next", "results"}
        assert isinstance(told["results"], list)
    elif shape is LIST:
        assert told
        assert all(isinstance(item["name"], str) and item["sku"] for item in told)
    elif shape is PROBLEM:
        assert told["status"] == status
        assert all(isinstance(told[name], str) for name in ("title", "detail", "code"))
    else:
        assert isinstance(told, dict)
    assert ("allow" in answer.headers) == (status == 405)


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("echo", ["echo"]),
        ("", ["echo", "parrot"]),
        ("ECHO", ["echo"]),
        ("echo nosuch", []),
        ('"parrot"', ["parrot"]),
    ],
)
def test_search(service: Service, text: str, names: list[str]) -> None:
    """Each word of the text, both ways that Replicate has."""
    found = service.http.request("QUERY", "/v1/models", content=text)
    assert [model["name"] for model in found.json()["results"]] == names
    if text and not text.startswith('"'):
        told = service.http.get("/v1/search", params={"query": text}).json()
        assert [m["model"]["name"] for m in told["models"]] == names
        assert (told["query"], told["collections"], told["pages"]) == (text, [], [])
    for wrong in (b"\xff", b'"x', b"x" * 5000):
        assert service.http.request("QUERY", "/v1/models", content=wrong).status_code in (400, 413)


def test_lists_of_one_time(service: Service) -> None:
    """`created_after`, `created_before` and `source`, with links that keep them."""
    path = "/v1/models/acme/parrot/predictions"
    made = [service.http.post(path, json={"input": {}}).json() for _ in range(3)]
    ids, times = [p["id"] for p in made], [p["created_at"] for p in made]

    def listed(**params: str) -> list[str]:
        page = service.http.get("/v1/predictions", params=params).json()
        found = [p["id"] for p in page["results"]]
        while page["next"]:
            page = service.http.get(page["next"]).json()
            found += [p["id"] for p in page["results"]]
        return [i for i in found if i in ids]

    assert listed() == ids[::-1]
    assert listed(created_after=times[1]) == [ids[2], ids[1]]
    assert listed(created_before=times[1]) == [ids[0]]
    assert listed(created_after=times[1], created_before=times[2]) == [ids[1]]
    assert listed(source="web") == []
    for wrong in ({"created_after": "yesterday"}, {"source": "nosuch"}, {"created_before": "0"}):
        answer = service.http.get("/v1/predictions", params=wrong)
        assert (answer.status_code, answer.json()["status"]) == (400, 400)


def test_pypis_client(service: Service) -> None:
    """Lists, and errors that it knows."""
    client = Client(api_token=KEY, base_url=service.url)
    assert [h.sku for h in client.hardware.list()]
    assert list(client.collections.list()) == list(client.deployments.list()) == []
    assert list(client.trainings.list()) == []
    assert [m.name for m in client.models.search("parrot")] == ["parrot"]
    calls: list[tuple[Any, int]] = [
        (lambda: client.deployments.get("acme/app"), 404),
        (lambda: client.deployments.predictions.create("acme/app", input={}), 404),
        (lambda: client.collections.get("x"), 404),
        (lambda: client.trainings.get("x"), 404),
        (lambda: client.trainings.cancel("x"), 404),
        (lambda: client.models.create("a", "b", hardware="cpu", visibility="private"), 405),
        (lambda: client.models.get("acme/echo").versions.delete("x"), 405),
    ]
    for call, status in calls:
        with pytest.raises(ReplicateError) as caught:
            call()
        assert (caught.value.status, bool(caught.value.detail)) == (status, True)


def test_npms_client(service: Service) -> None:
    """The same."""
    script = """
    const Replicate = require("replicate");
    const { url, key } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const replicate = new Replicate({ auth: key, baseUrl: url + "/v1" });
    const status = async (call) => {
      try { await call(); return 200; } catch (error) { return error.response.status; }
    };
    (async () => {
      console.log(JSON.stringify({
        hardware: (await replicate.hardware.list()).length,
        empty: [await replicate.collections.list(), await replicate.deployments.list(),
                await replicate.trainings.list()].map((page) => page.results.length),
        found: (await replicate.models.search("parrot")).results.map((model) => model.name),
        statuses: [
          await status(() => replicate.collections.get("x")),
          await status(() => replicate.deployments.get("acme", "app")),
          await status(() => replicate.trainings.get("x")),
          await status(() => replicate.models.create("a", "b",
            { hardware: "cpu", visibility: "private" })),
        ],
      }));
    })();
    """
    told = node(npm_folder(NPM_CLIENT), script, {"url": service.url, "key": KEY})
    assert told["hardware"] == 1
    assert told["empty"] == [0, 0, 0]
    assert told["found"] == ["parrot"]
    assert told["statuses"] == [404, 404, 404, 405]


def test_pypis_beta(service: Service) -> None:
    """The same, with what only it has: search, examples, readme, download."""
    script = """
made = client.files.create(content=b"hello", filename="a.txt")
got = client.files.download(file_id=made.id, expiry=1, owner="callme", signature="x").read()
client.files.delete(file_id=made.id)
statuses = []
for call in (lambda: client.deployments.get(deployment_owner="acme", deployment_name="app"),
             lambda: client.models.delete(model_owner="acme", model_name="echo"),
             lambda: client.trainings.get(training_id="x")):
    try:
        call()
    except replicate.APIStatusError as error:
        statuses.append(error.status_code)
print(json.dumps({
    "hardware": len(client.hardware.list()),
    "empty": [len(list(client.collections.list())), len(list(client.deployments.list())),
              len(list(client.trainings.list())),
              len(list(client.models.examples.list(model_owner="acme", model_name="echo")))],
    "readme": client.models.readme.get(model_owner="acme", model_name="echo"),
    "found": [m.name for m in client.models.search(body="parrot")],
    "search": [m.model.name for m in client.search(query="echo").models],
    "content": got.decode(),
    "statuses": statuses,
    "later": len(list(client.predictions.list(created_after="2999-01-01T00:00:00Z"))),
    "account": client.account.get().username,
}))
"""
    given = {"url": service.url, "key": KEY}
    told = python(pypi_folder(BETA_CLIENT), BEGIN + script, given, {})
    assert told == {
        "hardware": 1,
        "empty": [0, 0, 0, 0],
        "readme": "# Echo\n<b>é</b>\n",
        "found": ["parrot"],
        "search": ["echo"],
        "content": "hello",
        "statuses": [404, 405, 404],
        "later": 0,
        "account": "callme",
    }
    assert (ROOT / "docs" / "adding-a-model.md").exists()  # where a refusal points to
