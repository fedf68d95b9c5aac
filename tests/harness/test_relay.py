"""The relay: delay, rate, loss and cuts below TCP, and resets that both ends believe."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import EngineError
from mpc_engine.harness import namespaces
from mpc_engine.harness.packets import HEADER, Packet
from mpc_engine.harness.wire import LEAST_QUEUE, Wire
from mpc_engine.harness.wires import Wires
from mpc_engine.scenario.document import Weather
from tests.party.nursery import environment

networked = pytest.mark.skipif(
    bool(namespaces.relay_obstacle()), reason=namespaces.relay_obstacle() or "there can be a relay"
)
A, B = "10.83.9.1", "10.83.9.2"

# --- one wire, without any network ----------------------------------------------------------------------


def segment(payload: bytes, sequence: int = 1_000, flags: int = 0x18, ack: int = 77) -> bytes:
    """Return a segment from A to B as a device gives it, written by hand; its sums are not filled in."""
    tcp = struct.pack(">HHIIBBHHH", 4321, 80, sequence, ack, 5 << 4, flags, 512, 0, 0) + payload
    size = 20 + len(tcp)
    ip = struct.pack(">BBHHHBBH4s4s", 0x45, 0, size, 1, 0, 64, 6, 0, socket.inet_aton(A), socket.inet_aton(B))
    return bytes(HEADER) + ip + tcp


def sum_of(content: bytes) -> int:
    """Return the ones' complement sum of 16-bit words: 0xffff where a checksum is right."""
    content += b"\0" * (len(content) % 2)
    total = 0
    for at in range(0, len(content), 2):
        total += content[at] << 8 | content[at + 1]
        total = (total & 0xFFFF) + (total >> 16)
    return total


def sums_hold(content: bytes) -> bool:
    """Tell whether both checksums of a packet are right."""
    ip = content[HEADER:]
    pseudo = ip[12:20] + bytes([0, 6]) + struct.pack(">H", len(ip) - 20)
    return sum_of(ip[:20]) == 0xFFFF and sum_of(pseudo + ip[20:]) == 0xFFFF


def arrivals(wire: Wire, times: list[float], size: int = 100) -> list[float]:
    """Send a packet at each of these times, and return when each arrives."""
    for at in times:
        wire.take(segment(bytes(size)), at)
    found = []
    while wire.next_due != float("inf"):
        now = wire.next_due
        found += [now] * len(wire.due(now))
    return found


def test_a_packet_takes_the_delay_and_its_time_on_the_link() -> None:
    wire = Wire([1])
    wire.weather(delay_ms=40)
    assert arrivals(wire, [1.0, 1.5]) == [1.04, 1.54]
    wire.weather(delay_ms=40, rate_mbit=8)  # a byte a microsecond
    first, second = arrivals(wire, [3.0, 3.0], size=960)  # 1,000 bytes with headers
    assert first == pytest.approx(3.041) and second == pytest.approx(3.042)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.integers(0, 2**32))
def test_packets_never_overtake_each_other_and_jitter_is_bounded(gaps: list[float], seed: int) -> None:
    wire = Wire([seed])
    wire.weather(delay_ms=10, jitter_ms=5)
    times = [sum(gaps[: index + 1]) for index in range(len(gaps))]
    found = arrivals(wire, times)
    assert found == sorted(found) and len(found) == len(times)
    latest = 0.0
    for sent, came in zip(times, found, strict=True):
        latest = max(latest, sent + 0.015)
        assert sent + 0.01 - 1e-9 <= came <= latest + 1e-9


def test_loss_follows_the_seed() -> None:
    def lost(seed: int) -> tuple[int, ...]:
        wire = Wire([seed])
        wire.weather(loss=0.1)
        kept = []
        for number in range(2_000):
            before = wire.traffic()["lost"]
            wire.take(segment(b"x"), float(number))
            kept.append(wire.traffic()["lost"] == before)
        return tuple(index for index, each in enumerate(kept) if not each)

    assert lost(5) == lost(5) != lost(6)
    assert 120 < len(lost(5)) < 280


