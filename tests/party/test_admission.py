"""Nothing that depends on records leaves a party before it has checked every peer's RESERVE.

Noise is prepared meanwhile. One link is slow in most of these, in virtual time.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from unittest import mock

import numpy as np
import pytest

from mpc_engine.dp.accounting import Rule
from mpc_engine.errors import (
    DataError,
    EngineError,
    IntegrityError,
    LedgerRollbackError,
    PeerAbortedError,
    ProtocolOrderError,
)
from mpc_engine.harness import virtual_time
from mpc_engine.ledger.chain import EMPTY, Head
from mpc_engine.party.book import Unrecorded
from mpc_engine.party.policy import Policy
from mpc_engine.party.publish import Finished
from mpc_engine.party.session import AGREE, RESERVE, Session
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.mailbox import UNBOUND, Mailbox
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.runtime.memory_lines import Flow
from mpc_engine.transport.control import Agree, Reserve
from tests.world import credentials, proposal

BEFORE_COUNTS = (Section.CONTROL, Section.PREPARE)
SLOW_S = 5.0
Delay = Callable[[int, int, MessageKey], float]


class SlowNetwork(MemoryNetwork):
    """Carries each message with a delay, in order between two parties; what is said at the end waits too."""

    def __init__(self, parties: int, computing: int, delay: Delay, **options: Any) -> None:
        super().__init__(parties, computing, **options)
        self._delay = delay
        self._flows: dict[tuple[int, int], Flow] = {}
        self.sent: list[tuple[float, int, int, MessageKey]] = []
        self.arrived: dict[tuple[int, int, MessageKey], float] = {}

    def _later(self, sender: int, receiver: int, delay_s: float, arrive: Callable[[], None]) -> None:
        self._flows.setdefault((sender, receiver), Flow()).send(delay_s, arrive)

    def carry(self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes) -> None:
        loop = asyncio.get_running_loop()
        self.sent.append((loop.time(), sender, receiver, key))

        def arrive() -> None:
            self.arrived[sender, receiver, key] = loop.time()
            MemoryNetwork.carry(self, sender, receiver, key, session, content)

        self._later(sender, receiver, self._delay(sender, receiver, key), arrive)

    def goodbye(self, sender: int, receiver: int) -> None:
        self._later(sender, receiver, 0, lambda: MemoryNetwork.goodbye(self, sender, receiver))

    def tell_abort(self, sender: int, receiver: int, reason: str, message: str) -> None:
        super().tell_abort(sender, receiver, reason, message)


@dataclass
class Played:
    """What became of each party, in order, what was said when, and what the loop complained about."""

    results: list[Any]
    sessions: list[Session]
    network: SlowNetwork
    complaints: list[str]
    ended_s: float
    committed: dict[int, float]

    def counts_sent(self, party: int | None = None) -> list[float]:
        """Return when messages that may depend on records left a party, or any."""
        return [
            when
            for when, sender, _, key in self.network.sent
            if key.section not in BEFORE_COUNTS and party in (None, sender)
        ]


def slow(*links: tuple[int, int], step: int = RESERVE, delay_s: float = SLOW_S) -> Delay:
    """Return the delay of one control message on some links."""
    key = MessageKey(0, Section.CONTROL, step)
    return lambda sender, receiver, sent: delay_s if (sender, receiver) in links and sent == key else 0.0


def play(
    parties: int = 3,
    computing: int = 3,
    *,
    cells: int = 300,
    delay: Delay = lambda *_: 0.0,
    network: Mapping[str, Any] | None = None,
    counts: Mapping[int, Any] | None = None,
    meddle: Callable[[list[Session]], None] = lambda sessions: None,
    during: Callable[[list[asyncio.Task[Any]]], Awaitable[None]] | None = None,
) -> Played:
    """Run a whole session of silos, in five blocks, in virtual time."""
    asked = proposal(cells, [True] * parties, computing)
    sides = credentials(parties)
    committed: dict[int, float] = {}
    complaints: list[str] = []

    class Timed(Unrecorded):
        """Notes when its party commits."""

        def __init__(self, number: int) -> None:
            self.number = number

        def commit(self, draft: Any) -> Head:
            committed[self.number] = asyncio.get_running_loop().time()
            return super().commit(draft)

    async def everyone() -> Played:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: complaints.append(str(context["message"])))
        net = SlowNetwork(parties, computing, delay, **{"round_timeout_s": 20.0, **(network or {})})
        sessions = [
            Session(
                i,
                asked,
                Policy("10", 1, rules=tuple(Rule)),
                net.link(i),
                "ab",
                (counts or {}).get(i, [np.full((1, cells), 7, np.int64)]),
                sides[i],
                book=Timed(i),
            )
            for i in range(1, parties + 1)
        ]
        meddle(sessions)
        tasks = [asyncio.create_task(session.run()) for session in sessions]
        if during is not None:
            await during(tasks)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        ended_s = loop.time()
        for result in results:
            if isinstance(result, BaseException):
                result.__traceback__ = result.__cause__ = result.__context__ = None
        gc.collect()  # tasks that nobody asked how they ended complain now
        left = asyncio.all_tasks() - {asyncio.current_task()}
        complaints.extend(f"left: {task.get_coro()}" for task in left)
        return Played(list(results), sessions, net, complaints, ended_s, committed)

    with (
        mock.patch("mpc_engine.release.plan.BLOCK_CELLS", 64),
        mock.patch("mpc_engine.release.blocks.CELLS_IN_FLIGHT", 128),
    ):
        played = virtual_time.run(everyone)
    assert not complaints
    return played


# --- in order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("parties", "computing", "sender", "receiver"),
    [(3, 3, 2, 1), (3, 3, 3, 1), (3, 3, 1, 3), (5, 5, 4, 2), (5, 3, 2, 4), (5, 3, 5, 1), (5, 3, 3, 1)],
)
def test_no_count_leaves_before_every_reserve_is_here(
    parties: int, computing: int, sender: int, receiver: int
) -> None:
    played = play(parties, computing, delay=slow((sender, receiver)))
    assert all(isinstance(result, Finished) for result in played.results)
    here: dict[int, float] = {}
    for (_, party, key), when in played.network.arrived.items():
        if key == MessageKey(0, Section.CONTROL, RESERVE):
            here[party] = max(here.get(party, 0.0), when)
    assert here[receiver] == pytest.approx(SLOW_S)
    for party in range(1, parties + 1):
        assert min(played.counts_sent(party)) >= here[party]
    assert min(played.committed.values()) >= SLOW_S, "committed before all had checked all"
    if receiver <= computing:
        mine = [(when, key.section) for when, me, _, key in played.network.sent if me == receiver]
        assert min(when for when, section in mine if section == Section.PREPARE) < SLOW_S


def test_noise_is_prepared_in_all_blocks_that_have_room_and_no_count_follows() -> None:
    played = play(4, 3, delay=slow((4, 1), delay_s=1000.0))
    assert not played.counts_sent(1) and not played.committed
    started = {k.chunk for when, _, _, k in played.network.sent if k.section == Section.PREPARE and when < 1}
    assert started == {0, 1}
    assert "section control, round 1" in str(played.results[0])


# --- peers that do not fit ----------------------------------------------------------------------------


def edited(step: int, sender: int, receiver: int, change: Callable[[bytes], bytes]) -> Any:
    """Return an interceptor that changes one control message."""

    def intercept(one: int, other: int, key: MessageKey, content: bytearray) -> None:
        if (one, other, key) == (sender, receiver, MessageKey(0, Section.CONTROL, step)):
            content[:] = change(bytes(content))

    return intercept


@pytest.mark.parametrize(("bad", "late"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("parties", [3, 5])
def test_a_wrong_key_confirmation_ends_it_at_once(parties: int, bad: int, late: int) -> None:
    def change(content: bytes) -> bytes:
        reserve = Reserve.decode(content)
        return replace(reserve, confirmation=bytes(len(reserve.confirmation))).encode()

    intercept = edited(RESERVE, bad, 1, change)
    played = play(parties, 3, delay=slow((late, 1)), network={"intercept": intercept})
    assert type(played.results[0]) is IntegrityError
    assert "derived different keys" in str(played.results[0])
    assert played.ended_s < SLOW_S, "what is here is checked, whoever else is late"
    assert not played.counts_sent(1) and not played.committed


def test_an_input_only_silo_sends_nothing_on_a_wrong_key_confirmation() -> None:
    def change(content: bytes) -> bytes:
        return replace(Reserve.decode(content), confirmation=bytes(32)).encode()

    played = play(4, 3, network={"intercept": edited(RESERVE, 2, 4, change)})
    assert "derived different keys" in str(played.results[3])
    assert not played.counts_sent(4) and not played.committed


@pytest.mark.parametrize(("told", "late"), [(2, 3), (3, 2)])
@pytest.mark.parametrize("victim", [1, 2, 3])
def test_another_session_is_told_as_such_and_not_by_its_consequences(
    victim: int, told: int, late: int
) -> None:
    """The victim hears another AGREE from one peer, and the other peer's RESERVE late: noise comes first."""
    told, late = [(each - 2 + victim) % 3 + 1 for each in (told, late)]

    def change(content: bytes) -> bytes:
        agree = Agree.decode(content)
        return replace(agree, nonce=bytes(len(agree.nonce))).encode()

    intercept = edited(AGREE, told, victim, change)
    played = play(delay=slow((late, victim)), network={"intercept": intercept})
    reasons = [getattr(result, "cause", "") or result.reason for result in played.results]
    assert not any(isinstance(result, ProtocolOrderError) for result in played.results), played.results
    assert ProtocolOrderError.reason not in reasons
    own = [str(result) for result in played.results if not isinstance(result, PeerAbortedError)]
    assert own and all("see different sessions" in words for words in own)
    assert not played.counts_sent() and not played.committed


