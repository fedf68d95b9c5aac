"""Networks of a few parties for the transport tests: in memory, or over gRPC on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from functools import cache
from typing import Any

import grpc
import grpc.aio

from mpc_engine.identity.folder import Identity, throwaway_identity
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryLink, MemoryNetwork
from mpc_engine.transport.endpoint import Endpoint
from mpc_engine.transport.grpc_link import GrpcLink
from mpc_engine.transport.grpc_switchboard import GrpcSwitchboard
from mpc_engine.transport.options import LINK_KEY, PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY

AnyLink = MemoryLink | GrpcLink
KEY = MessageKey(0, Section.CONTROL, 0)
NAME = b"n" * 32
LOOPBACK = "127.0.0.1:0"


@cache
def identity(name: str) -> Identity:
    """Return the throw-away identity of `name`, the same for all tests."""
    return throwaway_identity(name)


def roster(count: int, addresses: Mapping[int, str] | None = None) -> list[Endpoint]:
    """Return parties p1, p2, … at the given addresses."""
    book = dict(addresses or {})
    return [
        Endpoint(n, f"p{n}", book.get(n, "127.0.0.1:1"), (identity(f"p{n}").certificate.pem,))
        for n in range(1, count + 1)
    ]


class Ear:
    """A listener that keeps what it was told, and can be waited on."""

    def __init__(self) -> None:
        self.events: list[tuple[str, int, object]] = []
        self.messages: list[tuple[int, bytes]] = []
        self._news = asyncio.Event()

    def line_up(self, peer: int) -> None:
        """Keep it."""
        self._note("up", peer, "")

    def line_down(self, peer: int, why: str) -> None:
        """Keep it."""
        self._note("down", peer, why)

    def heard(self, peer: int, message: bytes) -> None:
        """Keep it."""
        self.messages.append((peer, message))
        self._news.set()

    def _note(self, kind: str, peer: int, words: object) -> None:
        self.events.append((kind, peer, words))
        self._news.set()

    async def until(self, holds: Callable[[], bool], within_s: float = 20.0) -> None:
        """Wait until `holds`, looking again after each piece of news."""
        async with asyncio.timeout(within_s):
            while not holds():
                self._news.clear()
                await self._news.wait()

    def count(self, kind: str, peer: int) -> int:
        """Return how often this was told."""
        return sum(event[:2] == (kind, peer) for event in self.events)


def board(
    me: int, endpoints: Sequence[Endpoint], *, listen: str | None = LOOPBACK, **settings: Any
) -> GrpcSwitchboard:
    """Return the switchboard of party `me`, which is p`me`; all parties compute unless told otherwise."""
    settings = {"computing": len(endpoints)} | settings
    return GrpcSwitchboard(me, identity(f"p{me}"), endpoints, listen=listen, **settings)


@asynccontextmanager
async def boards(
    parties: int, computing: int | None = None, **settings: Any
) -> AsyncIterator[tuple[list[GrpcSwitchboard], list[Ear]]]:
    """Yield running switchboards of parties 1..`parties` and their listeners, before their lines are up."""
    started: list[GrpcSwitchboard] = []
    ears: list[Ear] = []
    addresses: dict[int, str] = {}
    try:
        for me in range(1, parties + 1):
            each = board(me, roster(parties, addresses), computing=computing or parties, **settings)
            ears.append(Ear())
            started.append(each)
            await each.start(ears[-1])
            addresses[me] = f"127.0.0.1:{each.port}"
        yield started, ears
    finally:
        await asyncio.gather(*(each.stop(0.5) for each in started))


async def all_up(started: Sequence[GrpcSwitchboard], ears: Sequence[Ear]) -> None:
    """Wait until every line stands."""
    for each, ear in zip(started, ears, strict=True):
        await ear.until(lambda each=each: all(each.connected(peer) for peer in each.peers))  # type: ignore[misc]


def link(
    each: GrpcSwitchboard,
    name: bytes = NAME,
    *,
    connect_timeout_s: float = 10.0,
    round_timeout_s: float = 60.0,
    max_ahead_bytes: int = 1 << 26,
) -> Any:
    """Return the context of a link."""
    return each.link(
        name,
        connect_timeout_s=connect_timeout_s,
        round_timeout_s=round_timeout_s,
        max_ahead_bytes=max_ahead_bytes,
    )


@asynccontextmanager
async def opened(
    kind: str,
    parties: int = 3,
    computing: int | None = None,
    *,
    round_timeout_s: float = 60.0,
    max_ahead_bytes: int = 1 << 26,
) -> AsyncIterator[list[AnyLink]]:
    """Yield open links of `kind`, memory or grpc; whatever is still open is aborted at the end."""
    limits = {"round_timeout_s": round_timeout_s, "max_ahead_bytes": max_ahead_bytes}
    if kind == "memory":
        links: list[AnyLink] = []
        links.extend(MemoryNetwork(parties, computing, **limits).links())  # type: ignore[arg-type]
        yield links
        return
    async with boards(parties, computing) as (started, _):
        contexts = [link(each, **limits) for each in started]  # type: ignore[arg-type]
        links = list(await asyncio.gather(*(context.__aenter__() for context in contexts)))
        try:
            yield links
        finally:
            await asyncio.gather(*(each.abort("INTERNAL", "the test is over") for each in links))
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))


@asynccontextmanager
async def raw_channel(
    port: int | None, caller: Identity, server: str = "p1", **options: int
) -> AsyncIterator[grpc.aio.Channel]:
    """Yield a bare connection of `caller` to p1's port."""
    credentials = grpc.ssl_channel_credentials(
        identity(server).certificate.pem, caller.private_key_pem, caller.certificate.pem
    )
    settings: list[tuple[str, str | int]] = [
        ("grpc.ssl_target_name_override", server),
        ("grpc.use_local_subchannel_pool", 1),
        *((key.replace("__", "."), value) for key, value in options.items()),
    ]
    async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, settings) as channel:
        yield channel


def session_metadata(name: bytes = NAME, version: str = PROTOCOL_VERSION) -> tuple[tuple[str, str], ...]:
    """Return the metadata of a session's stream."""
    return ((VERSION_KEY, version), (LINK_KEY, name.hex()))


@asynccontextmanager
async def raw_peer(
    **limits: Any,
) -> AsyncIterator[tuple[GrpcLink, grpc.aio.StreamStreamCall[bytes, bytes]]]:
    """Yield party 1's open link, and the raw stream of party 2."""
    async with AsyncExitStack() as stack:
        one = board(1, roster(2))
        await one.start(Ear())
        stack.push_async_callback(one.stop, 0.5)
        channel = await stack.enter_async_context(
            raw_channel(one.port, identity("p2"), grpc__max_send_message_length=64 << 20)
        )
        call = channel.stream_stream(SESSION_METHOD)(metadata=session_metadata())
        context = link(one, **limits)
        opened_link = await context.__aenter__()
        try:
            yield opened_link, call
        finally:
            call.cancel()
            await opened_link.abort("INTERNAL", "the test is over")
            await context.__aexit__(None, None, None)


def with_certificates(endpoint: Endpoint, *identities: Identity) -> Endpoint:
    """Return the endpoint with these identities' certificates instead."""
    return replace(endpoint, certificates=tuple(each.certificate.pem for each in identities))


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
