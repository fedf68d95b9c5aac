"""Traps within a party's process: at a named place, for the n-th time, something happens to the process.

A trap is the file `trap.json` in the party's folder; it is renamed to `sprung.json` when it has caught.
Nothing here is part of the engine: it is laid by the program that runs the party, see `serve`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from mpc_engine.party import failpoints
from mpc_engine.party.counting import RegisteredCounter
from mpc_engine.party.serve import Service
from mpc_engine.party.session import Session
from mpc_engine.party.situation import Deadlines
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.transport.grpc_link import GrpcLink
from tests.party.nursery import command

PAUSE_S = 0.3
"""Between two tries of a session here; in service it is longer."""
SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "term": signal.SIGTERM}
SECRET = "canary-record-4711"
"""Quoted by a failure to count."""


@dataclass
class Trap:
    """The trap of one party."""

    home: Path
    passed: Counter[str] = field(default_factory=Counter)
    seen: str = ""

    def look(self) -> dict[str, Any]:
        """Return the trap that is set, {} if there is none."""
        try:
            text = (self.home / "trap.json").read_text()
        except FileNotFoundError:
            return {}
        if text != self.seen:
            self.passed.clear()
            self.seen = text
        return dict(json.loads(text))

    def reach(self, place: str) -> None:
        """Tell the trap that the party is at a place."""
        trap = self.look()
        if trap.get("place") != place:
            return
        self.passed[place] += 1
        if self.passed[place] != trap["nth"]:
            return
        self.sprung()
        if trap["how"] in SIGNALS:
            os.kill(os.getpid(), SIGNALS[trap["how"]])
        elif trap["how"] == "raise":
            raise ValueError(f"{SECRET} has no stage")
        elif trap["how"] == "memory":
            np.ones(1 << 46)

    def sprung(self) -> None:
        """Note that the trap has caught; the same one may be set again."""
        self.seen = ""
        (self.home / "trap.json").rename(self.home / "sprung.json")

    def spoil(self, section: Section, parts: Sequence[Any]) -> Sequence[Any]:
        """Return what is sent in place of a message's parts; such a trap stays until it is taken away."""
        trap = self.look()
        if trap.get("how") != "spoil" or trap["place"] != section.name:
            return parts
        content = np.frombuffer(b"".join(bytes(part) for part in parts), np.uint8).copy()
        content[0] ^= 1
        return [content.tobytes()]


def serve(home: str, config: str, prelude: str) -> None:
    """Be a party's process with a trap; `prelude` is Python to run before it serves."""
    lay(Path(home))
    exec(prelude, {"home": Path(home)})
    command("party", "serve", "--config", config)


def lay(home: Path) -> None:
    """Lay the trap into this process, and have it tell on SIGUSR2 what it holds."""
    trap = Trap(home)
    failpoints.hook = trap.reach
    # Only what a configuration does not set: how long it waits between two tries.
    Deadlines.__init__.__defaults__ = (60.0, 60.0, 900.0, PAUSE_S)
    send, receive, count, start = GrpcLink.send, GrpcLink.receive, RegisteredCounter._count, Service._start

    async def sending(self: GrpcLink, peer: int, key: MessageKey, parts: Sequence[Any]) -> None:
        await send(self, peer, key, trap.spoil(key.section, parts))

    async def receiving(self: GrpcLink, peer: int, key: MessageKey, size: int) -> memoryview:
        content = await receive(self, peer, key, size)
        trap.reach("message")
        return content

    def counting(self: RegisteredCounter, *args: Any) -> Any:
        trap.reach("count")
        return count(self, *args)

    async def starting(self: Service) -> None:
        await start(self)
        asyncio.get_running_loop().add_signal_handler(signal.SIGUSR2, tell, home)

    GrpcLink.send, GrpcLink.receive = sending, receiving  # type: ignore[method-assign]
    RegisteredCounter._count = counting  # type: ignore[method-assign, assignment]
    Service._start = starting  # type: ignore[method-assign]


def tell(home: Path) -> None:
    """Write down what the process holds: tasks by the name of what they do, sessions, links."""
    gc.collect()
    tasks = Counter(str(getattr(task.get_coro(), "__qualname__", "?")) for task in asyncio.all_tasks())
    alive = Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, Session | GrpcLink))
    found = {"tasks": dict(tasks), "alive": dict(alive)}
    (home / "inside.new").write_text(json.dumps(found))
    (home / "inside.new").rename(home / "inside.json")
