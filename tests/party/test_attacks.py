"""What one dishonest party or a cunning analyst must not bring about.

Each of these has once been possible.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from unittest import mock

from mpc_engine.errors import LedgerWriteError
from mpc_engine.ledger.chain import Head
from mpc_engine.party import failpoints
from mpc_engine.party.lines import Account, Debit, Debits, Recovered, Settled, Told
from mpc_engine.party.publish import COMMIT_PURPOSE
from mpc_engine.party.record import Record
from mpc_engine.statistics.presets import parse_query
from mpc_engine.transport.control import Commit
from tests.party.household import Household, crosstab, with_policy
from tests.party.plots import FAST, eventually, idle, run, state_of, states, ticket_of, write_fails

# --- a cunning analyst --------------------------------------------------------------------------------


def test_approval_of_one_question_is_none_of_another_under_the_same_key() -> None:
    """Party 3 decides about every crosstab by hand; it answers counts at once."""

    async def scenario(house: Household) -> None:
        first = await house.submit(key="seen")
        assert await eventually(lambda: len(house.ledgers[1].decisions(first.id)) == 2)
        await house.parties[3].operator.handle("approve", {"id": first.id, "operator": "bob"})
        await house.until(first.id)
        house.exchange.cut(1, 3)
        count = {"preset": "count", "privacy": crosstab().digest_fields()["privacy"]}
        harmless = await house.submit(parse_query(count), key="twice", number=3)
        wanted = await house.submit(crosstab(), key="twice", number=1)
        assert harmless.id == wanted.id
        house.exchange.heal(1, 3)
        released = await eventually(lambda: state_of(house, wanted.id) == "RELEASED", 4)
        assert not released, "released without party 3's approval of the question"

    by_hand = with_policy(presets={"count": "auto", "crosstab": "manual"})
    run(scenario, policies={3: by_hand})


def test_a_session_that_is_never_computed_costs_an_input_only_silo_nothing() -> None:
    async def scenario(house: Household) -> None:
        def fail(*_: object) -> None:
            raise LedgerWriteError("the computation fails")

        with mock.patch("mpc_engine.release.execute.prepare_range_test", fail):
            status = await house.submit()
            await house.until(status.id, "RETURNED")
        await idle(house)
        assert [house.spent(number) for number in house.parties] == [0] * 5

    run(scenario, silos=(True,) * 5, computing=3)


def test_an_analyst_who_is_revoked_while_a_session_computes_gets_no_release() -> None:
    async def scenario(house: Household) -> None:
        def hook(name: str) -> None:
            if name == "agreed":
                revoked = replace(house.situation(2), analysts={})
                asyncio.get_running_loop().call_soon(house.parties[2].reload, revoked)

        with mock.patch.object(failpoints, "hook", hook):
            status = await house.submit()
            await house.until(status.id, "RETURNED")
            await idle(house)
        (refused,) = house.ledgers[2].sessions_of(status.id)
        assert (refused.state, refused.reason, house.spent(2)) == ("ABORTED", "POLICY_DENIED", 0)
        for number, ledger in house.ledgers.items():
            # The others may have committed by then, and have paid; but nothing was opened.
            (row,) = ledger.sessions_of(status.id)
            assert row.state == "ABORTED" or (number != 2 and row.state == "LOST")
            assert row.pattern_hash is None and ledger.release(row.ticket) is None
            paid = "spent" if row.state == "LOST" else "released"
            assert {state for _, state in ledger.charges(row.ticket).values()} == {paid}
            assert not house.keys[number].tickets()

    run(scenario)


def test_a_revoked_analyst_is_refused_where_anybodys_requests_are_taken() -> None:
    """Another party still takes in what she asks, and passes it on."""

    async def scenario(house: Household) -> None:
        card = house.analyst.card
        revoked = replace(house.situation(2), analysts={}, revoked=frozenset({card.name}))
        house.parties[2].reload(revoked)
        status = await house.until((await house.submit()).id, "REJECTED")
        assert "party2 revoked a card of" in status.parties["party2"].reason
        assert not any(ledger.sessions() for ledger in house.ledgers.values())
        house.parties[2].reload(replace(revoked, revoked=frozenset()))
        await house.until((await house.submit(key="again")).id)

    run(scenario, policies={2: with_policy(analysts="any")})


async def answered_late(house: Household) -> str:
    """Return a request whose answer is stored everywhere, and of which party 3 has not heard yet."""
    first = await house.until((await house.submit()).id)
    await house.settled(first.ticket or "")
    house.exchange.cut(1, 3)
    second = await house.submit(key="two")
    assert await eventually(lambda: len(house.ledgers[2].decisions(second.id)) == 2)
    return second.id


def test_a_request_ends_where_its_analyst_was_revoked_after_it_was_approved() -> None:
    async def scenario(house: Household) -> None:
        request = await answered_late(house)
        revoked = replace(house.situation(2), analysts={}, revoked=frozenset({house.analyst.name}))
        house.parties[2].reload(revoked)
        house.exchange.heal(1, 3)
        await house.until(request)
        assert await eventually(lambda: state_of(house, request, 2) == "REJECTED")

    run(scenario)


def test_who_withdraws_as_a_stored_release_is_served_comes_too_late() -> None:
    async def scenario(house: Household) -> None:
        request = await answered_late(house)
        house.parties[2].desk._withdrawn.add(request)  # the word of it is still on its way
        house.exchange.heal(1, 3)
        await house.until(request)
        assert await eventually(lambda: state_of(house, request, 2) == "RELEASED")

    run(scenario)


# --- one dishonest party ------------------------------------------------------------------------------


def test_a_greeting_cannot_stop_a_party_for_good() -> None:
    async def scenario(house: Household) -> None:
        greeting = b'{"kind":"hello","id":0,"body":{"received":9223372036854775807,"first":1}}'
        assert house.parties[3].post._switchboard.say(1, greeting)
        await asyncio.sleep(0.2)
        await house.submit()
        assert house.ledgers[1].line("party3").sent < 2**40

    run(scenario)


def test_the_sequencer_cannot_have_a_release_served_that_a_party_has_not_approved() -> None:
    async def scenario(house: Household) -> None:
        first = await house.submit(key="one")
        assert await eventually(lambda: len(house.ledgers[1].decisions(first.id)) == 2)
        await house.parties[3].operator.handle("approve", {"id": first.id, "operator": "bob"})
        ticket = (await house.until(first.id)).ticket
        await house.until(first.id, number=3)
        other = await house.submit(crosstab(by=("stage",)), key="two")
        assert await eventually(lambda: house.ledgers[3].request(other.id) is not None)
        sequencer = house.parties[1]
        with sequencer.post.transaction() as tx:
            sequencer.post.post(
                tx,
                3,
                Settled(request=other.id, digest=digest_of(house, other.id), state="RELEASED", ticket=ticket),
            )
        await asyncio.sleep(0.2)
        assert "party3" not in house.ledgers[3].decisions(other.id)
        assert (await house.status(other.id, 3)).state != "RELEASED"

    run(scenario, policies={3: with_policy(approval="manual")})


def test_nobody_gives_up_a_session_whose_receipt_another_party_holds() -> None:
    async def scenario(house: Household) -> None:
        liar = house.parties[3]
        with write_fails(house.ledgers[2], "signed") as failing:
            status = await house.submit()
            assert await eventually(lambda: house.ledgers[1].released_for(question(house, status.id)))
            ticket = ticket_of(house, status.id)

            def lie(sender: int, ask: Any) -> None:
                signer = house.identities[2].signing
                liar.post.say(sender, Told.make(ask.ticket, "party3", "UNKNOWN", signer))

            liar.post._live["ask"] = lie
            await asyncio.sleep(0.5)
            failing[0] = False
            await eventually(lambda: states(house, ticket)[2] in ("LOST", "SIGNED", "RELEASED"), 4)
        assert states(house, ticket)[1] in ("SIGNED", "RELEASED")
        assert states(house, ticket)[2] != "LOST"

    run(scenario)


def digest_of(house: Household, request: str) -> str:
    row = house.ledgers[1].request(request)
    assert row is not None
    return row.digest


def question(house: Household, request: str) -> str:
    row = house.ledgers[1].request(request)
    return "" if row is None or row.question is None else row.question


def test_a_rolled_back_ledger_is_not_accepted_for_a_word() -> None:
    async def scenario(house: Household) -> None:
        backup = house.ledgers[2].image()
        first = await house.until((await house.submit()).id)
        await house.settled(first.ticket or "")
        await house.kill(2)
        party = await house.revive(2, backup)
        assert await eventually(lambda: house.parties[1].notices.known() and party.notices.known())
        head = house.ledgers[2].head()
        for peer in (1, 3):
            party.post.say(peer, Recovered(entries=head.seq, hash=head.hash.hex(), tickets="0" * 64))
        status = await house.submit(crosstab(by=("stage",)), key="two")
        await eventually(lambda: state_of(house, status.id) in ("RELEASED", "RETURNED"), 6)
        assert state_of(house, status.id) != "RELEASED"

    run(scenario)


def test_a_commitment_cannot_move_the_witnessed_head_to_another_chain() -> None:
    async def scenario(house: Household) -> None:
        real = Record.commit

        def commit(self: Record, committed: Any) -> Head:
            head = real(self, committed)
            if self._ledger is house.ledgers[2]:
                return Head(head.seq + 5, b"f" * 32)  # of a chain that this party has made up
            return head

        with mock.patch.object(Record, "commit", commit):
            status = await house.submit()
            await eventually(lambda: state_of(house, status.id) in ("RELEASED", "RETURNED"))
        seen = house.ledgers[1].witnessed("party2")
        assert seen is not None and seen.hash != b"f" * 32

    run(scenario)


def test_a_peer_cannot_invent_debits() -> None:
    async def scenario(house: Household) -> None:
        liar = house.parties[3]
        account = Account(
            ticket="a" * 32,
            request="b" * 32,
            digest="d" * 64,
            question="c" * 64,
            micro_epsilon=10**15,
            delta="0",
            analyst="",
            analyst_name="nobody",
            project="wilms",
        )
        unsigned = Commit(bytes(32), 2, Head(9, b"h" * 32), bytes(64), account.encode())
        content = unsigned.signed_content(b"s" * 16, "e" * 64)
        forged = replace(unsigned, signature=house.identities[2].signing.sign(COMMIT_PURPOSE, content))
        debit = Debit(
            ticket=account.ticket,
            commit=forged.encode().hex(),
            plan="e" * 64,
            session_id=(b"s" * 16).hex(),
            released=False,
        )

        def lie(sender: int, ask: Any) -> None:
            liar.post.say(sender, Debits(after=ask.after, debits=() if ask.after else (debit,), more=False))

        liar.post._live["ask-debits"] = lie
        await house.parties[2].operator.handle("recover", {})
        assert house.spent(2) == 0

    run(scenario)


def test_a_peer_cannot_talk_a_debit_down() -> None:
    async def scenario(house: Household) -> None:
        backup = house.ledgers[3].image()
        done = await house.until((await house.submit()).id)
        await house.settled(done.ticket or "")
        await house.kill(3)
        party = await house.revive(3, backup)
        liar = house.parties[1]
        assert await eventually(lambda: party.notices.known() and liar.notices.known())
        row = house.ledgers[1].session(done.ticket or "")
        assert row is not None
        debit = talked_down(liar.recovery._debit(row, "party3"))

        def lie(sender: int, ask: Any) -> None:
            liar.post.say(sender, Debits(after=ask.after, debits=() if ask.after else (debit,), more=False))

        liar.post._live["ask-debits"] = lie
        answer = await party.operator.handle("recover", {})
        assert sorted(answer["peers"]) == ["party1", "party2"]
        assert house.spent(3) == house.spent(2) == 10**6

    run(scenario)


def talked_down(debit: Debit | None) -> Debit:
    """Return a debit as if it had cost nothing."""
    assert debit is not None
    commit = Commit.decode(bytes.fromhex(debit.commit))
    account = Account.decode(commit.account).model_copy(update={"micro_epsilon": 0, "delta": "0"})
    return debit.model_copy(update={"commit": replace(commit, account=account.encode()).encode().hex()})


def test_tries_to_publish_are_not_made_one_upon_the_other() -> None:
    async def scenario(house: Household) -> None:
        with write_fails(house.ledgers[2], "pattern") as failing:
            await house.submit()
            assert await eventually(lambda: house.ledgers[2].sessions("COMMITTED"))
            await asyncio.sleep(1.0)
            fields = [each for _, event, each in house.journal if event == "session.phase"]
            failing[0] = False
        tries = sum(each["phase"] == "connect" for each in fields)
        assert tries <= 3 * (1 + 1.0 / FAST.pause_s), f"{tries} links within a second"

    run(scenario)
