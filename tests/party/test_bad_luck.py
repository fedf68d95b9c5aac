"""What bad luck alone must not bring about: each of these has once been possible."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any
from unittest import mock

from mpc_engine.documents import parse
from mpc_engine.errors import DataError, LedgerWriteError
from mpc_engine.identity import throwaway_identity
from mpc_engine.ledger.transaction import Transaction
from mpc_engine.party import failpoints
from mpc_engine.party.lines import Begin
from tests.party.household import CODEBOOK, Household
from tests.party.plots import eventually, idle, run, state_of, states, ticket_of, write_fails


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
        assert await eventually(lambda: set(states(house, ticket).values()) == {"RELEASED"}), states(
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
                lambda: not any(ledger.sessions("RESERVED", "COMPUTING") for ledger in house.ledgers.values())
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


def test_a_release_can_be_fetched_before_the_last_party_has_stored_it() -> None:
    async def scenario(house: Household) -> None:
        with write_fails(house.ledgers[2], "signed") as failing:
            status = await house.submit()
            assert await eventually(lambda: state_of(house, status.id) == "RELEASED")
            ticket = ticket_of(house, status.id)
            fetched = await house.call(1, "Result", id=status.id)
            assert states(house, ticket)[2] == "OPENED" and fetched["receipt"]["signatures"]
            assert all(ticket in house.keys[number].tickets() for number in (1, 2, 3))
            failing[0] = False
            for party in house.parties.values():
                party._spawn(party._tick())  # one with a short period
            assert await eventually(lambda: set(states(house, ticket).values()) == {"RELEASED"})
        assert await house.call(1, "Result", id=status.id) == fetched
        assert await eventually(lambda: not any(keys.tickets() for keys in house.keys.values()))

    with mock.patch("mpc_engine.party.daemon.TICK_S", 0.2):
        run(scenario)
