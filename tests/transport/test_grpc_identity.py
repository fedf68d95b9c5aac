"""Who may connect over gRPC, and what is said when that fails."""

from __future__ import annotations

import asyncio
import logging

import grpc
import grpc.aio
import pytest

from mpc_engine.errors import (
    DataError,
    DeadlineError,
    DocumentError,
    EngineError,
    MismatchError,
    PeerAbortedError,
    PeerError,
)
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport import tls
from mpc_engine.transport.grpc_link import Endpoint, GrpcLink, connect
from mpc_engine.transport.options import PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY
from tests.transport.forgery import certificate_authority, leaf_signed_by
from tests.transport.parties import KEY, free_port, grpc_links, identity, listen_all, roster


def test_a_roster_must_be_sound() -> None:
    me = identity("p1")
    with pytest.raises(DocumentError, match="number its parties"):
        GrpcLink(1, me, [roster(3)[0], roster(3)[2]], computing=2)
    with pytest.raises(DocumentError, match="cannot compute"):
        GrpcLink(1, me, roster(3), computing=4)
    twin = Endpoint(2, "p2", "", me.certificate.pem)
    with pytest.raises(DocumentError, match="same certificate"):
        GrpcLink(1, me, [roster(1)[0], twin], computing=2)
    namesake = Endpoint(2, "p2", "", tls.throwaway_identity("p1").certificate.pem)
    with pytest.raises(DocumentError, match="same certificate or name"):
        GrpcLink(1, me, [roster(1)[0], namesake], computing=2)
    with pytest.raises(DocumentError, match="which is this party"):
        GrpcLink(1, identity("p2"), roster(3), computing=3)


def test_a_dialler_whose_certificate_is_not_pinned_is_refused() -> None:
    async def run() -> None:
        one, _ = grpc_links(2, connect_timeout_s=1.5)
        stranger = tls.throwaway_identity("p2")
        book = [roster(2)[0], Endpoint(2, "p2", "", stranger.certificate.pem)]
        two = GrpcLink(2, stranger, book, computing=2, connect_timeout_s=5)
        addresses = await listen_all([one])
        first, second = await asyncio.gather(one.open(), two.open(addresses), return_exceptions=True)
        assert isinstance(first, DeadlineError)
        assert "party 2 (p2) has not dialled" in str(first)
        assert isinstance(second, PeerError)
        assert "party 1 (p1) refuses this party's certificate " + stranger.fingerprint in str(second)

    asyncio.run(run())


def test_a_listener_with_another_certificate_than_the_pinned_one_is_named() -> None:
    async def run() -> None:
        stranger = tls.throwaway_identity("p1")
        theirs = [Endpoint(1, "p1", "", stranger.certificate.pem), roster(2)[1]]
        one = GrpcLink(1, stranger, theirs, computing=2, connect_timeout_s=1)
        _, two = grpc_links(2, connect_timeout_s=5)
        addresses = await listen_all([one])
        first, second = await asyncio.gather(one.open(), two.open(addresses), return_exceptions=True)
        assert isinstance(first, DeadlineError)
        assert isinstance(second, PeerError) and not isinstance(second, DeadlineError)
        assert stranger.fingerprint in str(second)
        assert identity("p1").fingerprint in str(second)

    asyncio.run(run())


async def _raw_status(address: str, caller: tls.Identity, version: str = PROTOCOL_VERSION) -> grpc.StatusCode:
    """Open a stream to p1 at `address` as `caller`, and return how that ends."""
    credentials = grpc.ssl_channel_credentials(
        identity("p1").certificate.pem, caller.private_key_pem, caller.certificate.pem
    )
    options = [("grpc.ssl_target_name_override", "p1"), ("grpc.use_local_subchannel_pool", 1)]
    async with grpc.aio.secure_channel(address, credentials, options) as channel:
        call = channel.stream_stream(SESSION_METHOD)(metadata=((VERSION_KEY, version),))
        return await call.code()


def test_a_leaf_signed_by_a_pinned_leaf_fails_the_handshake() -> None:
    async def run() -> None:
        one, *_ = grpc_links(3)
        address = (await listen_all([one]))[1]
        forged = leaf_signed_by(identity("p3"), name="p2")
        assert await _raw_status(address, forged) is grpc.StatusCode.UNAVAILABLE
        await one.abort("INTERNAL", "the test is over")

    asyncio.run(run())


