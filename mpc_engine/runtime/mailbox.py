"""Where a link keeps what has arrived until the protocol asks for it, and who waits for what.

Both adapters of the port deliver into a mailbox, so that sizes, deadlines, duplicates, lost peers and
aborts mean the same over memory and over the network. A mailbox belongs to one event loop and is
never blocked: a peer that runs ahead is bounded in bytes, not slowed down, because a reader that
stops reading could not see an abort either.

What does not fit ends the session. A message that comes twice is ProtocolOrderError, for a stream repeats
nothing by accident; only in the control section, where parties compare what they hold, is a true copy
ignored, and another content in the same place EquivocationError. A message of another length, session or
order than the plan has is ProtocolOrderError: whatever it holds, it is not the message of this place.
InvalidShareError is for content of the right length, and is raised by who decodes it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping

import numpy as np

from mpc_engine.errors import DeadlineError, EngineError, EquivocationError, PeerError, ProtocolOrderError
from mpc_engine.runtime.link import MessageKey, Section

SESSION_BYTES = 16
UNBOUND = bytes(SESSION_BYTES)
"""The session id of messages sent before the parties have agreed on one."""

_HOLDING_COST = 512
"""Bytes charged for each held frame on top of its payload, so that empty messages are bounded too."""

_Index = tuple[int, int, int, int]


def describe(key: MessageKey) -> str:
    """Return the message's place in the session in words, for errors."""
    return f"section {Section(key.section).name.lower()}, round {key.round}, block {key.chunk}"


class _Message:
    """One message under way: what has arrived of it, and who waits for it."""

    __slots__ = ("buffer", "exact", "frames", "have", "session", "size", "total", "unbound", "waiter")

    def __init__(self) -> None:
        self.session = UNBOUND
        self.total = -1  # unknown until the first frame
        self.have = 0
        self.frames: list[memoryview] = []
        self.buffer: memoryview | None = None
        self.waiter: asyncio.Future[memoryview] | None = None
        self.size = 0
        self.exact = True
        self.unbound = False


