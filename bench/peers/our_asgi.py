"""The bare application behind uvicorn with the router's protocol: argv is the port and the loop."""

import functools
import sys

import bare_asgi
import uvicorn

from router.http.connections import Connections
from router.http.http1_protocol import HttpProtocol

if __name__ == "__main__":
    uvicorn.run(
        bare_asgi.app,
        port=int(sys.argv[1]),
        loop=sys.argv[2],
        http=functools.partial(HttpProtocol, Connections()),  # type: ignore[arg-type]
        access_log=False,
    )
