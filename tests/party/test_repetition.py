"""The same question again: what operators and analysts are told of its cost, before and after."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from mpc_engine.identity import Analyst, Terms, throwaway_identity
from mpc_engine.ledger.rows import SessionState
from mpc_engine.party.messages import CostAnswer, Status
from mpc_engine.party.repetition import earlier_of
from mpc_engine.party.situation import Situation
from mpc_engine.statistics.query import Query
from tests.party.household import CODEBOOK, Household, crosstab, with_policy

BOB = throwaway_identity("bob", role="analyst")


class TwoAnalysts(Household):
    """A household that knows bob too."""

    def situation(self, number: int) -> Situation:
        """Return a party's documents."""
        here = super().situation(number)
        bob = Analyst("bob", (BOB.card,), self.terms)
        return replace(here, analysts={**here.analysts, BOB.card.fingerprint: bob})


def play(scenario: Callable[[Household], Awaitable[None]]) -> None:
    """Play with parties of which party2 has its operator approve everything."""

    async def within() -> None:
        async with TwoAnalysts(policies={2: with_policy(approval="manual")}) as house:
            await scenario(house)

    asyncio.run(within())


async def seen(house: Household, status: Status, number: int = 2) -> None:
    """Wait until a request has come to a party."""
    async with asyncio.timeout(60):
        while house.ledgers[number].request(status.id) is None:
            await asyncio.sleep(0.01)


async def shown(house: Household, status: Status) -> str:
    """Return what party2's operator is shown of a request."""
    await seen(house, status)
    answer = await house.parties[2].operator.handle("show", {"id": status.id})
    return "\n".join(text for _, text in answer["lines"])


async def approved(house: Household, status: Status) -> Status:
    """Have party2 approve a request, and return its last status."""
    await seen(house, status)
    await house.parties[2].operator.handle("approve", {"id": status.id, "operator": "op"})
    for number in (2, 3):
        await house.until(status.id, number=number)
    return await house.until(status.id)


async def cost(house: Household, query: Query) -> CostAnswer:
    """Return what party1 says of a question's cost."""
    fields: dict[str, Any] = {"query": query.digest_fields(), "codebook": CODEBOOK.digest()}
    return CostAnswer.model_validate(await house.call(1, "Cost", **fields, project="wilms"), strict=False)


def test_everybody_is_told_that_the_same_question_is_served_at_no_cost() -> None:
    async def scenario(house: Household) -> None:
        assert (await cost(house, crosstab())).served_from is None
        one = await house.submit(key="one")
        assert "ε = 100 of 100 is left, 99 afterwards" in await shown(house, one)
        first = await approved(house, one)
        assert first.served_from is None and first.cost.micro_epsilon == 10**6
        before = (await cost(house, crosstab())).served_from
        assert before is not None and before.ticket == first.ticket

        two = await house.submit(key="two")
        assert two.served_from == before and two.cost.micro_epsilon == 10**6
        said = await shown(house, two)
        assert f"Answered already: it would be served from {before.words}" in said
        assert "at no cost" in said and "afterwards" not in said and "average" not in said
        second = await approved(house, two)
        assert second.served_from == before and second.cost.micro_epsilon == 0
        assert (await house.status(one.id)).served_from is None
        assert [house.spent(number) for number in (1, 2, 3)] == [10**6] * 3
        listed = (await house.parties[2].operator.handle("list", {"all": True}))["requests"]
        assert [each["served_from"] for each in listed] == ["", before.words]
        assert before.words.startswith(f"the release of {before.ticket[:8]} on 20")
        assert f"Nothing: it was served from {before.words}." in await shown(house, two)
        assert "debited when it was answered" in await shown(house, one)

    play(scenario)


