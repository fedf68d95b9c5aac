"""What the others are told of a session that one party does not begin, or that ends before it has a link."""

from __future__ import annotations

import asyncio
from unittest import mock

import pytest

from mpc_engine.errors import DataError, EngineError, LocalComputeError
from mpc_engine.party.declining import public
from mpc_engine.party.lines import Declined
from mpc_engine.party.post import Post
from tests.party.household import Household

CANARY = "canary-record-4711"


@pytest.mark.parametrize("failing", [1, 2])
def test_a_count_that_fails_is_told_once_and_in_plain_words(failing: int) -> None:
    told: list[Declined] = []
    say = Post.say

    def listen(post: Post, peer: int, message: object) -> bool:
        if isinstance(message, Declined):
            told.append(message)
        return say(post, peer, message)  # type: ignore[arg-type]

    async def scenario() -> None:
        async with Household() as house:

            def fail() -> None:
                raise DataError(f"{CANARY} is no code")

            house.counters[failing].fail = fail
            with mock.patch.object(Post, "say", listen):
                ended = await house.until((await house.submit()).id, "RETURNED")
            name = house.identities[failing - 1].name
            assert ended.detail == f"{name} cannot count: see its own log"
            assert {each.detail for each in told} == {ended.detail}
            # To the sequencer, from there to all, and back from those whom that has ended.
            assert 2 <= len(told) <= 4
            assert CANARY not in repr(told)
            phases = [each["phase"] for _, event, each in house.journal if event == "session.phase"]
            assert phases[0] == "count"

    asyncio.run(scenario())


def test_words_about_own_files_stay_at_home_and_name_who_has_them() -> None:
    told = public("us", DataError(f"{CANARY} is no code"))
    assert isinstance(told, LocalComputeError) and str(told) == "us: see its own log"
    other = EngineError("the line broke")
    assert public("us", other) is other
