"""The relay: joins network namespaces by wires of its own, on which it makes the weather.

Run as a process of its own: ``python -m mpc_engine.harness.relay``. It opens one TUN device in each
namespace and carries IP packets from one to the other, later, slower or not at all. All of it lies below TCP,
so slow start, windows, retransmissions and time-outs are those of the kernel. `Wires` starts and orders it.

Orders are JSON objects, one a line, on standard input; every one is answered by one line with its ``number``.
What happens later, such as a reset, is told by a line with ``event`` and the number of its ``order``. The
process ends with its input.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from mpc_engine.harness.namespaces import enter
from mpc_engine.harness.packets import HEADER, Packet
from mpc_engine.harness.wire import Wire

DEVICE: Final = "wan0"
CONGESTION: Final = "cubic"
_TUNSETIFF, _TUNSETOFFLOAD, _TUNSETVNETHDRSZ = 0x400454CA, 0x400454D0, 0x400454D8
_IFF_TUN, _IFF_NO_PI, _IFF_VNET_HDR = 0x0001, 0x1000, 0x4000
_OFFLOAD_CHECKSUM, _OFFLOAD_TSO4 = 0x01, 0x02
_LARGEST: Final = 70_000
_IDLE_S: Final = 1.0
_EARLY_S: Final = 0.0004
"""So long before a packet is due the relay stays awake: a kernel wakes who sleeps that much too late."""
_OWN_S: Final = 0.00015
"""What the relay itself takes for a packet that it holds back, as measured; it is part of the delay."""
_PR_SET_TIMERSLACK: Final = 29
_BATCH: Final = 64
"""So many packets are read from one device before the others have their turn."""
QUEUE_PACKETS: Final = 4096
"""Packets that a kernel keeps for the relay."""


def open_device(namespace: Path, whole: bool) -> int:
    """Return a TUN device made in a namespace; with `whole` it takes segments of up to 64 KiB.

    The device goes with the descriptor. Raises OSError.
    """
    home = os.open("/proc/self/ns/net", os.O_RDONLY)
    try:
        enter(namespace)
        device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        flags = _IFF_TUN | _IFF_NO_PI | _IFF_VNET_HDR
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", DEVICE.encode(), flags))
        fcntl.ioctl(device, _TUNSETVNETHDRSZ, struct.pack("i", HEADER))
        fcntl.ioctl(device, _TUNSETOFFLOAD, _OFFLOAD_CHECKSUM | _OFFLOAD_TSO4 if whole else 0)
        return device
    finally:
        enter(f"/proc/self/fd/{home}")
        os.close(home)


class Relay:
    """The wires between some ends; `ends` maps names to (namespace, IPv4 address)."""

    def __init__(self, ends: Mapping[str, tuple[Path, str]], seed: int, whole: bool) -> None:
        self._names = {socket.inet_aton(address): name for name, (_, address) in ends.items()}
        self._devices = {name: open_device(namespace, whole) for name, (namespace, _) in ends.items()}
        self._readers = {device: name for name, device in self._devices.items()}
        self.wires = {
            (one, two): Wire([seed, first, second])
            for first, one in enumerate(ends)
            for second, two in enumerate(ends)
            if one != two
        }
        self._lines = b""
        self._ended = False

    def run(self) -> None:
        """Carry packets until the input ends."""
        watched = [*self._readers, sys.stdin.fileno()]
        while not self._ended:
            ready, _, _ = select.select(watched, [], [], self._pause())
            for source in ready:
                if source in self._readers:
                    self._take(source)
                else:
                    self._listen()
            now = time.monotonic()
            for (_, name), wire in self.wires.items():
                for content in wire.due(now + _OWN_S):
                    self._give(name, content)

    def _pause(self) -> float:
        due = min((wire.next_due for wire in self.wires.values()), default=float("inf"))
        return min(max(due - time.monotonic() - _OWN_S - _EARLY_S, 0.0), _IDLE_S)

    def _take(self, device: int) -> None:
        """Read what a kernel has sent, and put it on its wire."""
        sender = self._readers[device]
        for _ in range(_BATCH):
            try:
                content = os.read(device, _LARGEST)
            except BlockingIOError:
                return
            receiver = self._names.get(content[HEADER + 16 : HEADER + 20])
            if receiver is not None and receiver != sender and content[HEADER] >> 4 == 4:
                self.wires[sender, receiver].take(content, time.monotonic())

    def _give(self, name: str, content: bytes) -> None:
        # A kernel that has no room drops the packet, as any router would.
        with suppress(BlockingIOError):
            os.write(self._devices[name], content)

    # --- orders -------------------------------------------------------------------------------------

    def _listen(self) -> None:
        read = os.read(sys.stdin.fileno(), 1 << 16)
        self._ended = not read
        *lines, self._lines = (self._lines + read).split(b"\n")
        for line in lines:
            order = json.loads(line)
            _answer(number=order["number"], **self._obey(order))

    def _obey(self, order: Mapping[str, Any]) -> dict[str, Any]:
        now = time.monotonic()
        match order:
            case {"order": "weather", "between": [one, two], "weather": weather}:
                for pair in ((one, two), (two, one)):
                    self.wires[pair].weather(**weather)
            case {"order": "cut", "party": party, "against": against, "for_s": for_s}:
                for wire in self._around(party, against):
                    wire.cut(now + for_s)
            case {"order": "heal"}:
                for wire in self.wires.values():
                    wire.heal()
            case {"order": "reset", "party": party, "against": against, "bytes": count}:
                for other in against:
                    self._arm(party, other, count, order["number"])
            case {"order": "traffic"}:
                return {
                    "wires": [
                        {"from": one, "to": two, **wire.traffic()} for (one, two), wire in self.wires.items()
                    ]
                }
            case _:
                return {"error": "no such order"}
        return {"at": now}

    def _around(self, party: str, against: Sequence[str]) -> list[Wire]:
        return [self.wires[pair] for other in against for pair in ((party, other), (other, party))]

    def _arm(self, party: str, other: str, count: int, number: int) -> None:
        """Reset the connections between two ends once `count` more bytes have come to `party`."""
        wire, back = self.wires[other, party], self.wires[party, other]

        def struck(last: Packet) -> list[bytes]:
            for content in back.reset(last):
                self._give(other, content)
            _answer(event="reset", order=number, party=party, against=other, at=time.monotonic())
            return [last.reset()]

        wire.arm(count, struck)


def _answer(**fields: object) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the relay that the first line of standard input describes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started this ends it by closing its input
    with suppress(OSError):
        os.nice(-10)  # what it measures must not wait for it
    ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    first = b""
    while not first.endswith(b"\n"):
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            return
        first += byte
    setup = json.loads(first)
    ends = {name: (Path(path), address) for name, path, address in setup["ends"]}
    try:
        relay = Relay(ends, setup["seed"], setup["whole"])
        for path, address in ends.values():
            _plug(path.name, address)
    except (OSError, subprocess.SubprocessError) as error:
        _answer(error=f"{type(error).__name__}: {error}")
        return
    _answer(number=setup["number"], ready=True)
    relay.run()


def _plug(network: str, address: str) -> None:
    """Give a device its address, and the network a route over it with the usual congestion control."""
    _ip(network, "link", "set", DEVICE, "mtu", "1500", "txqueuelen", str(QUEUE_PACKETS), "up")
    _ip(network, "address", "add", f"{address}/24", "dev", DEVICE, "noprefixroute")
    route = ("route", "replace", f"{address.rpartition('.')[0]}.0/24", "dev", DEVICE, "src", address)
    try:
        # Linux's default, whatever this machine's is: a report must not depend on that.
        _ip(network, *route, "congctl", CONGESTION)
    except subprocess.CalledProcessError:
        _ip(network, *route)


def _ip(network: str, *words: str) -> None:
    subprocess.run(["ip", "-n", network, *words], check=True, capture_output=True, timeout=30)


if __name__ == "__main__":
    main()
