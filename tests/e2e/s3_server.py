"""A real S3 server for tests: npm's s3rver, in a process of its own. It checks signatures and when
they expire, answers ranges, and keeps its objects over a restart."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.edge.npm_tools import npm_folder
from tests.waiting import free_port, wait_until

S3RVER = ("@20minutes/s3rver", "4.0.4")
KEY_ID, SECRET = "TESTKEYID", "do-not-print-this-secret"
BUCKET = "results"
SCRIPT = """
const given = JSON.parse(process.argv[1]);
const S3rver = require("@20minutes/s3rver");
const accounts = require("@20minutes/s3rver/lib/models/account");
accounts.DUMMY_ACCOUNT.createKeyPair(given.keyId, given.secret);
new S3rver({ address: "127.0.0.1", port: given.port, directory: given.folder, silent: true,
             vhostBuckets: false, configureBuckets: [{ name: given.bucket }] }).run();
"""


class S3Server:
    """The server. It may be stopped and started again, on the same port and the same objects."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def settings(self, **more: str) -> dict[str, str]:
        """The router's, as variables."""
        fields = {
            "bucket": BUCKET,
            "endpoint": self.url,
            "access_key_id": KEY_ID,
            "secret_access_key": SECRET,
            **more,
        }
        return {f"CALLME_RESULT_STORE__{k.upper()}": v for k, v in fields.items()}

    def start(self) -> None:
        """Start it and wait until it listens. Skips the test without node or npm's package."""
        node = shutil.which("node")
        if node is None:
            pytest.skip("needs node on PATH, for npm's s3rver")
        self.folder.mkdir(exist_ok=True)
        given = {
            "port": self.port,
            "folder": str(self.folder),
            "bucket": BUCKET,
            "keyId": KEY_ID,
            "secret": SECRET,
        }
        command = [node, "-e", SCRIPT, json.dumps(given)]
        self._child = subprocess.Popen(command, cwd=npm_folder(S3RVER))
        wait_until(self._listens)

    def stop(self) -> None:
        """End it, and keep its objects."""
        if self._child is not None:
            self._child.kill()
            self._child.wait()
            self._child = None

    def objects(self) -> list[str]:
        """The names of all objects, without their folders."""
        files = [p.name for p in (self.folder / BUCKET).rglob("*") if p.is_file()]
        ending = "._S3rver_object"
        return sorted(name.removesuffix(ending) for name in files if name.endswith(ending))

    def _listens(self) -> bool:
        assert self._child is not None
        assert self._child.poll() is None, "the server ended"
        with socket.socket() as s:
            return s.connect_ex(("127.0.0.1", self.port)) == 0
