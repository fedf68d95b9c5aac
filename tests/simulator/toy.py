"""A toy party for testing the simulator itself: a register of entries that all parties are to share.

An entry submitted at one party goes to all others, durably: it is stored first, with the messages that are
owed, and said again until a peer acknowledges it. The wrong versions are what the simulator must catch.
"""

from __future__ import annotations

import asyncio
import json
from typing import Literal

from mpc_engine.errors import IdempotencyError
from tests.simulator.operations import WRITE, Op
from tests.simulator.world import BrokenError, Seat, World

Flaw = Literal["", "counts repeats", "tells before storing", "says once", "gives up"]
AGAIN_S = 20.0


class Toy:
    """One party. `flaw` names what is wrong with it."""

    def __init__(self, seat: Seat, flaw: Flaw) -> None:
        self.seat, self.flaw = seat, flaw
        disk = json.loads(seat.image) if seat.image else {"entries": {}, "owed": []}
        self.entries: dict[str, int] = disk["entries"]
        self.owed: list[tuple[int, str]] = [(peer, key) for peer, key in disk["owed"]]
        self._disk = self._written()
        self._main: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Say what is owed, again and again."""
        self._main = asyncio.current_task()
        await self.seat.switchboard.start(self)
        while True:
            if self.flaw != "says once":
                for peer, key in self.owed:
                    self._tell(peer, key)
            await asyncio.sleep(AGAIN_S)
            if self.flaw == "gives up" and len(self.entries) > 1:
                raise RuntimeError("too much for a toy")

    def image(self) -> bytes:
        """Return what was written last."""
        return self._disk

    async def stop(self) -> None:
        """End."""
        await self.seat.switchboard.stop(1.0)
        if self._main is not None:
            self._main.cancel()

    async def do(self, op: Op) -> None:
        """Enter the request's key on submit; the rest is of no interest to a toy."""
        key = f"key{op.number}"
        if op.kind == "differ" and key in self.entries:
            raise IdempotencyError("another entry has this key")
        if op.kind == "submit" and key not in self.entries:
            peers = self.seat.switchboard.peers
            if self.flaw == "tells before storing":
                for peer in peers:
                    self._tell(peer, key)
                await asyncio.sleep(0.5)
            self.entries[key] = 1
            self.owed += [(peer, key) for peer in peers]
            self._write()
            for peer in peers:
                self._tell(peer, key)

    def line_up(self, peer: int) -> None:
        """Do nothing: what is owed is said at intervals."""

    def line_down(self, peer: int, why: str) -> None:
        """Do nothing."""

    def heard(self, peer: int, message: bytes) -> None:
        """Enter what a peer tells and acknowledge it, or strike out what it acknowledges."""
        kind, key = message.decode().split(":")
        if kind == "ack":
            self.owed = [each for each in self.owed if each != (peer, key)]
            self._write()
            return
        if key not in self.entries:
            self.entries[key] = 1
            self._write()
        elif self.flaw == "counts repeats":
            self.entries[key] += 1
            self._write()
        self.seat.switchboard.say(peer, f"ack:{key}".encode())

    def _tell(self, peer: int, key: str) -> None:
        self.seat.switchboard.say(peer, f"entry:{key}".encode())

    def _write(self) -> None:
        self._disk = self._written()
        self.seat.reach(WRITE)

    def _written(self) -> bytes:
        return json.dumps({"entries": self.entries, "owed": self.owed}).encode()


def once(world: World, settled: bool) -> None:
    """No entry is counted twice anywhere."""
    for number, station in world.stations.items():
        if isinstance(station, Toy) and any(count > 1 for count in station.entries.values()):
            raise BrokenError(f"party {number} counts an entry more than once")


def alike(world: World, settled: bool) -> None:
    """In the end all parties have the same entries."""
    held = [set(station.entries) for station in world.stations.values() if isinstance(station, Toy)]
    if settled and any(each != held[0] for each in held):
        raise BrokenError("the parties' entries differ in the end")