def test_an_average_is_warned_of_once_and_only_where_there_are_two_answers() -> None:
    async def scenario(house: Household) -> None:
        operator = house.parties[2].operator
        declined = await house.submit(crosstab("2"), key="declined")
        await seen(house, declined)
        await operator.handle("reject", {"id": declined.id, "operator": "op", "reason": "no"})
        await house.until(declined.id, "REJECTED")
        assert "nothing more: the request has ended." in (await shown(house, declined)).lower()
        one = await house.submit(key="one")
        assert "average" not in await shown(house, one)  # the other was rejected
        await approved(house, one)
        await approved(house, await house.submit(key="two"))
        other = await house.submit(crosstab("3"), key="other")
        said = await shown(house, other)
        assert said.count("An average of both answers") == 1 and f"Request {one.id[:8]}" in said
        # Still open, it may be answered; so whoever decides about the next is warned of it too.
        third = await house.submit(crosstab("4"), key="third")
        assert f"Request {other.id[:8]}" in await shown(house, third)

        house.counters[1].id = "f" * 32
        house.parties[1].notices.spread()
        async with asyncio.timeout(60):
            while house.parties[2].notices.known()[1]["party1"] != "f" * 32:  # type: ignore[index]
                await asyncio.sleep(0.01)
        assert (await cost(house, crosstab())).served_from is None
        again = await house.submit(key="again")
        said = await shown(house, again)
        assert again.served_from is None and "afterwards" in said
        assert f"Request {one.id[:8]}" in said and "An average of both answers" in said

    play(scenario)


def test_what_another_analyst_was_answered_nobody_is_told_before_all_have_approved() -> None:
    async def scenario(house: Household) -> None:
        await approved(house, await house.submit(key="one"))
        house.analyst = BOB
        assert (await cost(house, crosstab())).served_from is None
        status = await house.submit(key="bob's")
        assert status.served_from is None and status.cost.micro_epsilon == 10**6
        assert "Answered already" in await shown(house, status)
        served = await approved(house, status)
        assert served.served_from is not None and served.cost.micro_epsilon == 0
        assert served.served_from.released is None  # when it was made for alice bob is not told
        assert "an earlier release" in served.served_from.words
        again = (await cost(house, crosstab())).served_from
        assert again is not None and again.ticket == served.served_from.ticket
        assert again.released == served.times["RELEASED"]
        assert (await house.submit(key="once more")).served_from == again

    play(scenario)


def test_of_two_open_requests_the_other_is_told_that_it_will_be_served() -> None:
    async def scenario(house: Household) -> None:
        one, two = await house.submit(key="one"), await house.submit(key="two")
        done = await approved(house, one)
        told = (await house.status(two.id)).served_from
        assert told is not None and told.released == done.times["RELEASED"]

    play(scenario)


def test_a_request_that_has_ended_costs_what_was_debited() -> None:
    async def scenario(house: Household) -> None:
        declined = await house.submit(key="declined")
        assert declined.cost.micro_epsilon == 10**6
        await seen(house, declined)
        await house.parties[2].operator.handle(
            "reject", {"id": declined.id, "operator": "op", "reason": "no"}
        )
        assert (await house.until(declined.id, "REJECTED")).cost.micro_epsilon == 0
        taken = await house.submit(crosstab("2"), key="taken back")
        await house.call(1, "Withdraw", id=taken.id)
        assert (await house.status(taken.id)).cost.micro_epsilon == 0
        # A party that cannot publish what it has debited gives the request back, and the debit stays.
        lost = await approved(house, await house.submit(crosstab("3"), key="lost"))
        answers, ledger = house.parties[1].answers, house.ledgers[1]
        row, sessions = ledger.request(lost.id), ledger.sessions_of(lost.id)
        assert row is not None
        returned = replace(row, state="RETURNED", ticket=None)
        ends: dict[SessionState, int] = {"LOST": 3, "ADOPTED": 3, "ABORTED": 0, "COMPUTING": 0}
        for state, spent in ends.items():
            attempts = [replace(each, state=state) for each in sessions]
            assert answers._charge(returned, attempts).micro_epsilon == spent * 10**6

    play(scenario)


