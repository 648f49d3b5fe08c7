"""How a prediction is stored in one row: some columns to find it by, and a JSON document that
contains all of it."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
from collections.abc import Iterator
from typing import Any

import msgspec

from router.prediction import Prediction
from router.secret_inputs import SecretValues

log = logging.getLogger(__name__)

INSERT = "INSERT INTO predictions (id, model, status, created_at, completed_at, owner, document)"
OR_REPLACE = """
ON CONFLICT (id) DO UPDATE SET status = excluded.status,
    completed_at = excluded.completed_at, document = excluded.document RETURNING rowid
"""
OR_NOTHING = "ON CONFLICT (id) DO NOTHING RETURNING rowid"
# A longer document is written into its row after the row has been inserted. SQLite copies each
# value of a statement twice before it writes it, and a prediction's text may be a megabyte.
LONG_BYTES = 64 << 10


def write(c: sqlite3.Connection, p: Prediction, on_conflict: str) -> bool:
    """Write the prediction's row; in a transaction if its document is long. False when its id is
    taken and `on_conflict` is OR_NOTHING; then nothing is written."""
    document = encode(p)
    is_long = len(document) > LONG_BYTES
    value = "zeroblob(?)" if is_long else "?"
    columns = (p.id, p.model, p.status, p.created_at, p.completed_at, p.owner)
    row = (*columns, len(document) if is_long else document)
    statement = f"{INSERT} VALUES (?, ?, ?, ?, ?, ?, {value}) {on_conflict}"
    with contextlib.nullcontext() if c.in_transaction or not is_long else transaction(c):
        written = c.execute(statement, row).fetchall()
        if written and is_long:
            with c.blobopen("predictions", "document", written[0][0]) as blob:
                blob.write(document)
    return bool(written)


@contextlib.contextmanager
def transaction(c: sqlite3.Connection) -> Iterator[None]:
    """One transaction: committed at the end of the block, rolled back when it raises."""
    c.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        # SQLite has rolled it back itself on some errors, such as a full disk.
        if c.in_transaction:
            c.execute("ROLLBACK")
        raise
    c.execute("COMMIT")


def encode(p: Prediction) -> bytes:
    """The JSON document. It contains only the names of secret inputs. Their values are stored by
    `router.storage.sealed_store`."""
    fields = msgspec.structs.asdict(p)
    fields["secrets"] = list(p.secrets)
    fields["home"] = fields.pop("remote_name")  # as in documents of earlier versions
    return msgspec.json.encode(fields)


def decode(document: bytes) -> Prediction | None:
    """The prediction; None when the row cannot be read, as one such row must not prevent all others
    from being served."""
    try:
        return _DECODER.decode(document)
    except (msgspec.DecodeError, ValueError):
        log.exception("Cannot read a row of the database; it is left out")
        return None


def _read_other(kind: type, value: Any) -> Any:
    if kind is SecretValues:
        return SecretValues.fromkeys(value or ())
    raise NotImplementedError(kind)


_DECODER = msgspec.json.Decoder(Prediction, dec_hook=_read_other)
