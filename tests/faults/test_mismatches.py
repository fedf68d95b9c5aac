"""F20 in one process: the parties differ in one thing only. Nothing is shared or spent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.errors import (
    MISMATCHES,
    CodebookMismatchError,
    EngineMismatchError,
    LayoutMismatchError,
    MismatchError,
    PrivacyMismatchError,
    QueryMismatchError,
    RosterMismatchError,
    SnapshotMismatchError,
)
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.situation import Situation
from mpc_engine.party.source import source_digest
from tests.faults.test_rounds import FAST
from tests.faults.universal import house_holds
from tests.party.household import CODEBOOK, POLICY, Household, crosstab


@contextmanager
def digest_differs(field: str) -> Iterator[None]:
    """Let party 2 hold another digest of one of the things that all must hold alike."""
    real = Situation.proposal

    def proposal(self: Situation, *args: Any) -> Proposal:
        made = real(self, *args)
        return replace(made, digests={**made.digests, field: 64 * "0"}) if self.number == 2 else made

    with mock.patch.object(Situation, "proposal", proposal):
        yield


@contextmanager
def another_field() -> Iterator[None]:
    """Let party 2 compare one thing more than its peers, as a later engine might."""
    with digest_differs("later"):
        yield


@contextmanager
def another_source() -> Iterator[None]:
    """Let party 2 run another source of the engine."""
    real = Situation.credentials

    def credentials(self: Situation, snapshot_id: str) -> Any:
        made = real(self, snapshot_id)
        return replace(made, source=bytes(32)) if self.number == 2 else made

    with mock.patch.object(Situation, "credentials", credentials):
        yield


async def ends_with(house: Household, reason: str, key: str) -> None:
    """Ask a question, which must be returned for this reason before anything is spent."""
    before = {number: house.spent(number) for number in house.parties}
    ended = await house.until((await house.submit(crosstab("0.5", title=key), key)).id, "RETURNED")
    assert ended.reason == reason, f"{ended.reason}: {ended.detail}"
    assert {number: house.spent(number) for number in house.parties} == before


FAULTS: dict[type[MismatchError], Callable[[], AbstractContextManager[None]]] = {
    RosterMismatchError: lambda: digest_differs("roster"),
    CodebookMismatchError: lambda: digest_differs("codebook"),
    QueryMismatchError: lambda: digest_differs("query"),
    PrivacyMismatchError: lambda: digest_differs("privacy"),
    LayoutMismatchError: lambda: digest_differs("layout"),
    EngineMismatchError: another_source,
    MismatchError: another_field,
}


@pytest.mark.parametrize("failure", FAULTS, ids=lambda failure: failure.reason)
def test_one_thing_differs_at_one_party(failure: type[MismatchError]) -> None:
    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            with FAULTS[failure]():
                await ends_with(house, failure.reason, "differs")
            await house_holds(house)

    asyncio.run(scenario())


def test_another_source_that_all_others_accept_is_no_difference() -> None:
    accepting = {**POLICY, "engines": [bytes(32).hex()]}

    async def scenario() -> None:
        with another_source():
            async with Household(deadlines=FAST, policies={1: accepting, 3: accepting}) as house:
                # Party 2 runs another source than its own file says, and so must accept that of the others.
                own = source_digest().hex()
                situation = house.parties[2].situation()
                policy = replace(situation.policy, engines=(own,))
                house.parties[2].reload(replace(situation, policy=policy))
                await house.until((await house.submit()).id)
            async with Household(deadlines=FAST, policies={1: accepting}) as house:
                await ends_with(house, EngineMismatchError.reason, "one accepts")

    asyncio.run(scenario())


def test_every_field_that_is_compared_is_here() -> None:
    assert set(MISMATCHES.values()) | {MismatchError} == {*FAULTS, SnapshotMismatchError}


def test_another_codebook_at_one_party() -> None:
    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            fields = CODEBOOK.model_dump(mode="json")
            other = parse({**fields, "version": "2"}, Codebook, "codebook")
            situation = house.parties[2].situation()
            house.parties[2].reload(replace(situation, codebook=other))
            ended = await refused(house)
            assert ended == CodebookMismatchError.reason
            assert [house.spent(number) for number in house.parties] == [0] * 3
            house.parties[2].reload(situation)
            await house_holds(house)

    asyncio.run(scenario())


async def refused(house: Household) -> str:
    """Ask a question that some party refuses, and return the reason."""
    status = await house.submit()
    async with asyncio.timeout(30):
        while not (ended := await house.status(status.id)).final:
            await asyncio.sleep(0.01)
    assert ended.state in ("RETURNED", "REJECTED")
    return ended.reason


def test_records_change_between_the_beginning_and_the_agreement() -> None:
    """Each time; what changes once is asked again about the records as they are then."""

    async def scenario() -> None:
        async with Household(deadlines=FAST) as house:
            counts = 0

            def change() -> None:
                nonlocal counts
                counts += 1
                house.counters[2].id = f"{counts + 100:032x}"

            house.counters[2].fail = change
            await ends_with(house, SnapshotMismatchError.reason, "changing")
            house.counters[2].fail = lambda: None
            house.parties[2].notices.spread()
            await house_holds(house)

    asyncio.run(scenario())