@pytest.mark.parametrize("liar", [2, 3])
def test_a_ledger_that_was_rolled_back_ends_it_before_counts(liar: int) -> None:
    late = 5 - liar

    class Seen(Unrecorded):
        def witnessed(self) -> Mapping[int, Head]:
            return {liar: Head(5, b"h" * 32)}

    def meddle(sessions: list[Session]) -> None:
        sessions[0].book = Seen()
        sessions[0].witnessing._book = sessions[0].book
        witnessing: Any = sessions[liar - 1].witnessing
        witnessing.prove = lambda peer, seen: (EMPTY, iter([b""]))

    played = play(delay=slow((late, 1)), meddle=meddle)
    assert type(played.results[0]) is LedgerRollbackError
    assert played.ended_s < SLOW_S
    assert not played.counts_sent(1) and not played.committed


# --- tasks --------------------------------------------------------------------------------------------


def test_counts_that_do_not_fit_leave_nothing_behind() -> None:
    bad = {1: [np.full((1, 300), -1, np.int64)]}
    played = play(delay=slow((2, 1)), counts=bad)
    assert isinstance(played.results[0], DataError)
    assert not played.counts_sent(1)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("party", [1, 4])
def test_a_session_that_is_cancelled_meanwhile_ends_with_all_its_tasks(party: int, times: int) -> None:
    async def during(tasks: list[asyncio.Task[Any]]) -> None:
        await asyncio.sleep(SLOW_S / 2)
        for _ in range(times):
            tasks[party - 1].cancel()
            await asyncio.sleep(0)

    played = play(4, 3, delay=slow((2, 1), (2, 4)), during=during)
    assert isinstance(played.results[party - 1], asyncio.CancelledError)
    assert all(isinstance(result, BaseException) for result in played.results)
    assert played.ended_s < SLOW_S and not played.counts_sent(1) and not played.committed


