"""A package's example and the files that it names; never a file outside of the package."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from starlette.applications import Starlette

from router.errors import RouterError
from router.http.apis import package_files
from router.http.errors import on_router_error
from router.models.catalog import Package


def client(folder: Path, **example: object) -> httpx.AsyncClient:
    """A client of a box with one model in `folder`."""
    package = Package("model", folder, "", Path("python"), example=example)
    app = Starlette(exception_handlers={RouterError: on_router_error})
    app.state.context = SimpleNamespace(package=lambda name: package)
    package_files.add_routes(app)
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1")


async def test_an_example_with_its_file(tmp_path: Path) -> None:
    """As example.json has it; the file by the name of its input, with its type."""
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "cat.png").write_bytes(b"cat")
    async with client(tmp_path, image="@samples/cat.png", seed=7) as http:
        answer = await http.get("/models/model/example.json")
        assert answer.json() == {"image": "@samples/cat.png", "seed": 7}
        file = await http.get("/models/model/example/image")
        assert (file.content, file.headers["content-type"]) == (b"cat", "image/png")


@pytest.mark.parametrize(
    "value", ["@../secret.txt", "@/etc/hostname", "@samples/missing.png", "@.", "text", 7, None]
)
async def test_no_other_file(tmp_path: Path, value: object) -> None:
    """Not one beside the package, by whatever name, and none that is not there."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "link.txt").symlink_to(tmp_path / "secret.txt")
    async with client(folder, image=value, link="@link.txt") as http:
        for name in ("image", "link", "nothing"):
            answer = await http.get(f"/models/model/example/{name}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")
