"""Faults in whole sessions: any one of them ends the session at every party, and nothing is released."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mpc_engine.errors import EngineError, IntegrityError, PeerAbortedError, PublicationError
from mpc_engine.field.binary import BinaryField
from mpc_engine.field.mersenne import COUNTS as FIELD
from mpc_engine.party.publish import Finished
from mpc_engine.protocols import multiplication, signs
from mpc_engine.protocols.noise import circuit_for
from mpc_engine.protocols.signs import roles
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.memory import MemoryNetwork
from mpc_engine.sharing.shamir import dealing, opening_weights
from tests import world
from tests.world import TABLE, Outcome, release

COUNTS = np.array([0, 3, 50, 700, 12, 2, 90, 0, 31] * 7)  # 63 cells, some suppressed and some not
FLIPS = MessageKey(0, Section.PREPARE, len(circuit_for(TABLE).levels))
VALUES = MessageKey(0, Section.VALUES, 0)
PATTERN = MessageKey(0, Section.PATTERN, 0)
COMMIT, PATTERN_HASH = (MessageKey(0, Section.CONTROL, step) for step in (2, 3))

Spoil = Callable[[bytearray], None]


def bit(place: int) -> Spoil:
    def change(content: bytearray) -> None:
        content[place] ^= 1

    return change


def every_cell(content: bytearray) -> None:
    """Change every element by one: whatever the noise, some cell's zero becomes something else."""
    content[:] = (np.frombuffer(bytes(content), "<u4") ^ 1).astype("<u4").tobytes()


