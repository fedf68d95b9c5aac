"""A port of analysts on loopback, and analysts who call it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest

from mpc_engine.identity import Identity, throwaway_identity
from mpc_engine.transport.analyst_channel import AnalystChannel
from mpc_engine.transport.analyst_port import AnalystServer

T = TypeVar("T")


@cache
def someone(name: str) -> Identity:
    """Return the throw-away identity of `name`, the same for all tests."""
    return throwaway_identity(name, role="analyst" if name in ("alice", "bob", "mallory") else "party")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a test that hangs for no longer than a minute."""

    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await main

    return asyncio.run(bounded())


async def echo(analyst: str, method: str, body: bytes) -> bytes:
    """Answer with who called what."""
    return f"{analyst} {method} ".encode() + body


class Port:
    """A server and what its tests change about it."""

    def __init__(self, handle: Callable[[str, str, bytes], Awaitable[bytes]], **options: Any) -> None:
        self.enrolled = [someone("alice"), someone("bob")]
        self.server = AnalystServer(
            "127.0.0.1:0",
            someone("uk"),
            trusted=lambda: {each.fingerprint: each.certificate.pem for each in self.enrolled},
            handle=handle,
            **options,
        )
        self.address = ""
        self._channels: list[AnalystChannel] = []

    def channel(self, name: str = "alice", **options: Any) -> AnalystChannel:
        """Return a new channel of an analyst."""
        made = AnalystChannel(self.address, someone(name), someone("uk").certificate.pem, "uk", **options)
        self._channels.append(made)
        return made

    @asynccontextmanager
    async def raw(self, name: str = "alice", **options: int) -> AsyncIterator[grpc.aio.Channel]:
        """Yield a bare channel, for what our own client would not send."""
        me = someone(name)
        credentials = grpc.ssl_channel_credentials(
            someone("uk").certificate.pem, me.private_key_pem, me.certificate.pem
        )
        settings = [("grpc.ssl_target_name_override", "uk"), ("grpc.max_send_message_length", 1 << 30)]
        async with grpc.aio.secure_channel(
            self.address,
            credentials,
            [*settings, *(("grpc." + key, value) for key, value in options.items())],
        ) as channel:
            yield channel


@asynccontextmanager
async def serving(
    handle: Callable[[str, str, bytes], Awaitable[bytes]] = echo, **options: Any
) -> AsyncIterator[Port]:
    """Yield a running port."""
    port = Port(handle, **options)
    port.address = f"127.0.0.1:{await port.server.start()}"
    try:
        yield port
    finally:
        for channel in port._channels:
            await channel.close()
        await port.server.stop(0)


async def failed(call: Any) -> grpc.aio.AioRpcError:
    """Return how a raw call failed."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in call:
            pass
    return caught.value
