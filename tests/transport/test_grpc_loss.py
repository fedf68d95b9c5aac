"""How parties are lost and sessions aborted over gRPC."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import grpc.aio
import pytest

from mpc_engine.errors import DeadlineError, PeerAbortedError, PeerError
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.transport.channel import Channel
from mpc_engine.transport.control import Abort
from mpc_engine.transport.frames import FRAME_BYTES, Kind, ending
from mpc_engine.transport.grpc_switchboard import ONE_OFF, GrpcSwitchboard
from tests.transport.parties import KEY, Ear, board, free_port, identity, link, opened, raw_peer, roster

_CHILD = """
import asyncio, sys
from dataclasses import replace
from pathlib import Path
from mpc_engine.identity.certificates import load_certificate
from mpc_engine.identity.folder import throwaway_identity
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.endpoint import Endpoint
from mpc_engine.transport.grpc_switchboard import connect

async def main(directory: Path, *ports: str) -> None:
    roster = [
        Endpoint(n, f"p{n}", f"127.0.0.1:{port}", ((directory / f"p{n}.pem").read_bytes(),))
        for n, port in enumerate((*ports, "1"), 1)
    ]
    certificate, key = load_certificate(directory / "p3.pem"), (directory / "p3.key").read_bytes()
    me = replace(throwaway_identity("p3"), certificate=certificate, private_key_pem=key)
    async with connect(3, me, roster, computing=3) as link:
        for peer in (1, 2):
            await link.send(peer, MessageKey(0, Section.CONTROL, 0), [b"here"])
        await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
"""


def test_a_killed_peer_is_lost_to_all_long_before_the_deadline(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        (tmp_path / f"p{n}.pem").write_bytes(identity(f"p{n}").certificate.pem)
    (tmp_path / "p3.key").write_bytes(identity("p3").private_key_pem)

    async def run() -> None:
        book = {n: f"127.0.0.1:{free_port()}" for n in (1, 2)}
        started = [board(n, roster(3, book), listen=book[n]) for n in (1, 2)]
        ears = [Ear() for _ in started]
        for each, ear in zip(started, ears, strict=True):
            await each.start(ear)
        ports = [address.rpartition(":")[2] for address in book.values()]
        root = str(Path(__file__).parents[2])
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _CHILD, str(tmp_path), *ports), env=os.environ | {"PYTHONPATH": root}
        )
        try:

            async def hold(each: GrpcSwitchboard) -> None:
                async with link(each, ONE_OFF, connect_timeout_s=15, round_timeout_s=30) as opened:
                    assert await opened.receive(3, KEY, 4) == b"here"
                    ready.release()
                    await opened.receive(3, MessageKey(1, Section.INPUT, 0), 1)

            ready = asyncio.Semaphore(0)
            waits = [asyncio.create_task(hold(each)) for each in started]
            for _ in started:
                await asyncio.wait_for(ready.acquire(), 20)
            child.send_signal(signal.SIGKILL)
            async with asyncio.timeout(20):
                outcomes = await asyncio.gather(*waits, return_exceptions=True)
                for ear in ears:
                    await ear.until(lambda ear=ear: ear.count("down", 3) == 1)  # type: ignore[misc]
            # Whoever notices first tells the other.
            for outcome in outcomes:
                assert isinstance(outcome, PeerError)
                assert "connection to party 3 (p3) was lost" in str(outcome)
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
            await asyncio.gather(*(each.stop(0.5) for each in started))

    asyncio.run(run())


def test_a_stream_that_ends_without_a_goodbye_is_a_loss() -> None:
    async def run() -> None:
        async with raw_peer() as (one, call):
            await call.done_writing()
            with pytest.raises(PeerError, match="without a goodbye"):
                await one.receive(2, KEY, 1)

    asyncio.run(run())


def test_a_peer_that_does_not_read_blocks_the_sender_until_the_deadline_and_no_abort() -> None:
    async def run() -> None:
        async with raw_peer(round_timeout_s=0.3) as (one, _):
            with pytest.raises(DeadlineError, match=r"party 2 \(p2\) read nothing for 0\.3 s"):
                for chunk in range(200):
                    await one.send(2, MessageKey(chunk, Section.INPUT, 0), [bytes(FRAME_BYTES)])
            async with asyncio.timeout(20):
                await one.abort("TIMEOUT", "slow")

    asyncio.run(run())


def test_an_abort_takes_the_place_of_what_is_queued() -> None:
    class Recorder:
        """A stream that keeps what is written, and ends once it is half-closed."""

        def __init__(self) -> None:
            self.written: list[bytes] = []
            self.closed = asyncio.Event()

        async def read(self) -> object:
            await self.closed.wait()
            return grpc.aio.EOF

        async def write(self, frame: bytes) -> None:
            self.written.append(frame)

        async def done_writing(self) -> None:
            self.closed.set()

    async def run() -> None:
        box = Mailbox({2: "party 2"}, round_timeout_s=1, max_ahead_bytes=1000)
        channel, stream = Channel(1, 2, "party 2", box), Recorder()
        for chunk in range(3):
            await channel.send(MessageKey(chunk, Section.INPUT, 0), [bytes(10)], 1)
        channel.say_goodbye()
        channel.say_abort(Abort("DATA", "why"))
        await channel.run(stream)
        assert stream.written == [ending(Kind.ABORT, 1, Abort("DATA", "why").encode())]
        assert channel.over.is_set()

    asyncio.run(run())


def test_an_abort_arrives_while_the_peer_is_slow() -> None:
    async def run() -> None:
        async with opened("grpc", 2) as (one, two):
            for chunk in range(4):
                await one.send(2, MessageKey(chunk, Section.INPUT, 0), [bytes(FRAME_BYTES)])
            wait = asyncio.create_task(two.receive(1, KEY, 1))
            async with asyncio.timeout(20):
                await one.abort("INTEGRITY_ABORT", "a share does not lie on the polynomial")
                with pytest.raises(PeerAbortedError, match="INTEGRITY_ABORT"):
                    await wait

    asyncio.run(run())
