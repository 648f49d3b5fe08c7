"""Limits of the process and its HTTP server: file descriptors, connections, request heads."""

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
from router.http.http1_protocol import HttpProtocol

log = logging.getLogger(__name__)

# A higher limit would make those programs of models slow that walk through all possible
# descriptors.
MAX_DESCRIPTORS = 65536
# For the database, the models' pipes and sockets, and libraries. Of the others, half are for
# clients' connections: each request may also need a file in the spool and a connection to its
# model.
OWN_DESCRIPTORS = 64
# uvicorn's default without --timeout-keep-alive.
UVICORN_KEEP_ALIVE_S = 5
ACCEPT_FAILED = "socket.accept() out of system resource"
ACCEPT_REPORT_S = 60.0


def running_server() -> uvicorn.Server | None:
    """The uvicorn server of this process, found by its handler for SIGINT.

    uvicorn sets one of its methods as the handler, and starts the application before it listens.
    None when another server runs the application, or uvicorn runs outside the main thread.
    """
    server = getattr(signal.getsignal(signal.SIGINT), "__self__", None)
    return server if isinstance(server, uvicorn.Server) else None


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open files to the hard one, at most MAX_DESCRIPTORS. Returns the new
    one.

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
    """Set the limits of uvicorn's server. Enter this before the server listens."""
    descriptors = raise_descriptor_limit()
    room = max(1, (descriptors - OWN_DESCRIPTORS) // 2)
    if room < limits.max_connections:
        log.warning(
            "fewer connections than configured, as the limit of open files is low",
            extra={"connections": room, "open_files": descriptors},
        )
        limits = replace(limits, max_connections=room)
    server = running_server()
    if server is None:
        log.warning("request heads and connections have no limits: this is not uvicorn's server")
        yield
        return
    if server.config.timeout_keep_alive != UVICORN_KEEP_ALIVE_S:
        limits = replace(limits, keep_alive_s=float(server.config.timeout_keep_alive))
    # uvicorn only calls the class to make a protocol object, so a function works too.
    protocol: Any = functools.partial(HttpProtocol, Connections(limits))
    server.config.http_protocol_class = protocol
    with _accept_errors_once(asyncio.get_running_loop()):
        yield


@contextlib.contextmanager
def _accept_errors_once(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Log failures to accept a connection at most once in ACCEPT_REPORT_S. Without a free
    descriptor asyncio reports up to 2,048 failures a second (CPython gh-106527)."""
    reported_at = float("-inf")
    before = loop.get_exception_handler()

    def handle(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        nonlocal reported_at
        if context.get("message") != ACCEPT_FAILED:
            (before or type(loop).default_exception_handler)(loop, context)
        elif time.monotonic() - reported_at > ACCEPT_REPORT_S:
            reported_at = time.monotonic()
            log.error("Cannot accept connections", extra={"reason": str(context.get("exception"))})

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
    """Keep some freed memory for the next request, and use one heap for all threads. Call it before
    the first thread starts. Without glibc it does nothing.

    By default glibc returns the memory of each socket read to the system, and takes it again for
    the next one; these page faults were a fifth of an upload's time. And each thread gets its own
    heap, whose free parts no other thread can use, so memory seems to grow for hours.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(M_MMAP_THRESHOLD, LARGEST_IN_HEAP_BYTES)
    mallopt(M_TRIM_THRESHOLD, KEEP_FREE_BYTES)
    mallopt(M_ARENA_MAX, 1)
