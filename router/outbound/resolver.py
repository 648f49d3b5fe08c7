"""Resolves names that the operator has configured.

These are the names of other routers, of a publisher, and of this router's own public address. The
system resolves them, because only the system may know them (mDNS, nsswitch.conf). Nothing is
cached, because a tunnel's name is asked for until it exists. `getaddrinfo` blocks a thread until it
gives up, so it has its own threads: the shared pool writes uploads. URLs from callers go through
`public_http`, which needs no threads.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

THREADS = 4
FLAGS = socket.AI_ADDRCONFIG
_pool = ThreadPoolExecutor(THREADS, thread_name_prefix="resolver")  # starts none until used


class SystemResolver(AbstractResolver):
    """Runs `getaddrinfo` in this module's threads."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the host's addresses. Raises OSError when the name cannot be resolved."""
        ask = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=FLAGS
        )
        found = await asyncio.get_running_loop().run_in_executor(_pool, ask)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        results = []
        for its_family, _, protocol, _, address in found:
            name = str(address[0])
            if len(address) == 4 and address[3] and "%" not in name:  # a link-local address
                name = f"{name}%{address[3]}"
            results.append(
                ResolveResult(
                    hostname=host,
                    host=name,
                    port=port,
                    family=its_family,
                    proto=protocol,
                    flags=numeric,
                )
            )
        return results

    async def close(self) -> None:
        """Do nothing: the threads are shared."""


def system_connector(limit: int = 100) -> aiohttp.TCPConnector:
    """Return a connector to machines that the operator has configured.

    `limit`: the number of connections, 0 for no limit.
    """
    return aiohttp.TCPConnector(resolver=SystemResolver(), limit=limit)
