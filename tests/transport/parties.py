"""Networks of a few parties for the transport tests: in memory, or over gRPC on loopback."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache

import grpc
import grpc.aio

from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryLink, MemoryNetwork
from mpc_engine.transport import tls
from mpc_engine.transport.grpc_link import Endpoint, GrpcLink
from mpc_engine.transport.options import PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY

AnyLink = MemoryLink | GrpcLink
KEY = MessageKey(0, Section.CONTROL, 0)


@cache
def identity(name: str) -> tls.Identity:
    """Return the throw-away identity of `name`, the same for all tests."""
    return tls.throwaway_identity(name)


def roster(count: int) -> list[Endpoint]:
    """Return parties p1, p2, … with addresses still to be given."""
    return [
        Endpoint(n, f"p{n}", "127.0.0.1:1", identity(f"p{n}").certificate.pem) for n in range(1, count + 1)
    ]


def grpc_links(
    parties: int,
    computing: int | None = None,
    *,
    connect_timeout_s: float = 10.0,
    round_timeout_s: float = 10.0,
    max_ahead_bytes: int = 1 << 26,
) -> list[GrpcLink]:
    """Return unopened links of parties 1..`parties`."""
    return [
        GrpcLink(
            me,
            identity(f"p{me}"),
            roster(parties),
            computing=parties if computing is None else computing,
            connect_timeout_s=connect_timeout_s,
            round_timeout_s=round_timeout_s,
            max_ahead_bytes=max_ahead_bytes,
        )
        for me in range(1, parties + 1)
    ]


async def listen_all(links: list[GrpcLink]) -> dict[int, str]:
    """Let every link that is dialled listen on a free port; return the addresses."""
    return {
        link.me: f"127.0.0.1:{await link.listen('127.0.0.1:0')}"
        for link in links
        if any(peer > link.me for peer in link.peers)
    }


@asynccontextmanager
async def opened(
    kind: str,
    parties: int = 3,
    computing: int | None = None,
    *,
    round_timeout_s: float = 10.0,
    max_ahead_bytes: int = 1 << 26,
) -> AsyncIterator[list[AnyLink]]:
    """Yield open links of `kind`, memory or grpc; whatever is still open is aborted at the end."""
    links: list[AnyLink] = []
    if kind == "memory":
        network = MemoryNetwork(
            parties, computing, round_timeout_s=round_timeout_s, max_ahead_bytes=max_ahead_bytes
        )
        links.extend(network.links())
    else:
        over_grpc = grpc_links(
            parties, computing, round_timeout_s=round_timeout_s, max_ahead_bytes=max_ahead_bytes
        )
        addresses = await listen_all(over_grpc)
        await asyncio.gather(*(link.open(addresses) for link in over_grpc))
        links.extend(over_grpc)
    try:
        yield links
    finally:
        await asyncio.gather(*(link.abort("INTERNAL", "the test is over") for link in links))


@asynccontextmanager
async def raw_peer() -> AsyncIterator[tuple[GrpcLink, grpc.aio.StreamStreamCall[bytes, bytes]]]:
    """Yield party 1's open link, and the raw stream of party 2."""
    one, _ = grpc_links(2)
    address = (await listen_all([one]))[1]
    caller = identity("p2")
    credentials = grpc.ssl_channel_credentials(
        identity("p1").certificate.pem, caller.private_key_pem, caller.certificate.pem
    )
    options = [("grpc.ssl_target_name_override", "p1"), ("grpc.max_send_message_length", 64 << 20)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        call = channel.stream_stream(SESSION_METHOD)(metadata=((VERSION_KEY, PROTOCOL_VERSION),))
        await one.open()
        try:
            yield one, call
        finally:
            call.cancel()
            await one.abort("INTERNAL", "the test is over")


def free_port() -> int:
    """Return a port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
