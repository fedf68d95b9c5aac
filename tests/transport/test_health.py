"""The health port."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from mpc_engine.errors import DocumentError
from mpc_engine.transport.health import ALIVE, ANALYST, PEER, HealthServer

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:8471", "127.8.9.1:1"])
def test_loopback_addresses(address: str) -> None:
    async def run() -> None:
        HealthServer(address)

    asyncio.run(run())


@pytest.mark.parametrize(
    "address", ["0.0.0.0:1", "[::]:1", "example.org:1", "192.168.1.4:1", "127.0.0.1", ":1", "", "127.0.0.1:x"]
)
def test_others_are_refused(address: str) -> None:
    async def run() -> None:
        with pytest.raises(DocumentError, match="health port listens on"):
            HealthServer(address)

    asyncio.run(run())


def test_what_is_said_is_what_was_set() -> None:
    async def run() -> None:
        server = HealthServer("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            stub = health_pb2_grpc.HealthStub(channel)

            async def status(service: str) -> int:
                return int((await stub.Check(health_pb2.HealthCheckRequest(service=service))).status)

            assert [await status(each) for each in (ALIVE, PEER, ANALYST)] == [SERVING] + [NOT_SERVING] * 2
            watch = stub.Watch(health_pb2.HealthCheckRequest(service=PEER))
            seen = [(await watch.read()).status]
            for serving in (True, False, True):
                server.set(PEER, serving)
                seen.append((await watch.read()).status)
            assert seen == [NOT_SERVING, SERVING, NOT_SERVING, SERVING]
            assert await status(PEER) == SERVING
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await status("other")
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND
            with pytest.raises(DocumentError, match="no service"):
                server.set("other", True)
            second = HealthServer(f"127.0.0.1:{server.port}")
            with pytest.raises(DocumentError, match="in use"):
                await second.start()
            stopping = asyncio.create_task(server.stop(0.2))
            assert (await watch.read()).status == NOT_SERVING
            await stopping

    asyncio.run(run())
