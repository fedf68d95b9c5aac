"""How parties are lost and sessions aborted over gRPC."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import grpc.aio
import pytest

from mpc_engine.errors import (
    DeadlineError,
    PeerAbortedError,
    PeerError,
)
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.transport.channel import Channel
from mpc_engine.transport.control import Abort
from mpc_engine.transport.frames import FRAME_BYTES, Kind, ending
from mpc_engine.transport.options import PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY
from tests.transport.parties import KEY, grpc_links, identity, listen_all, opened, raw_peer

_CHILD = """
import asyncio, sys
from mpc_engine.transport.grpc_link import GrpcLink
from mpc_engine.transport import tls
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.grpc_link import Endpoint
from pathlib import Path

async def main(directory: Path, *ports: str) -> None:
    roster = [Endpoint(n, f"p{n}", "", (directory / f"p{n}.pem").read_bytes()) for n in (1, 2, 3)]
    certificate = tls.load_certificate(directory / "p3.pem")
    me = tls.Identity(certificate, (directory / "p3.key").read_bytes())
    link = GrpcLink(3, me, roster, computing=3)
    await link.open({n: f"127.0.0.1:{port}" for n, port in enumerate(ports, 1)})
    for peer in (1, 2):
        await link.send(peer, MessageKey(0, Section.CONTROL, 0), [b"here"])
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main(Path(sys.argv[1]), *sys.argv[2:]))
"""


def test_a_killed_peer_is_lost_to_all_within_a_second(tmp_path: Path) -> None:
    for n in (1, 2, 3):
        (tmp_path / f"p{n}.pem").write_bytes(identity(f"p{n}").certificate.pem)
    (tmp_path / "p3.key").write_bytes(identity("p3").private_key_pem)

    async def run() -> None:
        one, two, _ = links = grpc_links(3, connect_timeout_s=15, round_timeout_s=30)
        addresses = await listen_all(links)
        ports = [address.rpartition(":")[2] for address in addresses.values()]
        root = str(Path(__file__).parents[2])
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _CHILD, str(tmp_path), *ports),
            env=os.environ | {"PYTHONPATH": root},
            stdout=subprocess.PIPE,
        )
        try:
            await asyncio.gather(one.open(addresses), two.open(addresses))
            for link in (one, two):
                assert await link.receive(3, KEY, 4) == b"here"
            waits = [
                asyncio.create_task(one.receive(2, MessageKey(1, Section.INPUT, 0), 1)),
                asyncio.create_task(two.receive(3, MessageKey(1, Section.INPUT, 0), 1)),
            ]
            await asyncio.sleep(0)
            child.send_signal(signal.SIGKILL)
            async with asyncio.timeout(1):
                for wait in waits:
                    with pytest.raises(PeerError, match=r"connection to party 3 \(p3\) was lost"):
                        await wait
        finally:
            if child.returncode is None:
                child.kill()
            await child.wait()
            await asyncio.gather(one.abort("INTERNAL", "over"), two.abort("INTERNAL", "over"))

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
        one, _ = grpc_links(2, round_timeout_s=0.3)
        address = (await listen_all([one]))[1]
        caller = identity("p2")
        credentials = grpc.ssl_channel_credentials(
            identity("p1").certificate.pem, caller.private_key_pem, caller.certificate.pem
        )
        options = [("grpc.ssl_target_name_override", "p1")]
        async with grpc.aio.secure_channel(address, credentials, options) as channel:
            call = channel.stream_stream(SESSION_METHOD)(metadata=((VERSION_KEY, PROTOCOL_VERSION),))
            await one.open()
            with pytest.raises(DeadlineError, match=r"party 2 \(p2\) read nothing for 0\.3 s"):
                for chunk in range(200):
                    await one.send(2, MessageKey(chunk, Section.INPUT, 0), [bytes(FRAME_BYTES)])
            async with asyncio.timeout(4):
                await one.abort("TIMEOUT", "slow")
            call.cancel()

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
            async with asyncio.timeout(2):
                await one.abort("INTEGRITY_ABORT", "a share does not lie on the polynomial")
                with pytest.raises(PeerAbortedError, match="INTEGRITY_ABORT"):
                    await wait

    asyncio.run(run())


def test_nothing_is_left_behind() -> None:
    async def run() -> None:
        before = asyncio.all_tasks()
        for _ in range(3):
            async with opened("grpc", 3) as links:
                await asyncio.gather(*(link.close() for link in links))
            async with opened("grpc", 3) as links:
                await links[1].abort("INTERNAL", "over")
        # gRPC keeps no task of its own between calls; those of the links must be gone.
        for _ in range(10):
            await asyncio.sleep(0)
        assert asyncio.all_tasks() == before

    asyncio.run(run())