def whole(content: bytearray) -> None:
    content[:] = np.random.default_rng(1).integers(0, FIELD.p, len(content) // 4, dtype="<u4").tobytes()


def outside_the_field(content: bytearray) -> None:
    content[:4] = FIELD.p.to_bytes(4, "little")


def session(
    n: int, key: MessageKey, sender: int, receivers: set[int], spoil: Spoil, silos: int = 2
) -> Outcome:
    """Run a session in which one party's message arrives changed at some receivers."""
    changed = []

    def intercept(source: int, receiver: int, at: MessageKey, content: bytearray) -> None:
        if source == sender and receiver in receivers and at == key:
            before = bytes(content)
            spoil(content)
            changed.append(before != bytes(content))

    outside = max(0, silos - n)
    counts = [COUNTS if i < silos else None for i in range(n + outside)]
    outcome = release(counts, n, network={"intercept": intercept})
    assert changed and all(changed), "the fault was never planted"
    return outcome


def assert_stopped(outcome: Outcome, what: str = "") -> None:
    """No party holds a release; someone found the fault, and the others were told so."""
    assert not [r for r in outcome.results if isinstance(r, Finished)]
    # After the commit the budget counts as spent, and the error that a party raises says so.
    causes = [r.__cause__ if isinstance(r, PublicationError) else r for r in outcome.results]
    found = [r for r in causes if isinstance(r, IntegrityError)]
    assert any(what in str(r) for r in found), causes
    for result in causes:
        assert isinstance(result, IntegrityError | PeerAbortedError), result
        if isinstance(result, PeerAbortedError):
            assert any(error.reason in str(result) for error in found)
    assert all(
        isinstance(r, PublicationError) == (s.committed is not None)
        for r, s in zip(outcome.results, outcome.sessions, strict=True)
    )


def assert_nothing_opened(outcome: Outcome) -> None:
    """No party has committed at every other, so neither the pattern nor a value was opened."""
    sections = {m.key.section for m in outcome.network.transcript}
    assert sections <= {Section.CONTROL, Section.PREPARE, Section.INPUT, Section.TEST}
    assert not outcome.computed or len(outcome.computed) < outcome.sessions[0].proposal.computing


def test_without_a_fault_there_is_a_release() -> None:
    assert len(release([COUNTS, COUNTS, None]).releases) == 3


@pytest.mark.parametrize("n", [3, 5, 7, 9])
def test_any_one_wrong_share_of_a_masked_coin(n: int) -> None:
    """Every sender, at one receiver or all; at the first bit or in the padding of the last plane."""
    for sender in range(1, n + 1):
        others = set(range(1, n + 1)) - {sender}
        for receivers, place in ((others, 0), ({min(others)}, -1)) if n < 7 else ((others, sender),):
            outcome = session(n, FLIPS, sender, receivers, bit(place))
            assert_stopped(outcome)
            assert_nothing_opened(outcome)


@pytest.mark.parametrize(
    ("n", "spoil"),
    [(3, bit(-4)), (3, whole), (3, outside_the_field), (3, bit(0)), (5, bit(0)), (7, bit(0)), (9, bit(0))],
    ids=["last", "all", "range", "3", "5", "7", "9"],
)
def test_any_one_wrong_share_of_a_value(n: int, spoil: Spoil) -> None:
    """At all receivers, or at one only: then the others could read every value, and must not."""
    for sender in range(1, n + 1):
        others = set(range(1, n + 1)) - {sender}
        for receivers in (others, {max(others)}) if n < 7 else ({max(others)},):
            assert_stopped(session(n, VALUES, sender, receivers, spoil))


@pytest.mark.parametrize("sender", [1, 2, 3])
def test_a_wrong_share_of_a_value_at_an_input_only_silo(sender: int) -> None:
    assert_stopped(session(3, VALUES, sender, {4}, bit(0), silos=5))


@pytest.mark.parametrize("sender", [1, 2, 3])
@pytest.mark.parametrize("receivers", [{1, 2, 3}, {1}, {2}, {3}], ids=str)
def test_a_wrong_share_of_the_pattern(sender: int, receivers: set[int]) -> None:
    """No redundancy at degree 2t; but not all parties can see the same pattern, and they compare."""
    if receivers == {sender}:
        receivers = {sender % 3 + 1}
    outcome = session(3, PATTERN, sender, receivers, every_cell)
    assert_stopped(outcome, "pattern")
    assert Section.VALUES not in {m.key.section for m in outcome.network.transcript}


@pytest.mark.parametrize("key", [COMMIT, PATTERN_HASH], ids=["commit", "pattern"])
@pytest.mark.parametrize("sender", [1, 2, 3])
def test_a_changed_hash(key: MessageKey, sender: int) -> None:
    for receiver in {1, 2, 3} - {sender}:
        outcome = session(3, key, sender, {receiver}, bit(-1))
        assert_stopped(outcome)


@pytest.mark.parametrize("n", [3, 5, 7, 9])
@pytest.mark.parametrize("value", [0, 2, 7, FIELD.p - 2])
def test_a_dealer_that_deals_no_sign(monkeypatch: pytest.MonkeyPatch, n: int, value: int) -> None:
    """One zero in the sign erases a cell's noise. The dealer follows the protocol in all else."""
    true_deal = signs.deal
    for dealer in roles(n, 0).dealers:

        async def deal(ctx: Any, field: Any, dealers: Any, rows: int, mine: Any, who: int = dealer) -> Any:
            if ctx.me == who:
                mine = mine.copy()
                mine[rows - 1, 5] = value
            return await true_deal(ctx, field, dealers, rows, mine)

        monkeypatch.setattr(signs, "deal", deal)
        outcome = release([COUNTS, COUNTS, *[None] * (n - 2)], n)
        assert_stopped(outcome, "not a sign")
        assert_nothing_opened(outcome)


@pytest.mark.parametrize("n", [3, 5, 7])
def test_a_dealing_that_is_no_sharing(n: int) -> None:
    """One share of a dealt sign is wrong: no longer a polynomial of degree t."""
    for dealer in roles(n, 0).dealers:
        for receiver in set(dealing(FIELD, n, dealer).computed) - {dealer}:
            outcome = session(n, MessageKey(0, Section.PREPARE, 0), dealer, {receiver}, bit(-4))
            assert_stopped(outcome)
            assert_nothing_opened(outcome)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize("place", [-4, -8, -12, -16])
def test_a_wrong_share_in_the_check_itself(n: int, place: int) -> None:
    """Its two openings, each done twice, end the message of their round."""
    for sender in range(1, n + 1):
        for receivers in (set(range(1, n + 1)) - {sender}, {sender % n + 1}):
            outcome = session(n, MessageKey(0, Section.PREPARE, 2), sender, receivers, bit(place))
            assert_stopped(outcome)
            assert_nothing_opened(outcome)


@pytest.mark.parametrize("n", [3, 5, 7, 9])
def test_a_party_that_makes_a_coin_no_bit(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    """It adds x to its last product and deals that properly: the degree is right, the coin is not."""
    true_outgoing = multiplication.outgoing
    last = f"level{len(circuit_for(TABLE).levels) - 1}"
    for cheat in (1, n):

        def outgoing(ctx: Any, field: Any, value: Any, scale: int = 1, who: int = cheat) -> Any:
            if ctx.me == who and isinstance(field, BinaryField) and ctx.path.endswith(last):
                x = field.scalars.multiply(
                    0b10, field.scalars.inverse(opening_weights(field, ctx.parties)[who - 1])
                )
                ones = np.full((1, *value.shape[1:]), 1, np.uint64)  # the first cell of every word
                value = field.combine([1, x], [value, ones])
            return true_outgoing(ctx, field, value, scale)

        monkeypatch.setattr(multiplication, "outgoing", outgoing)
        outcome = release([COUNTS, COUNTS, *[None] * (n - 2)], n)
        assert_stopped(outcome, "must be a bit")
        assert_nothing_opened(outcome)


@pytest.mark.parametrize(
    "section", [Section.PREPARE, Section.INPUT, Section.TEST, Section.PATTERN, Section.VALUES]
)
def test_a_message_cut_short(section: Section) -> None:
    def cut(content: bytearray) -> None:
        del content[-1:]

    outcome = session(3, MessageKey(0, section, 0), 2, {1, 3}, cut)
    assert not [r for r in outcome.results if isinstance(r, Finished)]
    assert all(isinstance(r, EngineError) for r in outcome.results)
    assert "bytes" in str(outcome.results)


@pytest.mark.parametrize("section", [Section.CONTROL, Section.TEST, Section.PATTERN, Section.VALUES])
def test_a_party_that_vanishes(monkeypatch: pytest.MonkeyPatch, section: Section) -> None:
    """Whoever still lacks something when a party is gone ends without a release."""

    def intercept(source: int, receiver: int, key: MessageKey, content: bytearray) -> None:
        if key.section == section and source == 2:
            networks[-1].kill(2)

    networks: list[MemoryNetwork] = []

    class Watched(MemoryNetwork):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            networks.append(self)

    monkeypatch.setattr(world, "MemoryNetwork", Watched)
    outcome = release([COUNTS, COUNTS, None], network={"intercept": intercept})
    assert not [r for r in outcome.results if isinstance(r, Finished)]
    assert all(isinstance(r, EngineError) for r in outcome.results)