def test_a_queue_that_is_full_drops_and_a_cut_drops_what_is_under_way() -> None:
    wire = Wire([1])
    wire.weather(rate_mbit=1)
    for _ in range(400):
        wire.take(segment(bytes(1_400)), 0.0)
    dropped = wire.traffic()["overflowed"]
    assert dropped > 0 and (400 - dropped) * 1_440 == pytest.approx(LEAST_QUEUE, rel=0.02)
    wire.cut(1e9)
    assert not wire.due(1e8) and wire.traffic()["cut"] == 400 - dropped
    wire.heal()
    wire.take(segment(b"again"), 2e9)
    assert len(wire.due(3e9)) == 1


@given(st.integers(0, 300), st.lists(st.integers(1, 90), min_size=1, max_size=8))
def test_a_reset_comes_after_exactly_so_many_bytes_with_the_numbers_expected(
    count: int, sizes: list[int]
) -> None:
    wire, back = Wire([1]), Wire([2])
    content = bytes(range(256)) * 3
    struck: list[Packet] = []

    def strike(last: Packet) -> list[bytes]:
        struck.append(last)
        return [last.reset(), *back.reset(last)]

    wire.arm(count, strike)
    came, place = [], 0
    for size in sizes:
        wire.take(segment(content[place : place + size], 5_000 + place), 0.0)
        came += wire.due(0.0)
        place += size
    if place < count:
        assert not struck and b"".join(each[HEADER + 40 :] for each in came) == content[:place]
        return
    *data, forth, other = came
    assert b"".join(each[HEADER + 40 :] for each in data) == content[:count]
    assert all(sums_hold(each) for each in (forth, other))
    assert struct.unpack_from(">HHI", forth, HEADER + 20) == (4321, 80, 5_000 + count)
    # Nothing has come the other way, so its number is the one that the segment acknowledges.
    assert struct.unpack_from(">HHI", other, HEADER + 20) == (80, 4321, 77)
    assert forth[HEADER + 33] == other[HEADER + 33] == 0x04
    wire.take(segment(b"late"), 1.0)
    assert not wire.due(1.0)


@pytest.mark.parametrize("content", [b"", bytes(HEADER), bytes(60), segment(b"", flags=0x02)])
def test_what_is_no_segment_of_a_connection_is_left_alone(content: bytes) -> None:
    assert Packet.read(content) is None


# --- two namespaces and kernels' own TCP -----------------------------------------------------------------

SERVER = """
import socket
with socket.create_server(("0.0.0.0", 9000)) as listener:
    print("listens", flush=True)
    while True:
        line, _ = listener.accept()
        with line:
            line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            try:
                while content := line.recv(1 << 20):
                    if content.endswith(b"!"):
                        line.sendall(b"k")
            except ConnectionResetError:
                print("reset", flush=True)
"""
CLIENT = """
import socket, sys, time
with socket.create_connection(("{host}", 9000)) as line:
    line.settimeout({patience})
    line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        for size in {sizes}:
            began = time.perf_counter()
            line.sendall(bytes(size - 1) + b"!")
            assert line.recv(1) == b"k"
            print(time.perf_counter() - began, flush=True)
    except (ConnectionResetError, TimeoutError) as error:
        print(type(error).__name__)
"""


