"""The health port: `grpc.health.v1` in plain text, for probes on this machine only.

The library's own servicer would let one slow watcher hold up whoever sets a status.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import AsyncIterator

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc_engine.errors import DocumentError

ALIVE = ""
PEER = "mpc.Peer"
ANALYST = "mpc.Analyst"
SERVICES = (ALIVE, PEER, ANALYST)
"""The services that can be asked about: the process, work with peers, the analysts' port."""

_OPTIONS = [
    ("grpc.so_reuseport", 0),
    ("grpc.max_receive_message_length", 1 << 10),
    ("grpc.max_concurrent_streams", 16),
]
_Context = grpc.aio.ServicerContext[health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse]


class HealthServer:
    """Answers at `address`, a loopback ``host:port``; port 0 takes a free one.

    The process counts as serving from the start, the rest only once `set` says so. Raises DocumentError for
    an address that others could reach: what it tells is not for them, and nobody has to prove who he is.
    """

    def __init__(self, address: str) -> None:
        if not _is_loopback(address):
            raise DocumentError(f"the health port listens on 127.0.0.1 or [::1] only, not on {address!r}")
        self._address = address
        self._servicer = _Servicer()
        self._server: grpc.aio.Server | None = None
        self.port: int | None = None
        """The port it listens on, once started."""

    async def start(self) -> None:
        """Begin to answer. Raises DocumentError if the address is in use."""
        server = grpc.aio.server(options=_OPTIONS)
        health_pb2_grpc.add_HealthServicer_to_server(self._servicer, server)
        try:
            self.port = server.add_insecure_port(self._address)
        except RuntimeError:
            raise DocumentError(
                f"cannot listen on {self._address}: it is in use, or no address of this machine"
            ) from None
        await server.start()
        self._server = server

    def set(self, service: str, serving: bool) -> None:
        """Say from now on whether one of `SERVICES` serves. Raises DocumentError for any other."""
        self._servicer.set(service, serving)

    async def stop(self, grace_s: float = 0.5) -> None:
        """Say that nothing serves, then stop answering and free the address."""
        for service in SERVICES:
            self._servicer.set(service, False)
        if self._server is not None:
            await self._server.stop(grace_s)
            self._server = None


class _Servicer(health_pb2_grpc.HealthServicer):
    """The two calls of the standard."""

    def __init__(self) -> None:
        self._serving = {service: service == ALIVE for service in SERVICES}
        self._changed = asyncio.Event()  # replaced after each change

    def set(self, service: str, serving: bool) -> None:
        """Change a status and tell those who watch."""
        if service not in self._serving:
            raise DocumentError(f"{service!r} is no service that the health port knows")
        self._serving[service] = serving
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    async def Check(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> health_pb2.HealthCheckResponse:
        """Return one service's status; NOT_FOUND for an unknown one."""
        if request.service not in self._serving:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return self._answer(request.service)

    async def Watch(  # noqa: N802
        self, request: health_pb2.HealthCheckRequest, context: _Context
    ) -> AsyncIterator[health_pb2.HealthCheckResponse]:
        """Return one service's status now and after each change."""
        last = None
        while True:
            changed, answer = self._changed, self._answer(request.service)
            if answer != last:
                yield answer
                last = answer
            else:
                await changed.wait()

    def _answer(self, service: str) -> health_pb2.HealthCheckResponse:
        serving = self._serving.get(service)
        if serving is None:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVICE_UNKNOWN)
        if serving:
            return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.NOT_SERVING)


def _is_loopback(address: str) -> bool:
    host, colon, port = address.rpartition(":")
    if not (colon and port.isascii() and port.isdecimal() and int(port) < 1 << 16):
        return False
    try:
        return host == "localhost" or ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