def test_the_own_verdict_counts_the_project_among_all_others() -> None:
    budget = {"epsilon": "100", "delta": "0.1", "per_analyst": "100", "other_projects": "1"}

    async def scenario() -> None:
        async with Household(policies={1: with_policy(budget=budget)}) as house:
            await house.until((await house.submit(key="one")).id)
            told = await cost(house, crosstab(by=("stage",)))
            project = told.remaining["party1"].project
            assert project is not None and project.micro_epsilon == 0
            assert "not enough budget is left (project: ε = 0" in told.verdicts["party1"]
            ended = await house.until((await house.submit(crosstab(by=("stage",)), key="two")).id, "RETURNED")
            assert "project" in ended.detail

    asyncio.run(scenario())


def test_who_is_not_enrolled_elsewhere_is_told_so_beforehand() -> None:
    async def scenario(house: Household) -> None:
        said = (await cost(house, crosstab())).verdicts
        assert said["party1"] == "would be approved automatically"
        assert said["party2"].startswith("needs an operator if it has enrolled you for this")
        house.parties[2].reload(replace(house.situation(2), analysts={}))
        async with asyncio.timeout(60):
            while (said := (await cost(house, crosstab())).verdicts)["party2"].startswith("needs"):
                await asyncio.sleep(0.01)
        assert said["party2"] == "would be refused: it has not enrolled you"
        assert said["party3"].startswith("would be approved automatically if no enrolment there limits you")
        ended = await house.until((await house.submit()).id, "REJECTED")
        assert "party2" in ended.detail and "enrolled" in ended.detail

    play(scenario)


def test_a_namesake_elsewhere_is_not_taken_for_the_analyst() -> None:
    other = throwaway_identity("alice", role="analyst")

    class Namesake(Household):
        def situation(self, number: int) -> Situation:
            here = super().situation(number)
            enrolled = {other.card.fingerprint: Analyst("alice", (other.card,), Terms(budget="7"))}
            return replace(here, analysts=enrolled) if number == 2 else here

    async def scenario() -> None:
        async with Namesake() as house:
            told = await cost(house, crosstab())
            assert told.remaining["party2"].analyst is None
            assert told.verdicts["party2"].startswith(
                "would be approved automatically if it has enrolled you"
            )
            await house.until((await house.submit()).id, "REJECTED")

    asyncio.run(scenario())


NARROWER = [{"variable": "sex", "in": ["female"]}]


def test_an_operator_is_told_of_another_analysts_question_that_differs_by_one_condition() -> None:
    async def scenario(house: Household) -> None:
        first = await approved(house, await house.submit(key="one"))
        house.analyst = BOB
        said = await shown(house, await house.submit(crosstab(where=NARROWER), key="bob's"))
        assert f"Request {first.id[:8]} by alice of 20" in said and "Possible differencing" in said
        # Once bob has had the very answer himself, it is his own request that is named.
        second = await approved(house, await house.submit(key="the same"))
        assert second.served_from is not None
        said = await shown(house, await house.submit(crosstab("2", where=NARROWER), key="bob's again"))
        assert f"Request {second.id[:8]} of 20" in said and first.id[:8] not in said

    play(scenario)


def test_a_namesake_is_told_apart_and_new_keys_are_the_same_analyst() -> None:
    async def scenario(house: Household) -> None:
        first = await approved(house, await house.submit(key="one"))
        row = house.ledgers[2].request(first.id)
        assert row is not None
        later = replace(row, id="0" * 32, analyst="sha256:" + "9" * 64, received="9999", ticket=None)
        (other,) = earlier_of(house.ledgers[2], [], later, None)
        assert other.by == f"alice ({row.analyst[-8:]})"
        (own,) = earlier_of(house.ledgers[2], [row.analyst], later, None)
        assert (own.by, own.id) == ("", first.id)

    play(scenario)