@dataclass
class Pair:
    """Two networks, a server in the second, and what the relay said."""

    networks: dict[str, str]
    wires: Wires
    server: subprocess.Popen[str]
    happened: list[dict[str, Any]] = field(default_factory=list)

    def exchange(self, *sizes: int, patience: float = 20) -> list[str]:
        """Send so many bytes and wait for an answer, again and again; return what the client says."""
        program = CLIENT.format(host=B, sizes=list(sizes), patience=patience)
        done = subprocess.run(
            namespaces.within(self.networks["a"], [sys.executable, "-c", program]),
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.stdout.split()


@contextmanager
def pair(whole: bool = True) -> Iterator[Pair]:
    """Join two networks by a relay."""
    happened: list[dict[str, Any]] = []
    with namespaces.machines(["a", "b"]) as networks:
        ends = {"a": (networks["a"], A), "b": (networks["b"], B)}
        happening = lambda event: happened.append(dict(event))  # noqa: E731
        with Wires(ends, seed=3, whole=whole, happening=happening) as wires:
            command = namespaces.within(networks["b"], [sys.executable, "-c", SERVER])
            server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment())
            try:
                assert server.stdout is not None and server.stdout.readline() == "listens\n"
                yield Pair(dict(networks), wires, server, happened)
            finally:
                server.kill()
                server.wait()


@networked
def test_round_trips_take_the_delay_and_bytes_take_the_rate() -> None:
    with pair() as two:
        two.wires.weather("a", "b", Weather(delay_ms=40))
        trips = [float(said) for said in two.exchange(*[1] * 7)]
        # The shortest of some: a busy machine can only lengthen them.
        assert 0.079 < min(trips) < 0.09
        two.wires.weather("a", "b", Weather(rate_mbit=100))
        transfers = [float(said) for said in two.exchange(*[1 << 20] * 3)]
        assert 0.08 < min(transfers) < 0.3  # 84 ms and headers
        traffic = two.wires.traffic()["a", "b"]
        assert traffic["bytes"] > traffic["payload"] >= 3 * (1 << 20) + 7


@networked
def test_tcp_gets_over_loss() -> None:
    with pair(whole=False) as two:
        two.wires.weather("a", "b", Weather(loss=0.02))
        (took,) = two.exchange(1 << 20)
        assert float(took) < 20
        counted = two.wires.traffic()["a", "b"]
        assert counted["lost"] > 0 and counted["packets"] > 700  # of 1,448 bytes each


@networked
def test_a_cut_is_silence_and_heals_by_itself() -> None:
    with pair() as two:
        two.wires.cut("a", ["b"], 1.0)
        (took,) = two.exchange(1)  # the connection itself is made only when the kernel asks again
        assert float(took) < 1 and two.wires.traffic()["a", "b"]["cut"] > 0
        two.wires.cut("a", ["b"], 60)
        two.wires.heal()
        assert len(two.exchange(1)) == 1


@networked
@pytest.mark.parametrize("count", [0, 1, 70_000])
def test_both_ends_believe_a_reset(count: int) -> None:
    with pair() as two:
        number = two.wires.reset("b", ["a"], count)
        assert two.exchange(100_000, 100_000) == ["ConnectionResetError"]
        assert two.server.stdout is not None and two.server.stdout.readline() == "reset\n"
        (event,) = two.happened
        assert (event["event"], event["party"], event["against"]) == ("reset", "b", "a")
        assert event["order"] == number
        assert len(two.exchange(10)) == 1  # the next connection is whole


@networked
def test_an_interrupt_is_left_to_who_started_the_relay() -> None:
    """It ended first, and what the harness still did over the network failed for that."""
    with pair() as two:
        process = two.wires._process
        assert (
            process is not None and os.getsid(process.pid) == process.pid
        )  # no terminal's Ctrl-C comes here
        process.send_signal(signal.SIGINT)
        assert len(two.exchange(1)) == 1 and process.poll() is None


@networked
def test_a_relay_that_cannot_be_made_or_has_ended_says_so() -> None:
    with pytest.raises(EngineError, match="FileNotFoundError"), Wires({"a": ("nowhere", A)}, seed=1):
        pass
    with pair() as two:
        two.wires.close()
        with pytest.raises(EngineError, match="ended"):
            two.wires.heal()
    assert not [path for path in namespaces.FOLDER.glob("mpc*") if str(path.name) in two.networks.values()]
