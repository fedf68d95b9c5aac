"""Whoever asked sees a request, and nobody else: another analyst is told what is told of an id made up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from mpc_engine.errors import RequestStateError, UnknownRequestError
from mpc_engine.identity import Identity
from mpc_engine.party.messages import Status
from tests.party.household import Household, crosstab, with_policy
from tests.party.test_repetition import BOB, TwoAnalysts, approved

ABOUT_ONE: Mapping[str, Mapping[str, Any]] = {
    "Status": {},
    "Wait": {"timeout_s": 0},
    "Result": {},
    "Withdraw": {},
}
"""Every method that is about one request, with what it takes beside the id."""


async def refused(house: Household, request: str) -> None:
    """See that no party tells the present analyst anything of a request, or changes it."""
    for number in house.parties:
        for method, more in ABOUT_ONE.items():
            told = []
            for each in (request, "0" * 32):
                with pytest.raises(UnknownRequestError) as caught:
                    await house.call(number, method, id=each, **more)
                told.append(str(caught.value))
            assert told[0] == told[1], f"{method} at party{number} tells that there is such a request"


async def listed(house: Household, analyst: Identity, number: int) -> list[str]:
    """Return the requests that an analyst finds listed at a party."""
    house.analyst = analyst
    return [each["id"] for each in (await house.call(number, "List"))["requests"]]


async def stand(house: Household, request: str) -> dict[int, Status]:
    """Return how a request stands at each party, but for where a session just is."""
    found = {number: await house.status(request, number) for number in house.parties}
    return {number: status.model_copy(update={"progress": None}) for number, status in found.items()}


async def all_seen(house: Household, request: str) -> None:
    """Wait until all but party2 have approved a request, as far as all parties know."""
    async with asyncio.timeout(60):
        for number in house.parties:
            while (row := house.ledgers[number].request(request)) is None or not (
                row.state == "PARTIALLY_REVIEWED" and len(house.ledgers[number].decisions(request)) == 2
            ):
                await asyncio.sleep(0.01)


def test_only_the_owner_sees_a_request() -> None:
    async def scenario() -> None:
        async with TwoAnalysts(policies={2: with_policy(approval="manual")}) as house:
            alice = house.analyst
            hers = await house.submit(key="the same key")
            await all_seen(house, hers.id)
            before = await stand(house, hers.id)
            assert {each.state for each in before.values()} == {"PARTIALLY_REVIEWED"}

            house.analyst = BOB
            await refused(house, hers.id)  # open, so that it could be withdrawn
            house.analyst = alice
            assert await stand(house, hers.id) == before
            done = await approved(house, hers)
            assert done.ticket is not None
            await house.settled(done.ticket)
            before = await stand(house, hers.id)
            results = [await house.call(number, "Result", id=hers.id) for number in house.parties]

            house.analyst = BOB
            await refused(house, hers.id)  # released, so that there is a result to fetch
            his = await house.submit(crosstab(by=("stage",)), key="the same key", number=3)
            assert his.id != hers.id
            await all_seen(house, his.id)
            for number in house.parties:
                assert await listed(house, alice, number) == [hers.id]
                assert await listed(house, BOB, number) == [his.id]
            house.analyst = alice
            await refused(house, his.id)
            assert await stand(house, hers.id) == before
            assert [await house.call(number, "Result", id=hers.id) for number in house.parties] == results
            house.analyst = BOB
            assert (await house.status(his.id)).state == "PARTIALLY_REVIEWED"
            with pytest.raises(RequestStateError):  # its owner is told how it stands
                await house.call(1, "Result", id=his.id)
            await house.call(1, "Withdraw", id=his.id)
            await house.until(his.id, "WITHDRAWN")

    asyncio.run(scenario())
