"""The universal check itself: what it lets pass, and what it refuses, in ledgers that were led there."""

from __future__ import annotations

import pytest

from mpc_engine.ledger.charge import Charge
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.reading import Reading
from tests.faults.universal import check_universal, has_opened
from tests.ledger.books import HASH, STEPS, TICKET, WAY, memory, reserve, submit

ABORTED = (*WAY[:2], "ABORTED")
RELEASED = WAY
UNSEEN = (*WAY[:3], "LOST")
"""Lost before anything was opened."""
PATTERN = (*WAY[:4], "LOST")
OPENED = (*WAY[:5], "LOST")


def led(*way: str, charge: Charge | None = None) -> Ledger:
    """Return a ledger whose one session has gone a way."""
    ledger = memory()
    with ledger.transaction() as tx:
        submit(tx)
    for step in way:
        with ledger.transaction() as tx:
            if step == "RESERVED" and charge is not None:
                reserve(tx, charge=charge)
            else:
                STEPS[step](tx)
    return ledger


def check(*ledgers: Ledger) -> None:
    """Check ledgers of as many parties."""
    named: dict[str, Reading] = {str(number): ledger for number, ledger in enumerate(ledgers, start=1)}
    check_universal(named, [], len(ledgers))


@pytest.mark.parametrize(
    "ways",
    [
        (RELEASED, RELEASED, RELEASED),
        (ABORTED, ABORTED, ()),
        (UNSEEN, ABORTED, UNSEEN),
        (UNSEEN, (), ABORTED),
        (PATTERN, UNSEEN, OPENED),
        (PATTERN, ("ADOPTED",), UNSEEN),
    ],
)
def test_what_may_be_left_of_a_session(ways: tuple[tuple[str, ...], ...]) -> None:
    check(*(led(*way) for way in ways))


@pytest.mark.parametrize("opened", [PATTERN, OPENED, RELEASED])
@pytest.mark.parametrize("unpaid", [ABORTED, ()])
def test_nobody_has_opened_what_another_has_not_paid(
    opened: tuple[str, ...], unpaid: tuple[str, ...]
) -> None:
    """Also where who opened it has given the session up: what was seen is not unseen by that."""
    first, second = led(*opened), led(*unpaid)
    row = first.session(TICKET)
    assert row is not None and row.pattern_hash == HASH and has_opened(row)
    for each in (first, second):
        check(each)  # there is nothing wrong with either by itself
    for ledgers in ((first, second, led(*opened)), (second, first, led(*UNSEEN))):
        with pytest.raises(AssertionError, match="ABORTED" if unpaid else opened[-1]):
            check(*ledgers)


def test_nobody_has_paid_less_than_another_for_what_was_opened() -> None:
    with pytest.raises(AssertionError):
        check(led(*PATTERN), led(*UNSEEN, charge=Charge(999_999, 2**36)))


@pytest.mark.parametrize("state", ["RESERVED", "COMPUTING", "COMMITTED", "PATTERN", "OPENED", "SIGNED"])
def test_nothing_is_left_half_done(state: str) -> None:
    with pytest.raises(AssertionError, match=state):
        check(led(*WAY[: WAY.index(state) + 1]), led(*RELEASED))
