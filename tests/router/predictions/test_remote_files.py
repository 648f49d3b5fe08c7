"""The tokens of files by URL, and what is kept of what another machine has sent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest

from router.errors import NotFound, PayloadTooLarge, Unauthorized
from router.observability.facts import Facts, PredictionEnded
from router.prediction import FileRef, Prediction
from router.predictions import remote_files
from router.predictions.remote_files import INPUT, MORE_S, OUTPUTS, RemoteFiles
from router.storage.spool import Spool
from tests.router.fakes import HandClock

NAME = "0123456789abcdef" * 2
OTHER = "f" * 32


class World:
    """A spool, and facts that are delivered at once."""

    def __init__(self, folder: Path) -> None:
        self.spool, self.clock, self.facts = Spool(folder), HandClock(), Facts(delay_s=0)
        self.files = RemoteFiles(self.spool, "secret", self.clock, self.facts)

    def send(self, prediction_id: str, name: str, content: bytes) -> None:
        """A file that arrives whole."""
        incoming = self.files.receive(prediction_id, name)
        incoming.write(content)
        incoming.keep()
        incoming.close()

    def names(self) -> list[str]:
        """What is in the spool."""
        return sorted(path.name for path in self.spool.folder.iterdir())

    def end(self, prediction_id: str) -> None:
        """Say that it has ended."""
        self.facts.tell(PredictionEnded(Prediction(prediction_id, "m", {}, 0.0), 0))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """An empty one."""
    return World(tmp_path / "spool")


def query_of(path: str) -> Mapping[str, str]:
    """The query of a URL."""
    return dict(parse_qsl(urlsplit(path).query))


def test_a_token_is_for_one_thing_and_ends(world: World) -> None:
    """An input of one prediction, or its outputs; the moment is part of it."""
    file = FileRef("file", str(world.spool.folder / "aa.png"), "cat.png")
    path = world.files.input_path("p1", file, 600)
    assert urlsplit(path).path == "/v1/remote-files/p1/aa.png"
    query = query_of(path)
    world.files.check(INPUT, "p1", "aa.png", query)
    wrong = [
        (INPUT, "p1", "ab.png", query),
        (INPUT, "p2", "aa.png", query),
        (OUTPUTS, "p1", "aa.png", query),
        (OUTPUTS, "p1", "", query),
        (INPUT, "p1", "aa.png", {**query, "expires": "9" * 12}),
        (INPUT, "p1", "aa.png", {**query, "token": query["token"][:-1]}),
        (INPUT, "p1", "aa.png", {**query, "token": "é"}),
        (INPUT, "p1", "aa.png", {"expires": "x"}),
        (INPUT, "p1", "aa.png", {}),
    ]
    for what, prediction_id, name, given in wrong:
        with pytest.raises(Unauthorized, match="not the URL"):
            world.files.check(what, prediction_id, name, given)
    outputs = query_of(world.files.outputs_path("p1", 600))
    world.files.check(OUTPUTS, "p1", "", outputs)
    with pytest.raises(Unauthorized):
        world.files.check(INPUT, "p1", "", outputs)
    world.clock.now += 600 + MORE_S + 1
    for what, name, given in ((INPUT, "aa.png", query), (OUTPUTS, "", outputs)):
        with pytest.raises(Unauthorized, match="expired"):
            world.files.check(what, "p1", name, given)


async def test_what_was_sent_is_put_into_the_output(world: World) -> None:
    """At its place, as a data: URI; a file that was sent twice counts once."""
    world.send("p1", NAME, b"first try")
    world.send("p1", NAME, b"cat")
    world.send("p1", OTHER, b"dog")
    output = {"pictures": [None, "text"], "mask": None}
    sent = [
        {"place": ["pictures", 0], "name": NAME, "type": "image/png"},
        {"place": ["mask"], "name": OTHER, "type": ""},
    ]
    whole = await world.files.with_data_uris("p1", output, sent)
    assert whole == {
        "pictures": ["data:image/png;base64,Y2F0", "text"],
        "mask": "data:;base64,ZG9n",
    }
    alone = await world.files.with_data_uris("p1", None, [{"place": [], "name": NAME, "type": ""}])
    assert alone == "data:;base64,Y2F0"


@pytest.mark.parametrize(
    "sent",
    [
        [{"place": ["mask"], "name": OTHER, "type": ""}],
        [{"place": ["mask"], "name": f"../p2.{NAME}", "type": ""}],
        [{"place": ["mask"], "name": NAME, "type": "text/html;base64,x"}],
        [{"place": ["mask", "deeper"], "name": NAME, "type": ""}],
        [{"place": ["none", "deeper"], "name": NAME, "type": ""}],
        [{"place": 3, "name": NAME, "type": ""}],
        [{"place": ["mask"], "name": 3, "type": ""}],
        [{"place": ["mask"]}],
        [{"place": ["mask"], "name": NAME, "type": "", "path": "/etc/passwd"}],
        ["x"],
        7,
    ],
)
async def test_what_was_not_sent_is_refused(world: World, sent: object) -> None:
    """Also what another prediction has sent, and a list that makes no sense."""
    world.send("p2", OTHER, b"another's")
    world.send("p1", NAME, b"cat")
    with pytest.raises(NotFound):
        await world.files.with_data_uris("p1", {"mask": None}, sent)


def test_the_end_of_a_prediction_deletes_its_files(world: World) -> None:
    """And those of no other."""
    world.send("p1", NAME, b"cat")
    world.send("p2", NAME, b"dog")
    world.end("p1")
    assert world.names() == [f"p2.{NAME}"]
    world.end("p1")
    world.end("p2")
    assert world.names() == []


def test_an_upload_that_breaks_off_leaves_nothing(world: World) -> None:
    """Neither a part nor a name; what was sent before stays."""
    world.send("p1", NAME, b"cat")
    incoming = world.files.receive("p1", NAME)
    incoming.write(b"half")
    incoming.close()
    assert world.names() == [f"p1.{NAME}"]
    assert (world.spool.folder / f"p1.{NAME}").read_bytes() == b"cat"


def test_all_files_of_a_prediction_have_one_limit(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bytes, with those that arrive at the same time, and in number."""
    monkeypatch.setattr(remote_files, "MAX_BYTES", 10)
    monkeypatch.setattr(remote_files, "MAX_FILES", 2)
    world.send("p1", NAME, b"12345")
    incoming = world.files.receive("p1", OTHER)
    incoming.write(b"1234")
    with pytest.raises(PayloadTooLarge, match="2 already"):
        world.files.receive("p1", OTHER)
    with pytest.raises(PayloadTooLarge, match="10 bytes"):
        incoming.write(b"67")
    incoming.close()
    world.send("p1", OTHER, b"12345")
    world.send("p2", OTHER, b"1234567890")


def test_what_an_earlier_run_was_sent_is_kept(world: World, tmp_path: Path) -> None:
    """For a prediction that goes on; anything else in the spool is not the router's to keep."""
    world.send("p1", NAME, b"cat")
    world.send("gone", NAME, b"dog")
    (world.spool.folder / "p1.x").write_bytes(b"")
    (world.spool.folder / "lost+found").mkdir()
    later = World(tmp_path / "spool")
    kept = later.files.open({"p1"})
    assert [Path(file.path).name for file in kept] == [f"p1.{NAME}"]
    later.spool.remove_unreferenced(kept)
    assert later.names() == ["lost+found", f"p1.{NAME}"]
    later.end("p1")
    assert later.names() == ["lost+found"]