def test_a_leaf_signed_by_a_pinned_authority_is_known_by_its_fingerprint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An authority cannot be pinned; if it were, TLS would let its owner in as anybody."""
    authority = certificate_authority("p3")
    book = [*roster(2), Endpoint(3, "p3", "", authority.certificate.pem)]
    with pytest.raises(DocumentError, match="CA:TRUE"):
        GrpcLink(1, identity("p1"), book, computing=3)
    monkeypatch.setattr(tls, "_problem", lambda certificate, now: None)

    async def run() -> None:
        one = GrpcLink(1, identity("p1"), book, computing=3)
        address = (await listen_all([one]))[1]
        forged = leaf_signed_by(authority, name="p2")
        with caplog.at_level(logging.WARNING):
            assert await _raw_status(address, forged) is grpc.StatusCode.UNAUTHENTICATED
        assert forged.fingerprint in caplog.text
        await one.abort("INTERNAL", "the test is over")

    asyncio.run(run())


def test_an_expired_certificate_cannot_be_pinned() -> None:
    old = tls.throwaway_identity("p2").certificate
    with pytest.raises(DocumentError, match="expired"):
        tls.read_certificate(old.pem, where="roster", now=old.not_after)


def test_a_lower_number_does_not_dial() -> None:
    async def run() -> None:
        links = grpc_links(3)
        addresses = await listen_all(links)
        credentials = grpc.ssl_channel_credentials(
            identity("p2").certificate.pem, identity("p1").private_key_pem, identity("p1").certificate.pem
        )
        options = [("grpc.ssl_target_name_override", "p2")]
        async with grpc.aio.secure_channel(addresses[2], credentials, options) as channel:
            call = channel.stream_stream(SESSION_METHOD)(metadata=((VERSION_KEY, PROTOCOL_VERSION),))
            assert await call.code() is grpc.StatusCode.UNAVAILABLE
        await asyncio.gather(*(link.abort("INTERNAL", "the test is over") for link in links))

    asyncio.run(run())


def test_another_protocol_version(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        one, two = grpc_links(2, connect_timeout_s=0.5)
        addresses = await listen_all([one])
        monkeypatch.setattr("mpc_engine.transport.dial.PROTOCOL_VERSION", "2")
        first, second = await asyncio.gather(one.open(), two.open(addresses), return_exceptions=True)
        assert isinstance(first, DeadlineError)
        assert isinstance(second, MismatchError)
        assert "party 1 (p1)" in str(second)

    asyncio.run(run())


def test_parties_may_start_in_any_order() -> None:
    async def run() -> None:
        one, two, three = grpc_links(3)
        address_of_one = f"127.0.0.1:{free_port()}"
        addresses = {1: address_of_one} | await listen_all([two])
        opening = [asyncio.create_task(link.open(addresses)) for link in (three, two)]
        await asyncio.sleep(0.2)
        await one.listen(address_of_one)
        await asyncio.gather(one.open(), *opening)
        await asyncio.gather(*(link.close() for link in (one, two, three)))

    asyncio.run(run())


def test_who_is_missing_is_named_to_everybody() -> None:
    async def run() -> None:
        one, _, three = grpc_links(3, connect_timeout_s=0.4)
        nobody = f"127.0.0.1:{free_port()}"
        addresses = await listen_all([one])
        first, third = await asyncio.gather(
            one.open(), three.open(addresses | {2: nobody}), return_exceptions=True
        )
        assert isinstance(first, PeerError)
        assert "party 2 (p2)" in str(first)
        assert isinstance(third, PeerError)
        assert "party 2 (p2)" in str(third)

    asyncio.run(run())


def test_an_unreachable_peer_is_described() -> None:
    async def run() -> None:
        _, two = grpc_links(2, connect_timeout_s=0.3)
        nobody = f"127.0.0.1:{free_port()}"
        with pytest.raises(DeadlineError, match=rf"party 1 \(p1\) cannot be reached at {nobody}"):
            await two.open({1: nobody})

    asyncio.run(run())


def test_something_else_listens_there() -> None:
    async def run() -> None:
        async def shut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-nothing\r\n")
            writer.close()

        _, two = grpc_links(2, connect_timeout_s=0.5)
        async with await asyncio.start_server(shut, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(DeadlineError, match=r"party 1 \(p1\) does not complete a TLS handshake"):
                await two.open({1: f"127.0.0.1:{port}"})

    asyncio.run(run())


def test_two_listeners_on_one_port() -> None:
    async def run() -> None:
        one, _ = grpc_links(2)
        other, _ = grpc_links(2)
        port = await one.listen("127.0.0.1:0")
        try:
            with pytest.raises(DocumentError, match=f"cannot listen on 127.0.0.1:{port}"):
                await other.listen(f"127.0.0.1:{port}")
        finally:
            await asyncio.gather(*(link.abort("INTERNAL", "the test is over") for link in (one, other)))

    asyncio.run(run())


def test_a_party_that_is_dialled_must_listen() -> None:
    async def run() -> None:
        one, two = grpc_links(2)
        with pytest.raises(EngineError, match="must listen first"):
            await one.open()
        with pytest.raises(EngineError, match="nobody dials it"):
            await two.listen("127.0.0.1:0")

    asyncio.run(run())


def test_the_block_of_connect_ends_in_good_order_or_with_its_error_everywhere() -> None:
    async def run(error: Exception | None) -> list[BaseException | None]:
        port = free_port()
        book = [Endpoint(n, f"p{n}", f"127.0.0.1:{port}", identity(f"p{n}").certificate.pem) for n in (1, 2)]

        async def take_part(me: int) -> None:
            settings = {"listen_address": f"127.0.0.1:{port}"} if me == 1 else {}
            async with connect(me, identity(f"p{me}"), book, computing=2, **settings) as link:
                await link.send(3 - me, KEY, [b"hello"])
                assert await link.receive(3 - me, KEY, 5) == b"hello"
                if error is not None:
                    if me == 1:
                        raise error
                    await link.receive(1, MessageKey(0, Section.INPUT, 0), 1)

        return list(await asyncio.gather(take_part(1), take_part(2), return_exceptions=True))

    assert asyncio.run(run(None)) == [None, None]
    broken = DataError("the mapping lacks a code")
    first, second = asyncio.run(run(broken))
    assert first is broken
    assert isinstance(second, PeerAbortedError)
    assert "party 1 (p1) ended the session: DATA: the mapping lacks a code" in str(second)
    _, second = asyncio.run(run(ZeroDivisionError("cell 17 of patient 4")))
    assert "INTERNAL" in str(second)
    assert "patient" not in str(second)
