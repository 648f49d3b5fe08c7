"""The socket on which the router asks a model's worker to sleep and to wake.

One line of JSON comes in, one goes out:

    {"do": "stage" | "sleep" | "wake" | "memory" | "busy", "limit_bytes": …}
    {…what was done, in bytes and seconds} or {"refused": "busy" | "unfit" | "no room", "why": …}

`limit_bytes`, which may be left out, is the most host memory that the copies may take.
A refusal means that nothing has been touched. When a sleep or a wake fails half-way, the process
ends and the connection with it.
"""

import contextlib
import json
import os
import socket
import sys
import threading
from pathlib import Path
from typing import Any

from . import Refused

PATH_NAME = "CALLME_CONTROL_SOCKET"
DEVICE_NAME = "CALLME_SLEEP_DEVICE"
WORDS = ("stage", "sleep", "wake", "memory", "busy")
LONGEST_LINE = 4096


def listen(path: Path) -> socket.socket:
    """Return a listening socket at `path`, which only this user can use."""
    server = socket.socket(socket.AF_UNIX)
    # The new file gets this mode. A umask would change what other threads create meanwhile.
    os.fchmod(server.fileno(), 0o600)
    # A path in a socket's address has at most 107 bytes. This one is short in any case.
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        server.bind(f"/proc/self/fd/{folder}/{path.name}")
    finally:
        os.close(folder)
    server.listen()
    return server


class Control:
    """Answers the router's requests. `kind`: of the device, `cuda` or `cpu`."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._sleeper: Any = None

    def answer(self, line: bytes) -> dict[str, Any]:
        """Do what one line asks for."""
        try:
            return self._do(line)
        except Refused as error:
            return {"refused": error.kind, "why": str(error)}
        except Exception as error:
            # What fails after the first storage was freed ends the process, so this was before.
            return {"refused": "unfit", "why": f"{type(error).__name__}: {error}"}

    def _do(self, line: bytes) -> dict[str, Any]:
        request = json.loads(line)
        word, limit = request["do"], request.get("limit_bytes")
        if word not in WORDS:
            raise Refused("unfit", f"'{word}' must be one of {', '.join(WORDS)}")
        if self._sleeper is None and not self._begin():
            raise Refused("unfit", "it does not use torch")
        do = getattr(self._sleeper, word)
        return dict(do(limit) if word in ("stage", "sleep") else do())

    def _begin(self) -> bool:
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "UntypedStorage"):
            return False
        from .device import device_of  # noqa: PLC0415
        from .sleeper import Sleeper  # noqa: PLC0415

        self._sleeper = Sleeper(device_of(self._kind, torch))
        return True

    def serve(self, server: socket.socket) -> None:
        """Answer one connection after another, without end."""
        while True:
            connection, _ = server.accept()
            # The router may go away in the middle of an answer.
            with contextlib.suppress(OSError), connection, connection.makefile("rwb") as stream:
                while line := stream.readline(LONGEST_LINE):
                    stream.write(json.dumps(self.answer(line)).encode() + b"\n")
                    stream.flush()


def start() -> None:
    """Begin to listen where the environment says, in a thread of its own. Without a socket the
    model works; it only cannot sleep."""
    path = os.environ.get(PATH_NAME)
    if not path:
        return
    with contextlib.suppress(OSError):
        server = listen(Path(path))
        control = Control(os.environ.get(DEVICE_NAME, "cuda"))
        threading.Thread(
            target=control.serve, args=(server,), name="callme-control", daemon=True
        ).start()
