"""What each session of parties in one process takes: rounds, payload, time of the processor."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mpc_engine.harness.wrapping import wrapped
from mpc_engine.party.session import Session
from mpc_engine.runtime.link import Section
from mpc_engine.runtime.memory import MemoryLink

_METERS: contextvars.ContextVar[Meters | None] = contextvars.ContextVar("_METERS", default=None)
"""Where the sessions of this context are measured."""


class Meters:
    """The sessions of one stage's parties, as far as they ran over their own link.

    ``cpu_s`` is the whole process's time while a session ran, divided by its computing parties: those of one
    process cannot be told apart.
    """

    def __init__(self) -> None:
        self._found: dict[str, dict[str, dict[str, float]]] = {}
        self._began: dict[str, float] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Measure until the end."""
        with ExitStack() as stack:
            stack.enter_context(wrapped(Session, "compute", self._timing))
            stack.enter_context(wrapped(Session, "publish", self._timing))
            yield

    def enter(self) -> None:
        """Measure the sessions of the present context."""
        _METERS.set(self)

    def as_fields(self) -> dict[str, dict[str, dict[str, float]]]:
        """Return what was measured by ticket and party's name, as `Stage.further` says."""
        return self._found

    def _timing(self, run: Callable[[Session], Any]) -> Callable[[Session], Any]:
        async def wrapper(session: Session) -> Any:
            if _METERS.get() is not self or not session.ticket:
                return await run(session)
            ticket = session.ticket.hex()
            self._began.setdefault(ticket, time.process_time())
            try:
                return await run(session)
            finally:
                self._note(ticket, session)

        return wrapper

    def _note(self, ticket: str, session: Session) -> None:
        link = session.link
        if not isinstance(link, MemoryLink):
            return
        name = session.proposal.members[session.me - 1].name
        control = max((link.stats.messages(peer, Section.CONTROL) for peer in link.peers), default=0)
        took = time.process_time() - self._began[ticket]
        self._found.setdefault(ticket, {})[name] = {
            "rounds": session.meter.total_rounds,
            "control_rounds": control,
            "sent_bytes": link.stats.payload_bytes(),
            "cpu_s": round(took / session.proposal.computing, 6),
        }
