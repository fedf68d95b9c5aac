"""Attacks over the wire on a party that runs as a process: its memory, what it says, and that it goes on.

Callers are enrolled – an analyst, or the helper as a peer – for nobody else completes the handshake.
"""

from __future__ import annotations

import asyncio
import os
import resource
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import grpc.aio
import pytest

from mpc_engine.client import Client, connect
from mpc_engine.codebook import load_codebook
from mpc_engine.identity import Terms, TrustStore, create_identity, load_identity
from mpc_engine.party.submission import make_submission
from mpc_engine.scenario.trial import HELPER, make_trial
from mpc_engine.statistics.presets import parse_query
from mpc_engine.transport.analyst_methods import METHODS
from mpc_engine.transport.options import LINE_METHOD, LINK_KEY, PROTOCOL_VERSION, SESSION_METHOD, VERSION_KEY
from tests.party.services import PATIENCE_S, Services, until
from tests.robustness import http2
from tests.robustness.patience import patiently

MIB = 1 << 20
GIB = 1 << 30
MOST_GROWTH = 64 * MIB
EVE = "eve"
"""The analyst who attacks; the trial's own goes on working."""
REFUSED = {"RESOURCE_EXHAUSTED", "UNIMPLEMENTED", "RESET", "CLOSED"}
"""What the caller of a message that is too large sees: a code, or that its stream or connection is ended."""
DISPLACED = "OK"
"""How a line may end before it is refused: the helper, in whose name this calls, dials again, and its new
line takes the place of this one."""
SOON_S = 15.0
"""Within this a refusal has come, on a machine that is busy with other tests too; alone it takes half a
second."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="no /proc")


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Three parties that are ready, at one of which a second analyst is enrolled."""
    trial = make_trial(tmp_path_factory.mktemp("attacked") / "trial")
    card = create_identity(EVE, trial.folder / EVE, role="analyst", dev=True).card
    trust = TrustStore(trial.folder / "north" / "trust", dev=True)
    trust.add_analyst(card, Terms(budget="20"), typed=card.fingerprint)
    running = Services(trial)
    try:
        running.start()
        running.wait_ready()
        with connect(trial.profile) as client:  # once, so that all libraries are loaded before measuring
            _fresh(client, "before all attacks")
        yield running
    finally:
        running.kill()


def _fresh(client: Client, title: str) -> None:
    asked = client.crosstab(by=["sex"], title=title, epsilon="0.5", threshold=5, rule="noisy")
    request = patiently(lambda: asked.submit(title))
    patiently(lambda: request.wait(PATIENCE_S))
    status = patiently(request.status)
    assert status.state == "RELEASED", f"{status.reason}: {status.detail}"


def _resident(pid: int) -> int:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


