"""What one dishonest party, a cunning analyst or bad luck must not bring about.

Each of these has once been possible.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

from mpc_engine.documents import parse
from mpc_engine.errors import DataError, LedgerWriteError
from mpc_engine.identity import throwaway_identity
from mpc_engine.ledger.chain import Head
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party import failpoints
from mpc_engine.party.lines import Account, Begin, Debit, Debits, Recovered, Settled, Told
from mpc_engine.party.publish import COMMIT_PURPOSE
from mpc_engine.party.record import Record
from mpc_engine.party.situation import Deadlines
from mpc_engine.statistics.presets import parse_query
from mpc_engine.transport.control import Commit
from tests.party.household import CODEBOOK, Household, crosstab, with_policy

FAST = Deadlines(connect_s=0.6, round_s=0.6, session_s=6, pause_s=0.1)
Scenario = Callable[[Household], Awaitable[None]]


def run(scenario: Scenario, **options: Any) -> None:
    async def within() -> None:
        async with asyncio.timeout(25), Household(**{"deadlines": FAST, **options}) as house:
            await scenario(house)

    asyncio.run(within())


async def eventually(holds: Callable[[], object], within_s: float = 4.0) -> bool:
    """Tell whether something comes to hold in time."""
    for _ in range(int(within_s / 0.02)):
        if holds():
            return True
        await asyncio.sleep(0.02)
    return bool(holds())


@contextmanager
def write_fails(ledger: Ledger, method: str) -> Iterator[list[bool]]:
    """Let a change of a record fail at one party as on a full disk, while the first of the list is True."""
    failing = [True]
    real = getattr(Record, method)

    def change(self: Record, *args: Any) -> Any:
        if self._ledger is ledger and failing[0]:
            raise LedgerWriteError("no space")
        return real(self, *args)

    with mock.patch.object(Record, method, change):
        yield failing


def states(house: Household, ticket: str) -> dict[int, str]:
    rows = {number: house.ledgers[number].session(ticket) for number in house.parties}
    return {number: "" if row is None else row.state for number, row in rows.items()}


def state_of(house: Household, request: str, number: int = 1) -> str:
    row = house.ledgers[number].request(request)
    return "" if row is None else row.state


def ticket_of(house: Household, request: str, number: int = 1) -> str:
    row = house.ledgers[number].request(request)
    assert row is not None and row.ticket is not None
    return row.ticket


async def idle(house: Household) -> None:
    assert await eventually(lambda: not any(party.runner.running for party in house.parties.values()))


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
        released = await eventually(lambda: state_of(house, wanted.id) == "RELEASED")
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
            await eventually(lambda: state_of(house, status.id) in ("RELEASED", "RETURNED"))
        assert state_of(house, status.id) != "RELEASED"

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
            await eventually(lambda: states(house, ticket)[2] in ("LOST", "SIGNED", "RELEASED"))
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


# --- bad luck -----------------------------------------------------------------------------------------


def test_a_failure_to_count_at_the_sequencer_says_nothing_about_records() -> None:
    async def scenario(house: Household) -> None:
        def fail() -> None:
            raise DataError("rows.csv, line 12: patient 4711 has no sex")

        house.counters[1].fail = fail
        ended = await house.until((await house.submit()).id, "RETURNED")
        everything = repr(house.journal) + ended.detail
        for ledger in house.ledgers.values():
            everything += repr(list(ledger.entries()))
        assert "4711" not in everything

    run(scenario)


def test_a_party_with_new_keys_publishes_what_it_committed_with_the_old_ones() -> None:
    async def scenario(house: Household) -> None:
        with write_fails(house.ledgers[2], "pattern"):
            status = await house.submit()
            assert await eventually(lambda: house.ledgers[2].sessions("COMMITTED"))
            ticket = ticket_of(house, status.id)
            disk = await house.kill(2)
        old = house.identities[1]
        new = throwaway_identity(old.name, address=old.card.address)
        house.identities[1] = replace(old, signing=new.signing, card=new.card, former=(old.signing,))
        cards = list(house.directory.cards)
        cards[1] = (_successor(new.card, old.card.origin_fingerprint), *cards[1])
        house.directory = replace(house.directory, cards=tuple(cards))
        for number, party in house.parties.items():
            party.reload(house.situation(number))
        await house.revive(2, disk)
        assert await eventually(lambda: set(states(house, ticket).values()) == {"RELEASED"}, 5), states(
            house, ticket
        )

    run(scenario)


def _successor(card: Any, origin: str) -> Any:
    """Return a card as that of a party with an earlier card (unendorsed: nothing here looks at that)."""
    return card.model_copy(update={"origin": origin})


def test_an_upgrade_changes_nothing_of_what_was_committed() -> None:
    async def scenario(house: Household) -> None:
        with write_fails(house.ledgers[2], "opened") as failing:
            status = await house.submit()
            assert await eventually(lambda: house.ledgers[1].sessions("OPENED"))
            with mock.patch("mpc_engine.party.publish.__version__", "99.0", create=True):
                failing[0] = False
                await house.settled(ticket_of(house, status.id))

    run(scenario)


def test_a_full_disk_holds_no_budget_once_there_is_space() -> None:
    async def scenario(house: Household) -> None:
        real, full = Transaction.abort, [True]

        def abort(self: Transaction, *args: Any) -> None:
            if full[0]:
                raise LedgerWriteError("no space")
            real(self, *args)

        house.counters[2].fail = lambda: (_ for _ in ()).throw(ValueError())
        with (
            mock.patch.object(Transaction, "abort", abort),
            mock.patch("mpc_engine.party.daemon.TICK_S", 0.2),
        ):
            status = await house.submit()
            assert await eventually(lambda: house.ledgers[1].sessions("RESERVED", "COMPUTING"))
            await idle(house)
            full[0] = False
            for party in house.parties.values():
                party._spawn(party._tick())  # one with a short period
            assert await eventually(
                lambda: (
                    not any(ledger.sessions("RESERVED", "COMPUTING") for ledger in house.ledgers.values())
                ),
                2.0,
            ), f"{status.id} still holds budget"

    run(scenario)


def test_a_session_that_is_withdrawn_as_it_begins_ends() -> None:
    async def scenario(house: Household) -> None:
        house.exchange.cut(1, 3)
        status = await house.submit()
        house.exchange.heal(1, 3)
        party = house.parties[1]
        begin = party.runner.begin

        def begin_and_fail(message: Begin) -> None:
            begin(message)
            party.desk.withdraw(status.id)

        party.runner.begin = begin_and_fail  # type: ignore[assignment, method-assign]
        assert await eventually(lambda: house.ledgers[1].sessions())
        await asyncio.sleep(1.0)
        assert not house.ledgers[1].sessions("RESERVED", "COMPUTING")
        assert not party.runner.running

    run(scenario)


def test_a_backup_taken_between_commit_and_release_can_be_recovered() -> None:
    async def scenario(house: Household) -> None:
        image: list[bytes] = []

        def hook(name: str) -> None:
            committed = house.ledgers[2].sessions("PATTERN")
            if name == "after_pattern" and committed and not image:
                image.append(house.ledgers[2].image())

        with mock.patch.object(failpoints, "hook", hook):
            done = await house.until((await house.submit()).id)
            await house.settled(done.ticket or "")
        await house.kill(2)
        party = await house.revive(2, image[0])
        asked: list[object] = []
        live = house.parties[1].post._live
        answer = live["ask"]

        def count(sender: int, ask: Any) -> None:
            asked.append(ask)
            answer(sender, ask)

        live["ask"] = count
        assert await eventually(lambda: party.notices.known())
        await asyncio.sleep(1.0)
        await party.operator.handle("recover", {})
        assert len(asked) < 20, f"asked {len(asked)} times within a second"
        assert await eventually(lambda: house.ledgers[2].release(done.ticket or "") is not None)

    run(scenario)


def test_a_disk_that_fails_in_the_commit_costs_no_key() -> None:
    async def scenario(house: Household) -> None:
        real = Transaction.commit

        def commit(self: Transaction, *args: Any) -> Any:
            if self._store is house.ledgers[2]._store:
                self._store.broken = True  # as after EIO: whether the commit is durable is open
                raise LedgerWriteError("the disk failed")
            return real(self, *args)

        with mock.patch.object(Transaction, "commit", commit):
            await house.submit()
            assert await eventually(lambda: house.ledgers[2].broken)
            await eventually(lambda: not house.parties[2].runner.running)
            kept = house.keys[2].tickets()
        house.ledgers[2]._store.broken = False
        assert kept, "the key is gone, and with it the release of all parties"

    run(scenario)


def test_requests_made_with_a_former_codebook_are_still_listed() -> None:
    async def scenario(house: Household) -> None:
        status = await house.until((await house.submit()).id)
        newer = parse(CODEBOOK.model_dump(mode="json") | {"version": "2"}, type(CODEBOOK), "codebook")
        house.parties[1].reload(replace(house.situation(1), codebook=newer))
        listed = await house.call(1, "List")
        assert [each["id"] for each in listed["requests"]] == [status.id]

    run(scenario)