def test_a_failure_of_its_own_meanwhile_is_told_as_it_is() -> None:
    def meddle(sessions: list[Session]) -> None:
        def progress(section: Section, done: int, of: int) -> None:
            raise EngineError("its own")

        sessions[0].progress = progress

    played = play(4, 3, delay=slow((4, 1)), meddle=meddle)
    assert str(played.results[0]) == "its own"
    assert played.ended_s < SLOW_S


# --- mailbox ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("session", [UNBOUND, b"a" * 16, b"b" * 16])
@pytest.mark.parametrize("unbound", [True, False])
def test_a_message_is_of_the_session_that_is_asked_for(first: bool, session: bytes, unbound: bool) -> None:
    async def scenario() -> bytes:
        box = Mailbox({2: "two"}, round_timeout_s=1, max_ahead_bytes=1000)
        box.bind_session(b"a" * 16)
        key = MessageKey(0, Section.CONTROL, RESERVE)
        if first:
            box.deliver(2, key, session, 2, 0, memoryview(b"hi"))
        waiting = asyncio.create_task(box.take(2, key, 10, exact=False, unbound=unbound))
        await asyncio.sleep(0)
        if not first:
            try:
                box.deliver(2, key, session, 2, 0, memoryview(b"hi"))
            except ProtocolOrderError as error:
                box.fail(error)
        return bytes(await waiting)

    if session == (UNBOUND if unbound else b"a" * 16):
        assert asyncio.run(scenario()) == b"hi"
    else:
        with pytest.raises(ProtocolOrderError, match="another session"):
            asyncio.run(scenario())


@pytest.mark.parametrize(("parties", "computing"), [(3, 3), (5, 5), (9, 9), (5, 3)])
def test_fast_parties_do_not_run_too_far_ahead_of_one_that_still_agrees(parties: int, computing: int) -> None:
    """All AGREE of the last party's peers but one are here: its peers prepare noise before it has begun."""
    most: dict[int, int] = {}
    hold = Mailbox._hold

    def watched(self: Mailbox, sender: int, *args: Any) -> None:
        hold(self, sender, *args)
        most[id(self)] = max(most.get(id(self), 0), self._ahead[sender])

    delays = slow(*((1, each) for each in range(2, parties + 1)), step=AGREE)
    reserve_late = slow((computing, 1))

    def delay(sender: int, receiver: int, key: MessageKey) -> float:
        late = sender == 1 and receiver == 2
        return (delays if late else reserve_late)(sender, receiver, key)

    with mock.patch.object(Mailbox, "_hold", watched):
        played = play(parties, computing, delay=delay)
    assert all(isinstance(result, Finished) for result in played.results), played.results
    committed = played.sessions[0].committed
    assert committed is not None
    allowed = committed.plan.sent_bytes // committed.plan.computing
    assert 0 < max(most.values()) <= allowed + (64 << 10)
