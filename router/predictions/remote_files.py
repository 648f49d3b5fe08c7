"""Large files of predictions that run elsewhere: the other machine fetches inputs from the router,
and sends outputs to it, each by a URL with a token of its own.

A token is good for one input file, or for the outputs of one prediction, until the time in its URL.
What has been sent is in the spool beside the inputs, under a name that begins with the prediction's
id. It stays there until the prediction has ended, also when the router is restarted or the
prediction runs again.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from router.clock import Clock
from router.errors import NotFound, PayloadTooLarge, Unauthorized
from router.media_types import MEDIA_TYPE
from router.observability.facts import Facts, PredictionEnded
from router.prediction import FileRef, Json, OutputFile, Prediction
from router.predictions.output_reader import read_all, with_values
from router.storage.spool import OWNER_END, Spool, SpoolFile

PATH = "/v1/remote-files/{id}/{name}"
# The name of an output file, which its sender makes.
NAME = re.compile(r"[0-9a-f]{32}")
# Limits for the outputs of one prediction over all its runs. A sender whose file is refused puts it
# into its answer instead.
MAX_BYTES = 128 << 20
MAX_FILES = 1000
# Added to the lifetime of each URL: the other machine may still be at work.
MORE_S = 60.0
INPUT, OUTPUTS = "input", "outputs"


class RemoteFiles:
    """`spool`: where inputs are. `secret`: makes the tokens. `facts`: say when a prediction has
    ended."""

    def __init__(self, spool: Spool, secret: str, clock: Clock, facts: Facts) -> None:
        self._spool = spool
        self._secret = secret.encode()
        self._clock = clock
        # The bytes of each file that was sent, or is being sent, by prediction and name.
        self._sizes: dict[str, dict[str, int]] = {}
        facts.add(self._forget, PredictionEnded)

    def open(self, resumed: Collection[str]) -> Sequence[FileRef]:
        """The files that an earlier run of the router was sent for these predictions."""
        found = []
        for path in self._spool.folder.iterdir():
            prediction_id, _, name = path.name.partition(OWNER_END)
            if prediction_id in resumed and NAME.fullmatch(name):
                self._sizes.setdefault(prediction_id, {})[name] = path.stat().st_size
                found.append(FileRef("", str(path), name))
        return found

    # ---- URLs ------------------------------------------------------------------------------

    def input_path(self, prediction_id: str, file: FileRef, lifetime_s: float) -> str:
        """Path and query of the URL of one input file."""
        name = Path(file.path).name
        query = self._query(INPUT, prediction_id, name, lifetime_s)
        return f"{_folder(prediction_id)}/{quote(name)}?{query}"

    def outputs_path(self, prediction_id: str, lifetime_s: float) -> str:
        """Path and query of the URL for outputs; the sender adds `/NAME` to the path."""
        return f"{_folder(prediction_id)}?{self._query(OUTPUTS, prediction_id, '', lifetime_s)}"

    def _query(self, what: str, prediction_id: str, name: str, lifetime_s: float) -> str:
        expires = f"{self._clock.time() + lifetime_s + MORE_S:.0f}"
        return f"expires={expires}&token={self._token(what, prediction_id, name, expires)}"

    def _token(self, *parts: str) -> str:
        message = "\0".join(("remote file", *parts)).encode()
        return hmac.new(self._secret, message, hashlib.sha256).hexdigest()[:32]

    def check(self, what: str, prediction_id: str, name: str, query: Mapping[str, str]) -> None:
        """Raises Unauthorized when the URL's token is not for this file, or is too old."""
        expires, given = query.get("expires", ""), query.get("token", "")
        expected = self._token(what, prediction_id, name, expires)
        # Only what the router has written has the right token, so `expires` is a number then.
        if not hmac.compare_digest(given.encode(), expected.encode()):
            raise Unauthorized("Cannot pass on the file: this is not the URL of one")
        if int(expires) < self._clock.time():
            raise Unauthorized("Cannot pass on the file: its URL has expired")

    # ---- outputs ---------------------------------------------------------------------------

    def receive(self, prediction_id: str, name: str) -> Incoming:
        """A file that begins to arrive. Raises PayloadTooLarge, and InsufficientStorage."""
        sizes = self._sizes.setdefault(prediction_id, {})
        if len(sizes) >= MAX_FILES:
            raise PayloadTooLarge(f"Cannot store the file: there are {MAX_FILES} already")
        return Incoming(self._spool, sizes, self._path(prediction_id, name), name)

    async def with_data_uris(self, prediction_id: str, output: Json, sent: Json) -> Json:
        """The output with a data: URI for each file that was sent, in the file's place. `sent`: for
        each its `place`, `name` and `type`. Raises NotFound when one has not arrived, or there is
        no such place."""
        try:
            files = [self._sent(prediction_id, **one) for one in sent]
            uris = await asyncio.to_thread(read_all, files)
            if None in uris:
                raise NotFound("an output file has not arrived")
            places = [file.place for file in files]
            return with_values(output, zip(places, uris, strict=True))
        except (TypeError, LookupError, AttributeError) as error:
            raise NotFound("its list of output files cannot be read") from error

    def _sent(self, prediction_id: str, place: Json, name: str, type: str) -> OutputFile:  # noqa: A002
        if not NAME.fullmatch(name) or not MEDIA_TYPE.fullmatch(type or "a/b"):
            raise LookupError
        path = self._path(prediction_id, name)
        return OutputFile(tuple(place), str(path), name, type, 0)

    def _path(self, prediction_id: str, name: str) -> Path:
        return self._spool.folder / f"{prediction_id}{OWNER_END}{name}"

    def _forget(self, ended: PredictionEnded) -> None:
        p: Prediction = ended.prediction
        names = self._sizes.pop(p.id, {})
        self._spool.remove(FileRef("", str(self._path(p.id, n)), n) for n in names)


class Incoming:
    """A file that arrives: `write` what comes, then `keep` it; `close` in any case."""

    def __init__(self, spool: Spool, sizes: dict[str, int], path: Path, name: str) -> None:
        self._spool = spool
        self._sizes = sizes
        self._path = path
        self._name = name
        # It has a temporary name until it is complete: a sender may have to begin again.
        self._file: SpoolFile = spool.create("")
        self._key = self._file.path.name
        sizes[self._key] = 0

    def write(self, piece: bytes) -> None:
        """Raises PayloadTooLarge, and InsufficientStorage."""
        self._sizes[self._key] += len(piece)
        if sum(self._sizes.values()) > MAX_BYTES:
            raise PayloadTooLarge(f"Cannot store the file: all are over {MAX_BYTES} bytes")
        self._file.write(piece)

    def keep(self) -> None:
        """It is whole. It replaces what was sent under its name before."""
        self._file.path.replace(self._path)
        self._sizes[self._name] = self._file.size_bytes

    def close(self) -> None:
        """Delete it unless it was kept."""
        self._file.close()
        self._sizes.pop(self._key, None)
        self._spool.remove([FileRef("", str(self._file.path), "")])


def _folder(prediction_id: str) -> str:
    return PATH.format(id=quote(prediction_id), name="").rstrip("/")
