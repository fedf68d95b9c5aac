"""A party as a service: its ledger, its lines, its desk and its sessions, wired together.

Everything that waits does so in one event loop, and everything that the party remembers is in its ledger:
it may be stopped at any instant and go on from there. Records, files, ports and signals belong to
:mod:`mpc_engine.party.serve`, which starts it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from datetime import datetime
from typing import Any

from mpc_engine.errors import DocumentError, EngineError
from mpc_engine.identity import utc_now
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.sealing import Sealing
from mpc_engine.party.answers import Answers
from mpc_engine.party.desk import SEQUENCER, Desk
from mpc_engine.party.journal import Journal, silent
from mpc_engine.party.messages import timestamp
from mpc_engine.party.notices import Notices
from mpc_engine.party.operator import Operator
from mpc_engine.party.post import Post
from mpc_engine.party.process import place_of
from mpc_engine.party.recovery import Recovery
from mpc_engine.party.runner import Runner
from mpc_engine.party.sequencer import Sequencer
from mpc_engine.party.situation import Counter, Situation
from mpc_engine.runtime.switchboard import Switchboard

TICK_S = 30.0
"""How often a party looks after what nobody told it of."""


class Party:
    """One party. It owns neither ledger nor switchboard: whoever made them closes them.

    Args:
        situation: what it is and may do; see `reload`.
        ledger, keys: what it remembers, and the keys to stored shares.
        switchboard: its connections; not started yet.
        counter: counts its records.
        journal: takes note of what happens.
        clock: the time of day in UTC.
    """

    def __init__(
        self,
        situation: Situation,
        ledger: Ledger,
        keys: Sealing,
        switchboard: Switchboard,
        counter: Counter,
        *,
        journal: Journal = silent,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._current, self._ledger, self._switchboard = situation, ledger, switchboard
        self._journal, self._counter = journal, counter
        self._tasks: set[asyncio.Task[None]] = set()
        self._failed: asyncio.Future[None] | None = None
        self._stopping = False
        self.post = Post(ledger, switchboard, situation.names, journal)
        self.post.on_broken = self._broken
        self.notices = Notices(ledger, self.post, self.situation, counter.snapshot, self._changed)
        self.desk = Desk(
            ledger, self.post, self.situation, self.notices.thresholds, self._withdrawn, self._changed
        )
        self.runner = Runner(
            ledger,
            keys,
            self.post,
            self.desk,
            switchboard,
            counter,
            self.situation,
            journal,
            self.notices.thresholds,
            self._ended,
            self._changed,
        )
        self.runner.on_failure = self._broken
        self.recovery = Recovery(ledger, self.post, self.situation, journal)
        self.runner.publishing.fetch = self.recovery.fetch
        self.desk.on_unknown_release = self.recovery.found
        self.sequencer = (
            Sequencer(
                ledger,
                self.post,
                self.desk,
                self.runner,
                switchboard,
                self.situation,
                journal,
                self.notices.known,
                self._spawn,
            )
            if situation.number == SEQUENCER
            else None
        )
        self.answers = Answers(ledger, self.desk, self.runner, self.notices, switchboard, self.situation)
        self.operator = Operator(
            ledger,
            self.desk,
            self.runner,
            self.notices,
            self.recovery,
            switchboard,
            self.situation,
            counter.snapshot,
            timestamp(clock()),
        )

    def situation(self) -> Situation:
        """Return what the party is and may do at present."""
        return self._current

    def reload(self, situation: Situation) -> None:
        """Take on changed documents: policy, analysts, cards, codebook. Committed sessions go on unchanged.

        Raises DocumentError for another roster: that needs a restart.
        """
        if situation.directory.digest != self._current.directory.digest:
            raise DocumentError("the roster has changed: restart the party, at all parties together")
        self._current = situation
        self.notices.spread()
        self._changed()

    # --- life ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Take up what was left, then connect. Raises DocumentError if the address is in use."""
        self._failed = asyncio.get_running_loop().create_future()
        self.runner.resume()
        await self._switchboard.start(self)
        self._spawn(self._tick())
        self._journal("party.started", party=self._current.name)

    async def failed(self) -> None:
        """Wait until the ledger fails in a way that the process must end for, and raise why."""
        if self._failed is None:
            raise EngineError("the party has not been started")
        await asyncio.shield(self._failed)

    async def stop(self, grace_s: float = 30.0) -> None:
        """Begin nothing more, end what has not committed, give the rest some time, and disconnect."""
        self._stopping = True
        if self.sequencer is not None:
            self.sequencer.stopped = True
        await self.runner.stop(grace_s)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._switchboard.stop(grace_s)
        if self._failed is not None and not self._failed.done():
            self._failed.cancel()
        self._journal("party.stopped", party=self._current.name)

    # --- the listener of the switchboard ------------------------------------------------------------

    def line_up(self, peer: int) -> None:
        """A line stands."""
        self._journal("line.up", peer=self._current.names[peer])
        self._guarded(lambda: self._greet(peer))

    def line_down(self, peer: int, why: str) -> None:
        """A line broke."""
        self._journal("line.down", peer=self._current.names[peer])
        self.post.line_down(peer)
        self._guarded(lambda: self.runner.line_down(peer))
        self._changed()

    def heard(self, peer: int, message: bytes) -> None:
        """A message came over a line."""
        self._guarded(lambda: self.post.heard(peer, message))

    def _greet(self, peer: int) -> None:
        self.post.line_up(peer)
        self.notices.greet(peer)
        self.runner.line_up(peer)
        self._changed()

    # --- within -------------------------------------------------------------------------------------

    def _guarded(self, action: Callable[[], None]) -> None:
        """Do something that a peer set off: whatever it is, this party goes on."""
        try:
            action()
        except EngineError as error:
            self._journal("party.refused", reason=error.reason)
            if self._ledger.broken:
                self._broken(error)
        except Exception as error:
            self._journal("party.failed", kind=type(error).__name__, **place_of(error))

    def _changed(self) -> None:
        """Something has changed that people see or that a session may wait for."""
        self.answers.changed()
        if self.sequencer is not None and not self._stopping:
            asyncio.get_running_loop().call_soon(self._pump)

    def _pump(self) -> None:
        if self.sequencer is not None:
            self._guarded(self.sequencer.pump)

    def _withdrawn(self, request: str) -> None:
        """A request has ended, or is to end, without a release."""
        self.runner.withdraw(request)
        self.recovery.learn(request)

    def _ended(self, ticket: str, state: str, failure: EngineError | None) -> None:
        self._guarded(self.notices.spread)
        if state == "SIGNED":
            self._guarded(self.recovery.accepted)
        if self.sequencer is not None:
            sequencer = self.sequencer
            self._guarded(lambda: sequencer.ended(ticket, state, failure))

    def _broken(self, error: BaseException) -> None:
        if self._failed is not None and not self._failed.done():
            self._failed.set_exception(error)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tick(self) -> None:
        """Look after what nobody told this party of: lost greetings, changed snapshots, waiting requests."""
        while True:
            await asyncio.sleep(TICK_S)
            for peer in self._current.peers:
                if self._switchboard.connected(peer):
                    self._guarded(lambda peer=peer: self.post.greet(peer))  # type: ignore[misc]
            self._guarded(self.notices.spread)
            self._guarded(self.runner.sweep)
            self._changed()

    def report(self) -> Mapping[str, int]:
        """Return numbers for metrics: requests that are open, sessions that run."""
        return {"sessions": len(self.runner.running), "entries": self._ledger.head().seq}
