"""What an enrolled peer may throw at the port: memory stays bounded, and others notice nothing."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mpc_engine.runtime.switchboard import NAME_BYTES
from mpc_engine.transport.line import Kind, frame
from tests.transport.parties import Ear, all_up, board, identity, link, roster

MIB = 1 << 20

_ATTACKER = """
import asyncio, json, sys
from contextlib import suppress
from pathlib import Path
import mpc_engine.transport
import grpc, grpc.aio

METHODS = {"line": "/mpc_engine.peer.v1.Peer/Line", "session": "/mpc_engine.peer.v1.Peer/Session"}

async def ending(call, messages, patience_s):
    async def write_all():
        try:
            for message in messages:
                await call.write(message)
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            return False
        return bool(messages)
    async def read_all():
        with suppress(grpc.aio.AioRpcError):
            while isinstance(await call.read(), bytes):
                pass
    writer, reader = asyncio.create_task(write_all()), asyncio.create_task(read_all())
    await asyncio.wait({writer, reader}, timeout=patience_s, return_when=asyncio.FIRST_COMPLETED)
    if writer.done() and not reader.done():
        await asyncio.wait({reader}, timeout=0.3 if writer.result() else 5)
    code = (await call.code()).name if reader.done() else "WRITTEN" if writer.done() else "HELD"
    writer.cancel()
    call.cancel()
    return code

async def main(directory, port):
    read = lambda name: (directory / name).read_bytes()
    credentials = grpc.ssl_channel_credentials(read("p1.pem"), read("p2.key"), read("p2.pem"))
    options = [("grpc.ssl_target_name_override", "p1"), ("grpc.max_metadata_size", 4 << 20),
               ("grpc.absolute_max_metadata_size", 8 << 20)]
    base = (("mpc-protocol", "2"), ("mpc-link", "ab" * 32))
    found = {}
    for kind, method in METHODS.items():
        async def attempt(what, messages, metadata=base, patience_s=20, **more):
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
                call = channel.stream_stream(method)(metadata=metadata, **more)
                found[f"{kind} {what}"] = await ending(call, messages, patience_s)
        await attempt("gzip", [bytes(64 << 20)], compression=grpc.Compression.Gzip)
        await attempt("metadata", [], base + (("x", "y" * 1_000_000),))
        await attempt("empty", (b"" for _ in range(100_000)), patience_s=1)
        if kind == "line":
            await attempt("giant", [bytes(1 << 30)])
            await attempt("messages", (b"MPL\\x01\\0\\0\\0\\0" for _ in range(2_000)))
            await attempt("pings", (b"MPL\\x01\\x01\\0\\0\\0" + bytes(8) for _ in range(2_000)))
    print(json.dumps(found))

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@dataclass
class _Count:
    """A listener that only counts, so that what it keeps does not grow."""

    messages: int = 0

    def line_up(self, peer: int) -> None:
        """Do nothing."""

    def line_down(self, peer: int, why: str) -> None:
        """Do nothing."""

    def heard(self, peer: int, message: bytes) -> None:
        """Count."""
        self.messages += 1


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")
def test_floods_by_a_peer(tmp_path: Path) -> None:
    for n in (1, 2):
        (tmp_path / f"p{n}.pem").write_bytes(identity(f"p{n}").certificate.pem)
    (tmp_path / "p2.key").write_bytes(identity("p2").private_key_pem)

    async def run() -> tuple[dict[str, str], int, int]:
        one, listener = board(1, roster(3), computing=1), _Count()
        await one.start(listener)
        three, ear = board(3, roster(3, {1: f"127.0.0.1:{one.port}"}), computing=1, listen=None), Ear()
        await three.start(ear)
        await ear.until(lambda: three.connected(1))
        before = most = _resident()
        root = str(Path(__file__).parents[2])
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", _ATTACKER, str(tmp_path), str(one.port)),
            env=os.environ | {"PYTHONPATH": root, "GRPC_VERBOSITY": "NONE"},
            stdout=subprocess.PIPE,
        )
        try:
            answer = asyncio.create_task(child.communicate())
            while not answer.done():
                most = max(most, _resident())
                # Somebody else's line works all the while.
                assert one.say(3, b"still here")
                heard = len(ear.messages)
                await ear.until(lambda heard=heard: len(ear.messages) > heard, 5)  # type: ignore[misc]
                await asyncio.sleep(0.02)
            return json.loads((await answer)[0]), most - before, listener.messages
        finally:
            if child.returncode is None:
                child.kill()
                await child.wait()
            await asyncio.gather(one.stop(0), three.stop(0))

    found, growth, messages = asyncio.run(run())
    # A stream that is reset while its caller writes may show as INTERNAL at the caller.
    refused = {"UNIMPLEMENTED", "RESOURCE_EXHAUSTED", "INTERNAL"}
    for kind in ("line", "session"):
        assert found[f"{kind} gzip"] in refused, found
        assert found[f"{kind} metadata"] in refused, found
    assert found["line giant"] in refused, found
    assert found["line empty"] in {"OK", "INTERNAL"}, found  # ended at the first
    # Not read before the session is opened here: how much the connection itself takes until then, and so
    # whether the writer comes to its end, depends on how far the window of HTTP/2 has grown.
    assert found["session empty"] in {"HELD", "WRITTEN"}, found
    assert found["line messages"] == found["line pings"] == "WRITTEN"
    assert 0 < messages <= 2_000, found  # the last may be cut off with their stream
    assert growth < 64 * MIB, f"{growth / MIB:.0f} MiB"


def test_a_name_that_was_never_opened_costs_nothing() -> None:
    """Streams that come and go leave no trace in what waits."""

    async def run() -> None:
        one = board(1, roster(2))
        await one.start(Ear())
        two = board(2, roster(2, {1: f"127.0.0.1:{one.port}"}), listen=None)
        ear = Ear()
        await two.start(ear)
        await all_up([two], [ear])
        for number in range(100):
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.001), link(two, number.to_bytes(NAME_BYTES, "big")):
                    pass
        async with asyncio.timeout(20):
            while one._arrivals._streams or one._arrivals._claims:
                await asyncio.sleep(0.005)
        assert not two._links
        assert two.say(1, frame(Kind.MESSAGE))
        await asyncio.gather(one.stop(0.2), two.stop(0.2))

    asyncio.run(run())
