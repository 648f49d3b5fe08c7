"""Files in outputs, as the official clients of PyPI and npm take them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from replicate.client import Client

from tests.e2e.pypi_tools import pypi_folder, python
from tests.e2e.service import Service, Tls, running_service
from tests.e2e.test_replicate_api import NPM_CLIENT, node
from tests.e2e.test_replicate_beta import BEGIN, BETA_CLIENT
from tests.edge.npm_tools import npm_folder

KEY = "0123456789abcdef0123456789abcdef"


@pytest.fixture(scope="module")
def secure(
    file_packages: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Service, Tls]]:
    """A service over https, as behind a tunnel: the clients make FileOutputs of such URLs."""
    folder = tmp_path_factory.mktemp("secure")
    tls = Tls.make(folder)
    with running_service(file_packages, folder / "state", {"CALLME_KEYS": KEY}, tls=tls) as service:
        yield service, tls


def test_pypis_client(secure: tuple[Service, Tls], monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` gives FileOutputs, and so does `stream`."""
    service, tls = secure
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.authority))
    client = Client(api_token=KEY, base_url=service.url)
    output: Any = client.run("acme/painter", input={"text": "read me", "layers": 1})
    assert output["picture"].url.startswith(f"{service.url}/v1/outputs/")
    assert output["picture"].read() == b"read me"
    assert [layer.read() for layer in output["layers"]] == [b"read me 0"]
    again: Any = client.run("acme/echo", input={"file": output["picture"].url})
    assert again["file_bytes"] == 7
    events = list(client.stream("acme/gallery", input={}))
    files: list[Any] = [event.data for event in events if event.event.value == "output"]
    assert [file.read() for file in files] == [b"picture %d" % i for i in range(3)]


def test_npms_client(secure: tuple[Service, Tls], monkeypatch: pytest.MonkeyPatch) -> None:
    """`run` and `stream` give FileOutputs that are read without a key."""
    service, tls = secure
    monkeypatch.setenv("NODE_EXTRA_CA_CERTS", str(tls.authority))
    script = """
    const Replicate = require("replicate");
    const { url, key } = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
    const replicate = new Replicate({ auth: key, baseUrl: url + "/v1" });
    const text = async (file) => await (await file.blob()).text();
    (async () => {
      const output = await replicate.run("acme/painter", { input: { text: "read me", layers: 1 } });
      const blob = await output.picture.blob();
      const streamed = [];
      for await (const { event, data } of replicate.stream("acme/gallery", { input: {} }))
        if (event === "output") streamed.push(await text(data));
      console.log(JSON.stringify({
        url: output.picture.url().href, type: blob.type, picture: await blob.text(),
        layer: await text(output.layers[0]), streamed,
      }));
    })();
    """
    told = node(npm_folder(NPM_CLIENT), script, {"url": service.url, "key": KEY})
    assert told["url"].startswith(f"{service.url}/v1/outputs/")
    assert (told["type"], told["picture"], told["layer"]) == ("image/png", "read me", "read me 0")
    assert told["streamed"] == ["picture 0", "picture 1", "picture 2"]


def test_pypis_beta(secure: tuple[Service, Tls], tmp_path: Path) -> None:
    """`use` gives paths that are fetched when they are opened, named as the model's files are;
    `run` gives FileOutputs; one model's output is another's input."""
    service, tls = secure
    script = """
painter, gallery = replicate.use("acme/painter"), replicate.use("acme/gallery")
output = painter(text="read me", layers=1)
picture = open(output["picture"], "rb").read()
name = str(output["picture"]).rpartition("/")[2]
layer = open(output["layers"][0]).read()
again = replicate.use("acme/echo")(file=output["picture"])
pictures = [open(path).read() for path in gallery(count=2)]
streamed = replicate.use("acme/gallery", streaming=True)
read = client.run("acme/painter", input={"text": "run"})["picture"].read()
print(json.dumps({"picture": picture.decode(), "name": name, "layer": layer, "again": again,
                  "pictures": pictures, "read": read.decode(),
                  "streamed": [open(path).read() for path in streamed(count=2)]}))
"""
    env = {
        "REPLICATE_API_TOKEN": KEY,
        "REPLICATE_BASE_URL": f"{service.url}/v1",
        "SSL_CERT_FILE": str(tls.authority),
        "TMPDIR": str(tmp_path),
    }
    given = {"url": service.url, "key": KEY}
    told = python(pypi_folder(BETA_CLIENT), BEGIN + script, given, env)
    assert (told["picture"], told["name"]) == ("read me", "output-picture.png")
    assert (told["layer"], told["again"]["file_bytes"]) == ("read me 0", 7)
    assert told["pictures"] == told["streamed"] == ["picture 0", "picture 1"]
    assert told["read"] == "run"
