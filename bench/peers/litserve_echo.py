"""The echo model as a LitServe API: JSON, or a file in a multipart form."""

import hashlib
import os
import sys
from typing import Any

import litserve as ls
from fastapi import Request


class Echo(ls.LitAPI):  # type: ignore[misc]
    """Gives back what it was given."""

    def setup(self, device: str) -> None:
        """Nothing to load."""

    def decode_request(self, request: Request) -> Any:
        """A JSON object, or a form's fields: LitServe reads either for this annotation."""
        file = request.get("file")
        return (request.get("text", "hello"), file.file.read() if file is not None else None)

    def predict(self, x: Any) -> Any:
        """The same work as tests/packages/echo."""
        text, body = x
        return {
            "text": text,
            "number": 0.5,
            "file_bytes": None if body is None else len(body),
            "file_sha256": None if body is None else hashlib.sha256(body).hexdigest(),
            "file_suffix": None,
            "pid": os.getpid(),
        }

    def encode_response(self, output: Any) -> Any:
        """JSON as it is."""
        return output


if __name__ == "__main__":
    ls.LitServer(Echo(), accelerator="cpu", workers_per_device=1).run(
        host="127.0.0.1", port=int(sys.argv[1]), num_api_servers=1, generate_client_file=False
    )
