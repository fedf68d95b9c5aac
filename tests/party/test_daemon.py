"""Parties as services: from a request to the release and its receipt."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from mpc_engine.errors import (
    BudgetError,
    IdempotencyError,
    PolicyError,
    PresetError,
    RequestStateError,
    UnknownRequestError,
)
from mpc_engine.party.receipt import check_receipt
from tests.party.household import Household, crosstab, with_policy

Scenario = Callable[[Household], Awaitable[None]]


def run(scenario: Scenario, **options: object) -> None:
    async def within() -> None:
        async with Household(**options) as house:  # type: ignore[arg-type]
            await scenario(house)

    asyncio.run(within())


@pytest.mark.parametrize(
    ("silos", "computing"),
    [((True, True, False), 3), ((True, True, True, True, True), 3), ((True,) * 5, 5)],
)
def test_a_request_becomes_a_release_with_a_receipt(silos: tuple[bool, ...], computing: int) -> None:
    async def scenario(house: Household) -> None:
        status = await house.submit(number=len(silos))
        done = await house.until(status.id, number=len(silos))
        assert done.ticket is not None
        await house.settled(done.ticket)
        results = [await house.call(number, "Result", id=status.id) for number in house.parties]
        assert all(result == results[0] for result in results)
        cards = {each.name: (each.card,) for each in house.identities}
        findings = check_receipt(results[0]["receipt"], results[0]["release"], cards)
        assert all(finding.ok for finding in findings), findings
        assert len(findings) == 1 + 2 * len(silos) + 1
        assert all(house.spent(number) == 10**6 for number in house.parties)
        assert not any(keys.tickets() for keys in house.keys.values())

    run(scenario, silos=silos, computing=computing)


def test_the_same_question_again_costs_nothing() -> None:
    async def scenario(house: Household) -> None:
        first = await house.until((await house.submit(key="one")).id)
        again = await house.submit(key="one", number=2)
        assert again.id == first.id
        second = await house.until((await house.submit(key="two", number=3)).id, number=3)
        assert second.id != first.id and second.ticket == first.ticket
        assert await house.call(3, "Result", id=second.id) == await house.call(1, "Result", id=first.id)
        assert [house.spent(number) for number in (1, 2, 3)] == [10**6] * 3
        with pytest.raises(IdempotencyError):
            await house.submit(crosstab(by=("stage",)), key="one")

    run(scenario)


def test_other_records_are_another_question() -> None:
    async def scenario(house: Household) -> None:
        first = await house.until((await house.submit(key="one")).id)
        house.counters[2].id = "f" * 32
        house.parties[2].notices.spread()
        second = await house.until((await house.submit(key="two")).id)
        assert second.ticket != first.ticket
        assert [house.spent(number) for number in (1, 2, 3)] == [2 * 10**6] * 3

    run(scenario)


def test_a_burst_is_served_up_to_the_budget() -> None:
    async def scenario(house: Household) -> None:
        requests = [
            await house.submit(crosstab(title=f"question {i}"), key=f"k{i}", number=1 + i % 3)
            for i in range(12)
        ]
        states = []
        for i, request in enumerate(requests):
            number = 1 + i % 3
            async with asyncio.timeout(60):
                while not (status := await house.status(request.id, number)).final:
                    await asyncio.sleep(0.02)
            states.append((status.state, status.reason))
        assert states.count(("RELEASED", "")) == 4
        assert states.count(("RETURNED", BudgetError.reason)) == 8
        assert [house.spent(number) for number in (1, 2)] == [4 * 10**6] * 2

    budget = {"epsilon": "4", "delta": "0.1", "per_analyst": "100", "other_projects": "100"}
    run(scenario, policy=with_policy(budget=budget), most_sessions=8)


def test_an_operator_decides_where_the_policy_says_so() -> None:
    async def scenario(house: Household) -> None:
        status = await house.submit()
        await asyncio.sleep(0.1)
        waiting = await house.status(status.id)
        assert waiting.state == "PARTIALLY_REVIEWED"
        assert waiting.waiting_for == ("party2 to decide",)
        operator = house.parties[2].operator
        listed = (await operator.handle("list", {}))["requests"]
        assert [each["waits"] for each in listed] == [True]
        shown = await operator.handle("show", {"id": status.id[:8]})
        assert any("What would be opened" in text for _, text in shown["lines"])
        await operator.handle("approve", {"id": status.id, "operator": "bob"})
        await house.until(status.id)
        other = await house.submit(crosstab(by=("stage",)), key="k2")
        await asyncio.sleep(0.1)
        await operator.handle("reject", {"id": other.id, "operator": "bob", "reason": "not this year"})
        ended = await house.until(other.id, "REJECTED")
        assert "not this year" in ended.detail and ended.reason == "REQUEST_DECLINED"
        with pytest.raises(RequestStateError):
            await operator.handle("approve", {"id": other.id, "operator": "bob"})
        budget = await operator.handle("budget", {})
        assert [row["decided"] for row in budget["rows"]] == ["bob"]

    run(scenario, policies={2: with_policy(approval="manual")})


def test_a_policy_refuses_before_anything_is_stored() -> None:
    async def scenario(house: Household) -> None:
        with pytest.raises(PresetError):
            await house.submit()
        assert house.ledgers[1].requests() == []

    run(scenario, policies={1: with_policy(presets={"count": "auto"})})


def test_another_partys_policy_refuses() -> None:
    async def scenario(house: Household) -> None:
        ended = await house.until((await house.submit(crosstab("2"))).id, "REJECTED")
        assert ended.reason == PolicyError.reason and "party3" in ended.detail
        assert [house.spent(number) for number in (1, 2, 3)] == [0] * 3

    run(scenario, policies={3: {"greatest_epsilon": "1", "least_threshold": 5}})


def test_a_request_can_be_withdrawn_until_it_is_released() -> None:
    async def scenario(house: Household) -> None:
        status = await house.submit()
        await house.call(1, "Withdraw", id=status.id)
        for number in (1, 2, 3):
            await house.until(status.id, "WITHDRAWN", number)
        released = await house.until((await house.submit(key="k2")).id)
        with pytest.raises(RequestStateError):
            await house.call(1, "Withdraw", id=released.id)
        assert [house.spent(number) for number in (1, 2, 3)] == [10**6] * 3

    run(scenario, policies={2: with_policy(approval="auto")})


def test_counting_that_fails_ends_the_session_and_says_nothing_about_records() -> None:
    async def scenario(house: Household) -> None:
        def fail() -> None:
            raise ValueError("patient 4711 has no sex")

        house.counters[2].fail = fail
        status = await house.submit()
        ended = await house.until(status.id, "RETURNED")
        assert ended.reason == "LOCAL_COMPUTE_FAILED"
        everything = repr(house.journal) + ended.detail
        for ledger in house.ledgers.values():
            everything += repr(list(ledger.entries()))
        assert "4711" not in everything
        assert [house.spent(number) for number in (1, 2, 3)] == [0] * 3
        house.counters[2].fail = lambda: None
        await house.until((await house.submit(key="k2")).id)

    run(scenario)


def test_an_analyst_asks_for_requests_parties_policies_and_costs() -> None:
    async def scenario(house: Household) -> None:
        status = await house.submit()
        with pytest.raises(UnknownRequestError):
            await house.call(1, "Status", id="0" * 32)
        listed = await house.call(1, "List")
        assert [each["id"] for each in listed["requests"]] == [status.id]
        parties = await house.call(2, "Parties")
        assert [each["name"] for each in parties["parties"]] == ["party1", "party2", "party3"]
        policy = await house.call(2, "Policy", party="party1")
        assert policy["policy"]["party"] == "party1"
        cost = await house.call(
            1,
            "Cost",
            query=crosstab().digest_fields(),
            codebook=house.situation(1).codebook.digest(),
            project="wilms",
        )
        assert cost["cost"]["micro_epsilon"] == 10**6
        assert set(cost["verdicts"]) == set(cost["remaining"]) == {"party1", "party2", "party3"}

    run(scenario)
