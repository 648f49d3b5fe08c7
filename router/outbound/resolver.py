"""Names of machines that the operator has named: other boxes, a publisher, this box's own address.

Asked for in the system's own way, since they may be known only to it (mDNS, nsswitch.conf) and
must not be remembered (a tunnel's name is asked for until it is there). `getaddrinfo` blocks a
thread until it gives up, so it has threads of its own: the pool that everything shares writes
uploads. URLs of callers are `public_http`'s, which needs no threads.
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
    """`getaddrinfo`, in this module's threads."""

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """The host's addresses. Raises OSError."""
        ask = partial(
            socket.getaddrinfo, host, port, family=family, type=socket.SOCK_STREAM, flags=FLAGS
        )
        found = await asyncio.get_running_loop().run_in_executor(_pool, ask)
        numeric = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        results = []
        for its_family, _, protocol, _, address in found:
            name = str(address[0])
            if len(address) == 4 and address[3] and "%" not in name:  # a link's own address
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
        """Nothing to close: the threads are everybody's."""


def system_connector(limit: int = 100) -> aiohttp.TCPConnector:
    """Connects to machines that the operator has named; `limit` connections, 0 for any number."""
    return aiohttp.TCPConnector(resolver=SystemResolver(), limit=limit)
