"""What the process and its HTTP server may hold: file descriptors, connections, request heads."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import resource
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import uvicorn

from router.http.connections import Connections, Limits
from router.http.protocol import HttpProtocol

log = logging.getLogger(__name__)

# More would cost those among the models' programs that walk through all possible descriptors.
MAX_DESCRIPTORS = 65536
# For the database, the models' pipes and sockets, libraries. Of the others a connection has half:
# a request may have a file in the spool and a connection to its model as well.
OWN_DESCRIPTORS = 64
# What uvicorn has without --timeout-keep-alive.
UVICORN_KEEP_ALIVE_S = 5
ACCEPT_FAILED = "socket.accept() out of system resource"
ACCEPT_REPORT_S = 60.0


def running_server() -> uvicorn.Server | None:
    """The uvicorn server that this process is about to open, however it was made.

    uvicorn has set one of its methods for SIGINT, and starts the application before it listens.
    None where another server runs the application, or uvicorn runs outside the main thread.
    """
    server = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, MAX_DESCRIPTORS at most; returns it.

    The usual soft limit of 1024 is for programs that use select(); systemd and Go do the same.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return MAX_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    return wanted


@contextlib.contextmanager
def bounded_server(limits: Limits) -> Iterator[None]:
    """To be entered before the server listens: its connections are ours from then on."""
    descriptors = raise_descriptor_limit()
    room = max(1, (descriptors - OWN_DESCRIPTORS) // 2)
    if room < limits.max_connections:
        log.warning(
            "fewer connections than configured: the limit of open files is low",
            extra={"connections": room, "open_files": descriptors},
        )
        limits = replace(limits, max_connections=room)
    server = running_server()
    if server is None:
        log.warning("request heads and connections have no bounds: this is not uvicorn's server")
        yield
        return
    if server.config.timeout_keep_alive != UVICORN_KEEP_ALIVE_S:
        limits = replace(limits, keep_alive_s=float(server.config.timeout_keep_alive))
    # A function that makes the protocol, which is all that uvicorn asks of the class.
    protocol: Any = functools.partial(HttpProtocol, Connections(limits))
    server.config.http_protocol_class = protocol
    with _accept_errors_once(asyncio.get_running_loop()):
        yield


@contextlib.contextmanager
def _accept_errors_once(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Without a free descriptor asyncio reports up to 2,048 failures a second (CPython
    gh-106527): one line a minute says the same."""
    reported_at = float("-inf")
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal reported_at
        if context.get("message") != ACCEPT_FAILED:
            (before or type(loop).default_exception_handler)(loop, context)
        elif time.monotonic() - reported_at > ACCEPT_REPORT_S:
            reported_at = time.monotonic()
            log.error("cannot accept connections", extra={"reason": str(context.get("exception"))})

    loop.set_exception_handler(handle)
    try:
        yield
    finally:
        loop.set_exception_handler(before)


# <malloc.h>
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KEEP_FREE_BYTES = 16 << 20
LARGEST_IN_HEAP_BYTES = 4 << 20


def tune_allocator() -> None:
    """Keep some freed memory for the next request, and have one heap. To be called before the
    first thread starts; without glibc it does nothing.

    By default glibc returns what a read of a socket has freed and takes it anew for the next: page
    faults were a fifth of an upload's time. And each thread gets a heap of its own, of which the
    parts that are free can serve no other: memory that seems to grow for hours.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEEP_FREE_BYTES)
    mallopt(M_ARENA_MAX, 1)
