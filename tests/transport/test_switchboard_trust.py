"""Who may connect, what is said when that fails, and certificates that change while a party runs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import grpc
import grpc.aio
import pytest

from mpc_engine import identity as identities
from mpc_engine.errors import (
    CertificateError,
    DeadlineError,
    DocumentError,
    EngineMismatchError,
    PeerError,
    UnknownCertificateError,
)
from mpc_engine.identity import certificates
from mpc_engine.identity.folder import Identity, throwaway_identity
from mpc_engine.transport import dial, reception, route
from mpc_engine.transport.endpoint import Endpoint, dialler_of
from mpc_engine.transport.grpc_switchboard import GrpcSwitchboard
from mpc_engine.transport.options import LINE_METHOD, PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY
from mpc_engine.transport.pins import Pins
from tests.transport.forgery import certificate_authority, leaf_signed_by
from tests.transport.parties import (
    KEY,
    LOOPBACK,
    Ear,
    all_up,
    board,
    boards,
    free_port,
    identity,
    link,
    raw_channel,
    roster,
    session_metadata,
    with_certificates,
)


def test_a_roster_must_be_sound() -> None:
    me, book = identity("p1"), roster(3)

    def refused(endpoints: list[Endpoint], words: str, own: Identity = me, computing: int = 2) -> None:
        with pytest.raises(DocumentError, match=words):
            Pins(1, own, endpoints, computing=computing)

    refused([book[0], book[2]], "number its parties")
    refused(book, "cannot compute", computing=4)
    refused([book[0], with_certificates(book[1], me)], "same certificate")
    refused([book[0], with_certificates(book[1], throwaway_identity("p1"))], "same certificate or name")
    refused([book[0], with_certificates(book[1], identity("p2"), identity("p3"))], "different names")
    refused([book[0], replace(book[1], certificates=())], "no certificate is trusted")
    refused([book[0], replace(book[1], certificates=(b"nothing",))], "not a usable")
    refused([book[0], with_certificates(book[1], certificate_authority("p2"))], "CA:TRUE")
    refused(book, "which is this party", own=identity("p2"))
    closed = [replace(each, accepts=False) for each in book[:2]]
    refused(closed, "both accept no connections")
    refused([replace(book[0], accepts=False), replace(book[1], address="")], "no address")


def test_who_dials() -> None:
    one, two = roster(2)
    assert dialler_of(one, two) == dialler_of(two, one) == 2
    assert dialler_of(replace(one, accepts=False), two) == 1
    assert dialler_of(two, replace(one, accepts=False)) == 1
    assert dialler_of(one, replace(two, accepts=False)) == 2
    with pytest.raises(DocumentError, match="cannot be connected"):
        dialler_of(replace(one, accepts=False), replace(two, accepts=False))


async def _pair(
    first: GrpcSwitchboard, second: GrpcSwitchboard, second_timeout_s: float = 5
) -> list[BaseException]:
    """Let both open a link, which must fail, and return how."""

    async def enter(each: GrpcSwitchboard, timeout_s: float) -> None:
        async with link(each, connect_timeout_s=timeout_s):
            pass

    outcomes = await asyncio.gather(enter(first, 1), enter(second, second_timeout_s), return_exceptions=True)
    assert all(isinstance(each, BaseException) for each in outcomes)
    return outcomes  # type: ignore[return-value]


async def _fail_together(
    mine: list[Endpoint], theirs: list[Endpoint], one: Identity, two: Identity, **settings: object
) -> list[BaseException]:
    """Run p1 by the roster `mine` and p2 by `theirs`, and return how their links fail."""
    first = GrpcSwitchboard(1, one, mine, computing=2, listen=LOOPBACK)
    await first.start(Ear())
    there = [replace(theirs[0], address=f"127.0.0.1:{first.port}"), theirs[1]]
    second = GrpcSwitchboard(2, two, there, computing=2, listen=None, **settings)  # type: ignore[arg-type]
    await second.start(Ear())
    try:
        return await _pair(first, second)
    finally:
        await asyncio.gather(first.stop(0.2), second.stop(0.2))


def test_a_dialler_whose_certificate_is_not_trusted_is_told() -> None:
    stranger = throwaway_identity("p2")
    theirs = [roster(2)[0], with_certificates(roster(2)[1], stranger)]
    first, second = asyncio.run(_fail_together(roster(2), theirs, identity("p1"), stranger))
    assert isinstance(first, DeadlineError)
    assert "party 2 (p2) has not dialled" in str(first)
    assert isinstance(second, PeerError)
    assert "party 1 (p1) refuses this party's certificate " + stranger.fingerprint in str(second)


def test_a_listener_with_another_certificate_than_the_trusted_ones_is_named() -> None:
    stranger = throwaway_identity("p1")
    mine = [with_certificates(roster(2)[0], stranger), roster(2)[1]]
    first, second = asyncio.run(_fail_together(mine, roster(2), stranger, identity("p2")))
    assert isinstance(first, DeadlineError)
    assert isinstance(second, UnknownCertificateError)
    assert stranger.fingerprint in str(second)
    assert identity("p1").fingerprint in str(second)


@pytest.mark.parametrize("who", ["p1", "p2"])
def test_an_expired_certificate_is_named(who: str) -> None:
    """TLS goes by the real clock and lets it pass; what is tried is how a refusal is explained."""
    later = datetime.now(UTC) + timedelta(days=1000)
    stranger = throwaway_identity("p1" if who == "p1" else "p2")
    if who == "p1":  # the listener's own is expired, as the dialler sees it, and the listener refuses
        mine = [roster(2)[0], with_certificates(roster(2)[1], stranger)]
        outcome = asyncio.run(
            _fail_together(
                [mine[0], with_certificates(roster(2)[1], throwaway_identity("p2"))],
                roster(2),
                identity("p1"),
                identity("p2"),
                clock=lambda: later,
            )
        )[1]
        assert "has a certificate that expired" in str(outcome)
    else:
        dialler = dial.Dialler(stranger, [identity("p1").certificate], "x:1", "party 1 (p1)", lambda: later)
        refusal = dial.Refusal(grpc.StatusCode.UNAUTHENTICATED, "CERT_UNKNOWN", "unknown")
        outcome = asyncio.run(dialler.explain(refusal))  # type: ignore[assignment]
        assert "refuses this party's certificate: it expired" in str(outcome)
    assert isinstance(outcome, CertificateError)


def test_an_expired_certificate_does_not_keep_a_party_from_starting() -> None:
    old = certificates.new_certificate("p2", clock=lambda: datetime.now(UTC) - timedelta(days=900))[0]
    book = [roster(2)[0], replace(roster(2)[1], certificates=(identity("p2").certificate.pem, old.pem))]
    pins = Pins(1, identity("p1"), book, computing=2)
    assert pins.caller(old.fingerprint) == 2


async def _status(
    port: int | None, caller: Identity, method: str = LINE_METHOD, version: str = PROTOCOL_VERSION
) -> tuple[grpc.StatusCode, str | None]:
    async with raw_channel(port, caller) as channel:
        call = channel.stream_stream(method)(metadata=session_metadata(version=version))
        return await call.code(), await call.details()


def test_strangers_analysts_and_forgeries_fail_the_handshake_and_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reception, "_HANDSHAKE_S", 0.5)

    async def run() -> None:
        async with boards(3) as (started, ears):
            await all_up(started, ears)
            callers = [
                throwaway_identity("p2"),
                throwaway_identity("analyst"),
                leaf_signed_by(identity("p3"), name="p2"),
                identity("p1"),  # not one that dials p1
            ]
            for caller in callers:
                for method in (LINE_METHOD, SESSION_METHOD):
                    code, _ = await _status(started[0].port, caller, method)
                    assert code is grpc.StatusCode.UNAVAILABLE
            assert all(each.connected(1) for each in started[1:])
            async with asyncio.timeout(20):
                while started[0].refusals.get("HANDSHAKE", 0) < 2 * len(callers):
                    await asyncio.sleep(0.02)
            assert "ended in the handshake" in caplog.text

    asyncio.run(run())


def test_a_leaf_signed_by_a_trusted_authority_is_known_by_its_fingerprint(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An authority cannot be pinned; if it were, TLS would let its owner in as anybody."""
    authority = certificate_authority("p3")
    monkeypatch.setattr(certificates, "_problem", lambda certificate: None)
    book = [*roster(2), with_certificates(roster(3)[2], authority)]

    async def run() -> None:
        one = board(1, book)
        await one.start(Ear())
        forged = leaf_signed_by(authority, name="p2")
        with caplog.at_level(logging.WARNING):
            for method in (LINE_METHOD, SESSION_METHOD):
                code, details = await _status(one.port, forged, method)
                assert code is grpc.StatusCode.UNAUTHENTICATED
                assert details is not None and details.startswith("CERT_UNKNOWN: ")
        assert forged.fingerprint in caplog.text
        assert one.refusals == {"CERT_UNKNOWN": 2}
        assert caplog.text.count(forged.fingerprint) == 2  # in one line; the second was too soon after it
        await one.stop(0)

    asyncio.run(run())