@contextmanager
def measured(services: Services, what: str, most_growth: int = MOST_GROWTH) -> Iterator[None]:
    """Check that a party's memory grows by no more than it may, and that it answers a fresh query then."""
    pid = services.processes["north"].pid
    before = most = _resident(pid)
    over = threading.Event()

    def watch() -> None:
        nonlocal most
        while not over.wait(0.01):
            most = max(most, _resident(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()
    print(f"{what}: memory grew by {(most - before) / MIB:.1f} MiB")
    assert most - before < most_growth, what
    services.wait_ready()
    with connect(services.trial.profile) as client:
        _fresh(client, f"after {what}")
    assert not services.logged("north", "party.failed") and not services.logged("north", "session.failed")


def _address(services: Services, port: str) -> str:
    if port == "analyst":
        return services.config("north").service.analysts or ""
    return load_identity(services.config("north").path("identity")).card.address


def _call(services: Services, port: str, method: str, *headers: tuple[str, str]) -> http2.Connection:
    folder = services.trial.folder / (f"{HELPER}/identity" if port == "peer" else EVE)
    server = services.config("north").path("identity") / "certificate.pem"
    connection = http2.Connection(_address(services, port), http2.tls(folder, server))
    given = [(VERSION_KEY, PROTOCOL_VERSION), (LINK_KEY, "ab" * 32)] if port == "peer" else []
    connection.call(method, [*given, *headers])
    return connection


def _bomb() -> list[bytes]:
    """Return a message of gzip that holds 1 GiB of zeros, in parts."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    zeros = bytes(MIB)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    content = first + block * (GIB // MIB - 1) + packer.flush(zlib.Z_FINISH)
    return [http2.message(content, compressed=True)]


CALLS = [("peer", LINE_METHOD), ("peer", SESSION_METHOD), ("analyst", METHODS["Status"].path)]


def test_messages_of_a_gibibyte(services: Services) -> None:
    with measured(services, "1 GiB messages"):
        for port, method in CALLS:
            call = _call(services, port, method)
            zeros = bytes(MIB)
            parts = iter([http2.message(b"", claimed=GIB), *(zeros for _ in range(GIB // MIB))])
            # A session's stream is not read before that session is opened here: it holds one window.
            code = call.pour(parts, patience_s=1.0 if method == SESSION_METHOD else SOON_S)
            call.close()
            print(port, method, code, f"{call.sent / MIB:.1f} MiB sent")
            assert code in REFUSED | {LINE_METHOD: {DISPLACED}, SESSION_METHOD: {"HELD"}}.get(method, set())


def test_a_bomb_of_gzip(services: Services) -> None:
    with measured(services, "gzip bombs"):
        for port, method in CALLS:
            call = _call(services, port, method, ("grpc-encoding", "gzip"))
            code = call.pour(_bomb(), patience_s=SOON_S)
            call.close()
            print(port, method, code)
            assert code in REFUSED


def test_a_megabyte_of_metadata(services: Services) -> None:
    with measured(services, "1 MB of metadata"):
        for port, method in CALLS:
            call = _call(services, port, method, ("x", "y" * 1_000_000))
            code = call.pour([http2.message(b"{}")], patience_s=SOON_S)
            call.close()
            print(port, method, code)
            assert code in REFUSED


def test_a_million_empty_messages(services: Services) -> None:
    empty = http2.message(b"") * 10_000
    until_s = time.monotonic() + 60
    with measured(services, "3 × 10^6 empty messages"):
        for port, method in CALLS:
            sent, codes = 0, Counter[str]()
            patience_s = 0.3 if method == SESSION_METHOD else SOON_S
            # A call that ends is begun again until all have been sent; a stream that is held takes no more.
            while sent < 10**6 and not codes["HELD"] and time.monotonic() < until_s:
                call = _call(services, port, method)
                batches = (empty for _ in range(1 + (10**6 - sent) // 10_000))
                codes[call.pour(batches, patience_s=patience_s)] += 1
                sent += call.sent // 5
                call.close()
            print(port, method, sent, dict(codes))
            # A stream that nobody reads holds what HTTP/2's window takes, and no more.
            assert set(codes) <= {*REFUSED, "OK", "INVALID_ARGUMENT", "HELD", "SENT"}
            assert sent >= 10**6 or method == SESSION_METHOD, codes


def test_messages_that_are_read_and_mean_nothing(services: Services) -> None:
    """What is read on a line is dropped without filling the log."""
    before = services.trial.log("north").stat().st_size
    nothing = http2.message(b"MPL\x01\0\0\0\0") * 500
    ping = http2.message(b"MPL\x01\x01\0\0\0" + bytes(8)) * 500
    with measured(services, "20,000 messages without meaning"):
        call = _call(services, "peer", LINE_METHOD)
        # The helper's own connection takes the line over again, sooner or later.
        assert call.pour([*([nothing] * 40), *([ping] * 10)], patience_s=0.5) in {"SENT", "OK"}
        print(f"{call.sent / MIB:.1f} MiB sent")
        call.close()
    grown = services.trial.log("north").stat().st_size - before
    assert grown < 20_000, f"{grown} bytes of log"


def test_handshakes_that_are_never_made(services: Services) -> None:
    hello = b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"  # the beginning of one, and then silence
    with measured(services, "400 idle handshakes"):
        held = []
        for port in ("peer", "analyst"):
            for number in range(200):
                held.append(http2.Connection(_address(services, port), None))
                if number % 2:
                    held[-1].socket.sendall(hello)
        _others_are_served(services)
        for connection in held:
            connection.close()


def test_a_thousand_connections(services: Services) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    server = services.config("north").path("identity") / "certificate.pem"
    context = http2.tls(services.trial.folder / EVE, server)
    with measured(services, "1,000 connections of one analyst", 2 * MOST_GROWTH):
        held, refused = [], 0
        for _ in range(1_000):
            try:
                held.append(http2.Connection(_address(services, "analyst"), context))
            except OSError:
                refused += 1
        print(f"{len(held)} connections, {refused} refused")
        _others_are_served(services)
        for connection in held:
            connection.close()


def _others_are_served(services: Services) -> None:
    """Check that health, the other analyst and, through a release, all peers are served."""
    for _ in range(10):
        assert services.serves("north", "") and services.serves("north", "mpc.Peer")
    with connect(services.trial.profile) as client:
        for _ in range(5):
            assert patiently(client.requests) is not None
        _fresh(client, f"amid {time.monotonic_ns()}")


def test_a_flood_of_submissions(services: Services) -> None:
    """One analyst's flood is refused beyond a quota, and all others are served in the meantime."""
    eve = load_identity(services.trial.folder / EVE)
    north = load_identity(services.config("north").path("identity"))
    digest = _codebook_digest(services)
    query = parse_query(
        {"preset": "count", "privacy": {"epsilon": "0.5", "rule": "noisy", "threshold": 5}, "title": "flood"}
    )
    bodies = [
        make_submission(query, digest, "trial", f"flood {n}", eve).model_dump_json(by_alias=True).encode()
        for n in range(20)
    ]
    codes: Counter[str] = Counter()
    ended = threading.Event()

    async def flood() -> None:
        credentials = grpc.ssl_channel_credentials(
            north.certificate.pem, eve.private_key_pem, eve.certificate.pem
        )
        options = [("grpc.ssl_target_name_override", "north")]

        async def submit(channel: grpc.aio.Channel, number: int) -> None:
            while not ended.is_set() and codes.total() < 3_000:
                body = bodies[(number + codes.total()) % len(bodies)]
                try:
                    async for _ in channel.unary_stream(METHODS["Submit"].path)(body, timeout=20):
                        pass
                    codes["OK"] += 1
                except grpc.aio.AioRpcError as error:
                    codes[error.code().name] += 1

        async with grpc.aio.secure_channel(_address(services, "analyst"), credentials, options) as channel:
            await asyncio.gather(*(submit(channel, number) for number in range(40)))

    with measured(services, "a flood of submissions"):
        flooding = threading.Thread(target=lambda: asyncio.run(flood()))
        flooding.start()
        try:
            until(lambda: codes["RESOURCE_EXHAUSTED"] > 50, "the flood")
            before = codes.total()
            _others_are_served(services)
            print(
                f"{codes.total() - before} calls of the flood ended while others were served; {dict(codes)}"
            )
        finally:
            ended.set()
            flooding.join()
    assert set(codes) <= {"OK", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "PERMISSION_DENIED"}, codes
    assert codes["RESOURCE_EXHAUSTED"] > 5 * codes["OK"] > 0


def _codebook_digest(services: Services) -> str:
    return load_codebook(services.trial.folder / "codebook.toml").digest()
