"""A party of a scenario: `party serve` in a process in which faults can be laid.

Faults are files in the party's folder, written by the harness. `trap.json` names a failpoint and what happens
to the process there; it is renamed to `sprung.json`, with the time, when it has caught. `tamper.json` names a
section of the protocol and stays for as long as the party is to spoil what it sends there. Nothing here is
reachable from the engine: only `mpc_engine.harness.children` has it started.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np

from mpc_engine.errors import EngineError
from mpc_engine.party import failpoints
from mpc_engine.party.book import Committed
from mpc_engine.party.logs import DEBUG_EVENTS
from mpc_engine.party.process import stop_on_signals
from mpc_engine.party.publish import Finished
from mpc_engine.party.serve import Service
from mpc_engine.party.serve import serve as service
from mpc_engine.party.session import Session
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.grpc_link import GrpcLink

TRAP: Final = "trap.json"
SPRUNG: Final = "sprung.json"
TAMPER: Final = "tamper.json"
METERS: Final = "meters"
SIGNALS: Final[Mapping[str, signal.Signals]] = {
    "kill": signal.SIGKILL,
    "stop": signal.SIGTERM,
    "freeze": signal.SIGSTOP,
    "hold": signal.SIGSTOP,
}
"""What a trap does to the process. Whoever is held waits until the harness has done what must be done."""


@dataclass
class Actor:
    """The party of one process, with its folder."""

    home: Path

    def reach(self, place: str) -> None:
        """Be at a failpoint."""
        try:
            trap = json.loads((self.home / TRAP).read_text())
        except FileNotFoundError:
            return
        if trap["place"] != place:
            return
        (self.home / TRAP).unlink()
        if trap["how"] == "tamper":
            put(self.home / TAMPER, {"section": trap["section"]})
        put(self.home / SPRUNG, {"at": time.monotonic()})
        if trap["how"] in SIGNALS:
            os.kill(os.getpid(), SIGNALS[trap["how"]])

    def spoil(self, section: Section, parts: Sequence[Any]) -> Sequence[Any]:
        """Return what is sent in place of a message's parts."""
        try:
            wanted = json.loads((self.home / TAMPER).read_text())["section"]
        except FileNotFoundError:
            return parts
        if wanted != section.name:
            return parts
        content = np.frombuffer(b"".join(bytes(part) for part in parts), np.uint8).copy()
        content[:1] ^= 1
        return [content.tobytes()]


def put(path: Path, content: Mapping[str, Any]) -> None:
    """Write a file that whoever looks sees whole or not at all."""
    fresh = path.with_suffix(f".{os.getpid()}")
    fresh.write_text(json.dumps(content))
    fresh.rename(path)


def lay(home: Path) -> None:
    """Lay faults and measures into this process."""
    actor = Actor(home)
    failpoints.hook = actor.reach
    send, status, journal = GrpcLink.send, Service._command, Service._journal
    compute, publish = Session.compute, Session.publish
    control: WeakKeyDictionary[GrpcLink, set[int]] = WeakKeyDictionary()
    began: WeakKeyDictionary[Session, float] = WeakKeyDictionary()

    async def sending(self: GrpcLink, peer: int, key: MessageKey, parts: Sequence[Any]) -> None:
        if key.section is Section.CONTROL:
            control.setdefault(self, set()).add(key.round)
        await send(self, peer, key, actor.spoil(key.section, parts))

    def measured(session: Session) -> None:
        if not (session.ticket and isinstance(session.link, GrpcLink)):
            return
        found = {
            "rounds": session.meter.total_rounds,
            "control_rounds": len(control.get(session.link, ())),
            "sent_bytes": session.link.stats.payload_bytes(),
            "cpu_s": round(time.process_time() - began.get(session, time.process_time()), 6),
        }
        (home / METERS).mkdir(exist_ok=True)
        put(home / METERS / f"{session.ticket.hex()}.json", found)

    async def computing(self: Session) -> Committed:
        began[self] = time.process_time()
        try:
            return await compute(self)
        finally:
            measured(self)

    async def publishing(self: Session) -> Finished:
        try:
            return await publish(self)
        finally:
            measured(self)

    async def commanded(self: Service, command: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        answer = await status(self, command, fields)
        if command == "status":
            stats = self._switchboard.stats().values()
            answer["link_bytes"] = [
                sum(each.link_bytes_out for each in stats),
                sum(each.link_bytes_in for each in stats),
            ]
        return answer

    def noting(self: Service, event: str, /, **fields: str | int) -> None:
        # The shipped service leaves these out of its log, for there are many.
        if event in DEBUG_EVENTS and self._logs is not None:
            self._logs.note(event, **fields)
        journal(self, event, **fields)

    GrpcLink.send = sending  # type: ignore[method-assign]
    Session.compute, Session.publish = computing, publishing  # type: ignore[method-assign]
    Service._command = commanded  # type: ignore[method-assign]
    Service._journal = noting  # type: ignore[method-assign]


def serve(home: str) -> int:
    """Serve as the party whose folder this is, until it is ended; return the exit status.

    That is what `mpc-engine party serve` does, which alone may not be imported here: it is a layer above.
    """
    lay(Path(home))
    stop_on_signals()
    try:
        return service(Path(home) / "party.json")
    except EngineError as error:
        print(f"{error.reason}: {error}", file=sys.stderr)
        return error.exit_status
