"""Everything that parties in one process see and choose in a session, kept for the coalition's analysis.

Protocols are not changed for it: while `Views.installed` holds, a few functions are wrapped, and the wrappers
do nothing outside the context of a stage's own parties.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np

from mpc_engine.harness.record import Seen
from mpc_engine.harness.virtual_time import PARTY
from mpc_engine.harness.wrapping import wrapped
from mpc_engine.protocols import coins, dealing, signs
from mpc_engine.runtime.context import Context
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryLink

_VIEWS: contextvars.ContextVar[Views | None] = contextvars.ContextVar("_VIEWS", default=None)
"""Where what is seen in this context is kept."""
_SESSION: contextvars.ContextVar[bytes] = contextvars.ContextVar("_SESSION", default=b"")
"""Id of the session whose code runs."""
_KEPT = range(Section.PREPARE, Section.VALUES + 1)


class Views:
    """What each party of one stage saw, by number, in order.

    ``sent`` and ``received`` are the payloads of links in the sections PREPARE to VALUES, as they travelled.
    ``drawn`` is what a party knows in the clear before it shares it: what it deals – a silo's counts (section
    INPUT), its factors of random signs (PREPARE) –, one entry for each dealing with the rows one after the
    other, each number as the field writes it; and its parts of random bits (PREPARE), packed in words, those
    of each set of parties one after the other. The round of ``drawn`` is always 0.
    """

    def __init__(self) -> None:
        self.seen: dict[int, list[Seen]] = {}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Wrap what has to be wrapped, until the end."""
        with ExitStack() as stack:
            stack.enter_context(wrapped(MemoryLink, "arrive", _arriving))
            stack.enter_context(wrapped(MemoryLink, "bind_session", _binding))
            stack.enter_context(wrapped(dealing, "outgoing", _dealing))
            for module in (coins, signs):
                stack.enter_context(wrapped(module, "random_bits", _drawing))
            yield

    def enter(self) -> None:
        """Keep what is seen in the present context."""
        _VIEWS.set(self)

    def sent(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Keep a message as it is sent."""
        if key.section in _KEPT:
            self._keep(sender, Seen(session, "sent", receiver, key, content))

    def received(self, receiver: int, sender: int, key: MessageKey, session: bytes, content: bytes) -> None:
        """Keep a message as it arrives."""
        if key.section in _KEPT:
            self._keep(receiver, Seen(session, "received", sender, key, content))

    def drawn(self, chunk: int, section: Section, content: bytes) -> None:
        """Keep what the party whose code runs has drawn or is about to deal."""
        key = MessageKey(chunk, section, 0)
        self._keep(PARTY.get(), Seen(_SESSION.get(), "drawn", 0, key, content))

    def _keep(self, party: int, seen: Seen) -> None:
        self.seen.setdefault(party, []).append(seen)


def _section(path: str) -> Section:
    """Return the section in which a step of a release runs."""
    if path.startswith("/input") or path.startswith("/noise/finish"):
        return Section.INPUT
    return Section.TEST if path.startswith("/test") else Section.PREPARE


def _arriving(arrive: Callable[..., None]) -> Callable[..., None]:
    def wrapper(link: MemoryLink, sender: int, key: MessageKey, session: bytes, content: bytes) -> None:
        views = _VIEWS.get()
        if views is not None:
            views.received(link.me, sender, key, session, content)
        arrive(link, sender, key, session, content)

    return wrapper


def _binding(bind: Callable[..., None]) -> Callable[..., None]:
    def wrapper(link: MemoryLink, session: bytes) -> None:
        _SESSION.set(session)
        bind(link, session)

    return wrapper


def _dealing(outgoing: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(ctx: Context, field: Any, value: Any, scale: int = 1) -> Any:
        views = _VIEWS.get()
        if views is not None:
            views.drawn(ctx.chunk, _section(ctx.path), field.encode(value).tobytes())
        return outgoing(ctx, field, value, scale)

    return wrapper


def _drawing(random_bits: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*arguments: Any) -> Any:
        shares, parts = random_bits(*arguments)
        views = _VIEWS.get()
        if views is not None and parts:
            chunk = int(str(arguments[2]).partition("/")[0])
            views.drawn(chunk, Section.PREPARE, np.stack(list(parts.values())).tobytes())
        return shares, parts

    return wrapper
