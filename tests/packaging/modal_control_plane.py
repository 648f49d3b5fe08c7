"""A stand-in for Modal's control plane: takes a deploy, and remembers what it was asked.

It answers as much of `modal.client.ModalClient` (modal 1.6.4) as a deploy calls, over real
gRPC; whatever else is called fails as unimplemented. What it proves is the request: not that
Modal accepts it.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import grpclib
from google.protobuf.empty_pb2 import Empty
from google.protobuf.json_format import MessageToDict
from grpclib.server import Server, Stream
from modal_proto import api_grpc
from modal_proto import api_pb2 as pb

SUCCESS = pb.GenericResult(status=pb.GenericResult.GENERIC_STATUS_SUCCESS)


class ControlPlane:
    """`calls`: name and JSON of every request, in order. `url`: what MODAL_SERVER_URL must be."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.unknown: list[str] = []
        self.url = ""
        self._images = 0

    def requests(self, name: str) -> list[dict[str, Any]]:
        """The requests of one kind."""
        return [request for called, request in self.calls if called == name]

    # ---- one method per call that has more to say than an id ------------------------------

    def auth_token_get(self, _: Any) -> Any:
        """A token that is good for an hour; nothing checks its signature."""

        def part(claims: dict[str, Any]) -> str:
            return base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()

        token = f"{part({'alg': 'none'})}.{part({'exp': int(time.time()) + 3600})}.x"
        return pb.AuthTokenGetResponse(token=token)

    def image_get_or_create(self, _: Any) -> Any:
        """Every layer is built at once."""
        self._images += 1
        metadata = pb.ImageMetadata(python_version_info="Python 3.11.9")
        return pb.ImageGetOrCreateResponse(
            image_id=f"im-{self._images}", result=SUCCESS, metadata=metadata
        )

    def function_precreate(self, request: Any) -> Any:
        """An id for the name."""
        handle = pb.FunctionHandleMetadata(function_name=request.function_name)
        return pb.FunctionPrecreateResponse(function_id="fu-1", handle_metadata=handle)

    def function_create(self, request: Any) -> Any:
        """What was asked for is what there is."""
        function = request.function
        data = pb.FunctionData(function_name=function.function_name)
        data.ranked_functions.add(rank=0).function.CopyFrom(function)
        handle = pb.FunctionHandleMetadata(function_name=function.function_name)
        return pb.FunctionCreateResponse(
            function_id="fu-1", function=function, function_data=data, handle_metadata=handle
        )

    def handlers(self) -> dict[str, Callable[[Any], Any]]:
        """Every call that a deploy makes."""
        settings = pb.EnvironmentSettings(image_builder_version="2025.06")
        environment = pb.EnvironmentGetOrCreateResponse(
            environment_id="en-1",
            metadata=pb.EnvironmentMetadata(name="main", settings=settings),
        )
        fixed: dict[str, Any] = {
            "ClientHello": pb.ClientHelloResponse(),
            "AppGetOrCreate": pb.AppGetOrCreateResponse(app_id="ap-1"),
            "AppCreate": pb.AppCreateResponse(app_id="ap-1"),
            "AppGetByDeploymentName": pb.AppGetByDeploymentNameResponse(),
            "AppPublish": pb.AppPublishResponse(
                url="http://modal.invalid/app", deployed_at=time.time()
            ),
            "AppSetObjects": Empty(),
            "AppClientDisconnect": Empty(),
            "AppHeartbeat": Empty(),
            "EnvironmentGetOrCreate": environment,
            "VolumeGetOrCreate": pb.VolumeGetOrCreateResponse(volume_id="vo-1"),
            "SecretGetOrCreate": pb.SecretGetOrCreateResponse(secret_id="st-1"),  # noqa: S106
            "ImageJoinStreaming": [pb.ImageJoinStreamingResponse(result=SUCCESS)],
            "MountGetOrCreate": pb.MountGetOrCreateResponse(mount_id="mo-1"),
            "MountBatchedCheckExistence": pb.MountBatchedCheckExistenceResponse(),
            "MountPutFile": pb.MountPutFileResponse(exists=True),
            "ClassCreate": pb.ClassCreateResponse(
                class_id="cs-1", handle_metadata=pb.ClassHandleMetadata()
            ),
        }
        computed = {
            "AuthTokenGet": self.auth_token_get,
            "ImageGetOrCreate": self.image_get_or_create,
            "FunctionPrecreate": self.function_precreate,
            "FunctionCreate": self.function_create,
        }

        def constant(answer: Any) -> Callable[[Any], Any]:
            return lambda _: answer

        return {**{name: constant(answer) for name, answer in fixed.items()}, **computed}

    def _handler(
        self, name: str, answer: Callable[[Any], Any] | None
    ) -> Callable[[Any, Stream[Any, Any]], Awaitable[None]]:
        async def handle(_: Any, stream: Stream[Any, Any]) -> None:
            if answer is None:
                self.unknown.append(name)
                raise grpclib.GRPCError(grpclib.Status.UNIMPLEMENTED, name)
            request = await stream.recv_message()
            self.calls.append((name, MessageToDict(request)))
            answered = answer(request)
            for message in answered if isinstance(answered, list) else [answered]:
                await stream.send_message(message)

        return handle

    def service(self) -> Any:
        """The gRPC service."""
        base = api_grpc.ModalClientBase
        known = self.handlers()
        names = base.__abstractmethods__
        methods = {name: self._handler(name, known.get(name)) for name in names}
        return type("Service", (base,), methods)()


@contextlib.contextmanager
def control_plane() -> Iterator[ControlPlane]:
    """Serve on a free port of loopback, in a thread of its own."""
    plane = ControlPlane()
    loop = asyncio.new_event_loop()
    ready = threading.Event()
    done = asyncio.Event()

    async def serve() -> None:
        server = Server([plane.service()])
        with socket.socket() as listening:
            listening.bind(("127.0.0.1", 0))
            plane.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
            await server.start(sock=listening.dup())
        ready.set()
        await done.wait()
        server.close()
        await server.wait_closed()

    thread = threading.Thread(target=lambda: loop.run_until_complete(serve()), daemon=True)
    thread.start()
    assert ready.wait(30)
    try:
        yield plane
    finally:
        loop.call_soon_threadsafe(done.set)
        thread.join(30)
        loop.close()