@pytest.mark.parametrize("version", ["1", "3", "", "22"])
def test_another_protocol_version_is_refused(version: str) -> None:
    async def run() -> None:
        one = board(1, roster(2))
        await one.start(Ear())
        try:
            for method in (LINE_METHOD, SESSION_METHOD):
                code, details = await _status(one.port, identity("p2"), method, version)
                assert code is grpc.StatusCode.FAILED_PRECONDITION
                assert details == "MISMATCH_ENGINE: it speaks version 2 of the peer protocol"
        finally:
            await one.stop(0)

    asyncio.run(run())


def test_a_dialler_of_another_version_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route, "PROTOCOL_VERSION", "1")
    first, second = asyncio.run(_fail_together(roster(2), roster(2), identity("p1"), identity("p2")))
    assert isinstance(first, DeadlineError)
    assert isinstance(second, EngineMismatchError)
    assert "party 1 (p1)" in str(second) and "version 2" in str(second)


def test_an_unreachable_peer_and_something_else_are_described() -> None:
    async def trouble(address: str) -> str:
        two = board(2, roster(2, {1: address}), listen=None)
        await two.start(Ear())
        try:
            with pytest.raises(DeadlineError) as caught:
                async with link(two, connect_timeout_s=0.4):
                    pass
            assert two.stats()[1].last_error
            return str(caught.value)
        finally:
            await two.stop(0)

    async def run() -> None:
        nobody = f"127.0.0.1:{free_port()}"
        assert f"party 1 (p1) cannot be reached at {nobody}" in await trouble(nobody)
        assert "not an address" in await trouble("nowhere")

        async def shut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-nothing\r\n")
            writer.close()

        async with await asyncio.start_server(shut, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            text = await trouble(f"127.0.0.1:{port}")
            assert "party 1 (p1) does not complete a TLS handshake" in text

    asyncio.run(run())


def test_certificates_are_replaced_while_a_link_runs() -> None:
    async def run() -> None:
        new_two = throwaway_identity("p2")
        async with boards(2) as (started, ears):
            one, two = started
            await all_up(started, ears)
            book = roster(2, {1: f"127.0.0.1:{one.port}"})
            both = [book[0], with_certificates(book[1], new_two, identity("p2"))]
            contexts = [link(each) for each in started]
            links = await asyncio.gather(*(context.__aenter__() for context in contexts))

            one.replace(both)  # a second certificate is trusted: nothing breaks
            assert one.connected(2) and ears[0].count("down", 2) == 0
            two.replace(both, new_two)  # presented from now on, over a new connection
            await ears[0].until(lambda: ears[0].count("up", 2) == 2)
            await links[1].send(1, KEY, [b"old"])
            assert await links[0].receive(2, KEY, 3) == b"old"

            one.replace([book[0], with_certificates(book[1], new_two)])  # the old one is no longer trusted
            assert one.connected(2)
            code, _ = await _status(one.port, identity("p2"))
            assert code is grpc.StatusCode.UNAVAILABLE
            await links[0].send(2, KEY, [b"on"])
            assert await links[1].receive(1, KEY, 2) == b"on"
            await asyncio.gather(*(context.__aexit__(None, None, None) for context in contexts))
            async with asyncio.TaskGroup() as group:
                for each in started:
                    group.create_task(_open_and_close(each))

    asyncio.run(run())


async def _open_and_close(each: GrpcSwitchboard) -> None:
    async with link(each):
        pass


def test_a_certificate_that_is_no_longer_trusted_loses_its_line_and_opens_no_stream() -> None:
    async def run() -> None:
        async with boards(2) as (started, ears):
            one, two = started
            await all_up(started, ears)
            async with raw_channel(one.port, identity("p2")) as channel:
                call = channel.stream_stream(LINE_METHOD)(metadata=((VERSION_KEY, PROTOCOL_VERSION),))
                await call.initial_metadata()
                book = roster(2)
                one.replace([book[0], with_certificates(book[1], throwaway_identity("p2"))])
                assert not one.connected(2)
                assert "no longer trusted" in one.stats()[2].last_error
                late = channel.stream_stream(SESSION_METHOD)(metadata=session_metadata())
                assert await late.code() is grpc.StatusCode.UNAUTHENTICATED
            # Its own connection has lost its line only at the other end, or is being made again in vain.
            with pytest.raises(PeerError, match=r"refuses (this party's certificate|the session)"):
                await _open_and_close(two)

    asyncio.run(run())


def test_what_may_not_be_replaced() -> None:
    async def run() -> None:
        async with boards(3) as (started, ears):
            await all_up(started, ears)
            book = roster(3)
            for changed in (
                book[:2],
                [book[0], replace(book[1], name="other"), book[2]],
                [replace(book[0], accepts=False), *book[1:]],
            ):
                with pytest.raises(DocumentError):
                    started[0].replace(changed)
            with pytest.raises(DocumentError, match="which is this party"):
                started[0].replace(book, identities.throwaway_identity("p1"))
            assert all(each.connected(peer) for each in started for peer in each.peers)

    asyncio.run(run())


def test_refusals_are_logged_again_after_a_while(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        one = board(1, roster(2))
        await one.start(Ear())
        for _ in range(3):
            await _status(one.port, identity("p2"), version="1")
        assert caplog.text.count("MISMATCH_ENGINE") == 1
        monkeypatch.setattr(reception, "_LOG_EVERY_S", 0.0)
        await _status(one.port, identity("p2"), version="1")
        assert "(2 more since the last such line)" in caplog.text
        await one.stop(0)

    with caplog.at_level(logging.WARNING):
        asyncio.run(run())