class Mailbox:
    """Incoming messages of one party in one session.

    `names` gives every peer's label for errors, `round_timeout_s` the longest wait for one message in
    seconds, `max_ahead_bytes` how much one peer may send before this party asks for it.
    """

    def __init__(self, names: Mapping[int, str], *, round_timeout_s: float, max_ahead_bytes: int) -> None:
        self._names = dict(names)
        self._timeout_s = round_timeout_s
        self._max_ahead = max_ahead_bytes
        self._ahead = dict.fromkeys(self._names, 0)
        self._messages: dict[_Index, _Message] = {}
        self._finished: dict[_Index, bytes] = {}  # with the digest of a control message
        self._ended: set[int] = set()
        self._goodbyes: asyncio.Future[None] | None = None
        self._session = UNBOUND
        self._failure: EngineError | None = None
        self.on_failure: Callable[[], None] | None = None
        """Called once, when the session fails; for whoever waits for something other than a message."""

    @property
    def failed(self) -> bool:
        """Whether the session has ended early."""
        return self._failure is not None

    @property
    def failure(self) -> EngineError | None:
        """What ended the session early, or None. A new copy each time, so that each has its own trace."""
        return None if self._failure is None else type(self._failure)(*self._failure.args)

    def raise_failure(self) -> None:
        """Raise what ended the session early, if anything did."""
        if self._failure is not None:
            raise type(self._failure)(*self._failure.args)

    @property
    def session(self) -> bytes:
        """The session id that messages carry now; zeros until one is bound."""
        return self._session

    def bind_session(self, session: bytes) -> None:
        """Demand `session` (16 bytes, not all zero) of all that is asked for from now on, `unbound` apart."""
        if len(session) != SESSION_BYTES or session == UNBOUND:
            raise EngineError(f"a session id has {SESSION_BYTES} bytes and is not zero")
        if self._session != UNBOUND:
            raise EngineError("the session id is bound already")
        self._session = bytes(session)

    # --- from the channel -------------------------------------------------------------------------

    def deliver(
        self, sender: int, key: MessageKey, session: bytes, total: int, offset: int, payload: memoryview
    ) -> None:
        """Take one frame: bytes `offset` … of a message of `total` bytes from `sender`.

        The payload is kept, not copied, if it is the whole message. Raises ProtocolOrderError for a
        repeated message, frames out of order, another length or session than the one asked for,
        and for a peer that runs too far ahead; EquivocationError for a second content of a control message.
        """
        index = (sender, *key)
        message = self._messages.get(index)
        if self._is_copy(index, message, total, payload):
            return
        if message is None:
            message = self._messages[index] = _Message()
        if message.total < 0:
            message.total, message.session = total, session
            if message.waiter is not None:
                self._check(sender, key, message)
        if message.total != total or message.session != session or message.have != offset:
            raise self._disorder(sender, key, "its frames do not fit together")
        message.have += len(payload)
        if message.have > total or (not len(payload) and total):
            raise self._disorder(sender, key, "its frames do not fit together")
        if message.waiter is None:
            self._hold(sender, key, message, payload)
        elif len(payload) == total:
            self._finish(index, message, payload)
        else:
            buffer = self._buffer(message)
            buffer[offset : message.have] = payload
            if message.have == total:
                self._finish(index, message, buffer)

    def end(self, sender: int) -> None:
        """Note that `sender` ended in good order: what it has not sent by now will never come."""
        self._ended.add(sender)
        if self._goodbyes is not None and not self._goodbyes.done() and self._ended.issuperset(self._names):
            self._goodbyes.set_result(None)
        for index, message in self._messages.items():
            if index[0] == sender and message.waiter is not None and not message.waiter.done():
                message.waiter.set_exception(self._ended_early(sender, _key(index)))

    def fail(self, error: EngineError) -> bool:
        """End the session: every wait, present and future, raises `error`.

        Returns False, and changes nothing, if the session has ended already.
        """
        if self._failure is not None:
            return False
        self._failure = error
        for message in self._messages.values():
            if message.waiter is not None and not message.waiter.done():
                message.waiter.set_exception(type(error)(*error.args))
        if self._goodbyes is not None and not self._goodbyes.done():
            self._goodbyes.set_exception(type(error)(*error.args))
        if self.on_failure is not None:
            self.on_failure()
        return True

    # --- from the protocol ------------------------------------------------------------------------

    async def take(
        self,
        peer: int,
        key: MessageKey,
        size: int,
        *,
        exact: bool = True,
        timeout_s: float | None = None,
        unbound: bool = False,
    ) -> memoryview:
        """Wait for a message of exactly `size` bytes, or of at most `size` if not `exact`.

        `unbound`: it was sent before the session was bound, whatever is bound here by now.

        Raises as `Link.receive` does.
        """
        self.raise_failure()
        if peer not in self._names:
            raise EngineError(f"there is no channel to party {peer}")
        index = (peer, *key)
        message = self._messages.get(index)
        if index in self._finished or (message is not None and message.waiter is not None):
            raise EngineError(f"the message {describe(key)} from {self._names[peer]} was asked for twice")
        if message is None:
            message = self._messages[index] = _Message()
        message.size, message.exact, message.unbound = size, exact, unbound
        if message.total >= 0:
            self._claim(peer, key, message)
            if message.have == message.total:
                content = message.frames[0] if message.buffer is None else message.buffer
                self._note_finished(index, content)
                return content
        if peer in self._ended:
            raise self._ended_early(peer, key)
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[memoryview] = loop.create_future()
        message.waiter = waiter
        limit_s = self._timeout_s if timeout_s is None else timeout_s
        timer = loop.call_later(limit_s, self._expire, waiter, peer, key, limit_s)
        try:
            return await waiter
        finally:
            timer.cancel()

    async def goodbyes(self) -> None:
        """Wait until every peer has ended in good order.

        Raises what ended the session instead, DeadlineError naming who said nothing.
        """
        self.raise_failure()
        if self._ended.issuperset(self._names):
            return
        self._goodbyes = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._goodbyes
        except TimeoutError:
            missing = ", ".join(name for peer, name in self._names.items() if peer not in self._ended)
            raise DeadlineError(f"no goodbye came within {self._timeout_s:g} s from {missing}") from None

    # --- within -----------------------------------------------------------------------------------

    def _is_copy(self, index: _Index, message: _Message | None, total: int, payload: memoryview) -> bool:
        """Tell whether a frame repeats a whole control message; raises if it repeats anything else."""
        sender, key = index[0], _key(index)
        digest = self._finished.get(index)
        if digest is None and message is not None and 0 <= message.total == message.have:
            digest = _digest(key, message.frames[0] if message.frames else memoryview(b""))
        if digest is None:
            return False
        if key.section != Section.CONTROL or len(payload) != total:
            raise self._disorder(sender, key, "it was sent before")
        if _digest(key, payload) != digest:
            raise EquivocationError(
                f"message {describe(key)} from {self._names[sender]}: it was sent before with another content"
            )
        return True

    def _note_finished(self, index: _Index, content: memoryview) -> None:
        del self._messages[index]
        self._finished[index] = _digest(_key(index), content)

    def _check(self, sender: int, key: MessageKey, message: _Message) -> None:
        """Compare what the first frame says with what this party expects."""
        if message.session != (UNBOUND if message.unbound else self._session):
            raise self._disorder(sender, key, "it belongs to another session")
        if message.total != message.size and (message.exact or message.total > message.size):
            bound = f"{'' if message.exact else 'at most '}{message.size}"
            raise self._disorder(sender, key, f"it has {message.total} bytes, the plan has {bound}")

    def _hold(self, sender: int, key: MessageKey, message: _Message, payload: memoryview) -> None:
        self._ahead[sender] += len(payload) + _HOLDING_COST
        if self._ahead[sender] > self._max_ahead:
            raise self._disorder(sender, key, f"it is more than {self._max_ahead} bytes ahead")
        message.frames.append(payload)

    def _claim(self, peer: int, key: MessageKey, message: _Message) -> None:
        """Take over the frames that came before this party asked for them."""
        self._check(peer, key, message)
        self._ahead[peer] -= message.have + _HOLDING_COST * len(message.frames)
        if len(message.frames) > 1 or message.have < message.total:
            buffer, start = self._buffer(message), 0
            for frame in message.frames:
                buffer[start : start + len(frame)] = frame
                start += len(frame)
            message.frames.clear()

    @staticmethod
    def _buffer(message: _Message) -> memoryview:
        """Return the place where the frames are put together, `total` bytes, which the plan has confirmed."""
        if message.buffer is None:
            room: memoryview = np.empty(message.total, dtype=np.uint8).data
            message.buffer = room
            return room
        return message.buffer

    def _finish(self, index: _Index, message: _Message, content: memoryview) -> None:
        self._note_finished(index, content)
        if message.waiter is not None and not message.waiter.done():
            message.waiter.set_result(content)

    def _expire(self, waiter: asyncio.Future[memoryview], peer: int, key: MessageKey, limit_s: float) -> None:
        if not waiter.done():
            text = f"nothing came from {self._names[peer]} within {limit_s:g} s: {describe(key)}"
            waiter.set_exception(DeadlineError(text))

    def _ended_early(self, peer: int, key: MessageKey) -> PeerError:
        return PeerError(f"{self._names[peer]} ended the session before this message: {describe(key)}")

    def _disorder(self, sender: int, key: MessageKey, what: str) -> ProtocolOrderError:
        return ProtocolOrderError(f"message {describe(key)} from {self._names[sender]}: {what}")


def _digest(key: MessageKey, content: memoryview) -> bytes:
    """Return the digest of a control message; others are not compared, and may be long."""
    return hashlib.sha256(content).digest() if key.section == Section.CONTROL else b""


def _key(index: _Index) -> MessageKey:
    return MessageKey(index[1], Section(index[2]), index[3])
