"""What the doctor finds out about one peer: each step going well, and each failing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from mpc_engine.identity.folder import Identity, throwaway_identity
from mpc_engine.transport import grpc_switchboard, probe, reception
from mpc_engine.transport.endpoint import Endpoint
from mpc_engine.transport.probe import Step
from tests.transport.parties import Ear, all_up, board, boards, free_port, identity, roster, with_certificates

NAMES = ["address", "name", "tcp", "tls", "certificate", "admission", "protocol", "round trip", "clock"]


@asynccontextmanager
async def _one(**settings: object) -> AsyncIterator[Endpoint]:
    """Run p1 and yield its endpoint."""
    one = board(1, roster(2), **settings)
    await one.start(Ear())
    try:
        yield roster(2, {1: f"127.0.0.1:{one.port}"})[0]
    finally:
        await one.stop(0.2)


async def _last(peer: Endpoint, me: Identity | None = None, **settings: object) -> Step:
    """Probe, check that only the last step failed, and return it."""
    steps = await probe.probe(me or identity("p2"), peer, **settings)  # type: ignore[arg-type]
    assert [step.name for step in steps] == NAMES[: len(steps)]
    assert all(step.ok and not step.advice for step in steps[:-1])
    assert not steps[-1].ok
    assert steps[-1].words and steps[-1].advice
    return steps[-1]


def test_all_steps_go_well_and_the_line_stays() -> None:
    async def run() -> None:
        async with boards(2) as (started, ears):
            await all_up(started, ears)
            peer = roster(2, {1: f"localhost:{started[0].port}"})[0]
            for _ in range(3):
                steps = await probe.probe(identity("p2"), peer)
                assert [step.name for step in steps] == NAMES
                assert all(step.ok for step in steps), steps
                assert identity("p1").fingerprint in steps[3].words
                assert steps[7].words.endswith(" ms")
            assert [kind for ear in ears for kind, *_ in ear.events] == ["up", "up"]

    asyncio.run(run())


@pytest.mark.parametrize("address", ["", "host", "host:", ":1", "host:port", "host:0", "host:70000"])
def test_no_address(address: str) -> None:
    step = asyncio.run(_last(replace(roster(1)[0], address=address)))
    assert step.name == "address"


def test_an_unknown_name(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async def unknown(*_: object, **__: object) -> None:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", unknown)
        step = await _last(replace(roster(1)[0], address="peer.invalid:8470"))
        assert (step.name, "peer.invalid" in step.words) == ("name", True)

    asyncio.run(run())


def test_nobody_listens() -> None:
    step = asyncio.run(_last(roster(1, {1: f"127.0.0.1:{free_port()}"})[0]))
    assert step.name == "tcp"
    assert "refused" in step.words


def test_nobody_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    async def silent(*_: object, **__: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(asyncio, "open_connection", silent)
    step = asyncio.run(_last(roster(1)[0]))
    assert step.name == "tcp"
    assert "firewall" in step.advice


def test_no_tls() -> None:
    async def run() -> None:
        async def shut(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-nothing\r\n")
            writer.close()

        async with await asyncio.start_server(shut, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            assert (await _last(roster(1, {1: f"127.0.0.1:{port}"})[0])).name == "tls"

    asyncio.run(run())


def test_nothing_trusted_and_nothing_usable() -> None:
    async def run() -> None:
        async with _one() as peer:
            for pems in ((), (b"nothing",)):
                assert (await _last(replace(peer, certificates=pems))).name == "tls"

    asyncio.run(run())


def test_another_certificate_is_named_with_the_trusted_one() -> None:
    async def run() -> None:
        async with _one() as peer:
            other = throwaway_identity("p1")
            step = await _last(with_certificates(peer, other))
            assert step.name == "certificate"
            assert identity("p1").fingerprint in step.words and other.fingerprint in step.words

    asyncio.run(run())


def test_an_expired_certificate() -> None:
    async def run() -> None:
        async with _one() as peer:
            step = await _last(peer, clock=lambda: datetime.now(UTC) + timedelta(days=1000))
            assert (step.name, "expired" in step.words) == ("certificate", True)

    asyncio.run(run())


def test_a_peer_that_does_not_know_this_party() -> None:
    async def run() -> None:
        async with _one() as peer:
            stranger = throwaway_identity("p2")
            step = await _last(peer, stranger)
            assert step.name == "admission"
            assert stranger.fingerprint in step.words

    asyncio.run(run())


def test_another_protocol_version(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        async with _one() as peer:
            monkeypatch.setattr(reception, "PROTOCOL_VERSION", "7")
            step = await _last(peer)
            assert (step.name, "version 7" in step.words) == ("protocol", True)

    asyncio.run(run())


def test_a_peer_that_hangs_after_the_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(*_: object) -> None:
        await asyncio.sleep(60)

    monkeypatch.setattr(probe, "PROBE_S", 0.3)

    async def run() -> None:
        monkeypatch.setattr(grpc_switchboard.GrpcSwitchboard, "_serve_probe", hang)
        async with _one() as peer:
            assert (await _last(peer)).name == "round trip"
        monkeypatch.setattr(reception.Reception, "_line", hang)
        async with _one() as peer:
            assert (await _last(peer)).name == "admission"

    asyncio.run(run())


@pytest.mark.parametrize(("seconds", "way"), [(90, "ahead of"), (-90, "behind")])
def test_a_clock_that_is_off(seconds: int, way: str) -> None:
    async def run() -> None:
        async with _one(clock=lambda: datetime.now(UTC) + timedelta(seconds=seconds)) as peer:
            step = await _last(peer)
            assert step.name == "clock"
            assert f"90.0 s {way}" in step.words

    asyncio.run(run())


def test_peers_that_dial_this_party() -> None:
    async def run() -> None:
        two = roster(2)[1]
        (step,) = await probe.probe(identity("p1"), replace(two, accepts=False), dials=False)
        assert step.ok and "dials this party" in step.words
        async with _one() as peer:
            steps = await probe.probe(identity("p2"), peer, dials=False)
            assert [step.name for step in steps] == NAMES[:6]
            assert all(step.ok for step in steps)

    asyncio.run(run())
