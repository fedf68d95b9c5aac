"""F26: fifty questions at once, at both desks, against a budget for ten."""

from __future__ import annotations

import tempfile
from pathlib import Path

from mpc_engine.client.request import Request
from mpc_engine.scenario.trial import NAMES
from tests.faults.parties import CHARGE, Parties
from tests.party.services import until

QUESTIONS, AFFORDED = 50, 10


def released(parties: Parties) -> dict[str, int]:
    """Return how many sessions have spent budget at each party."""
    found = {}
    for name in NAMES:
        ledger = parties.ledger(name)
        rows = [row for row in ledger.sessions() if row.state not in ("ABORTED", "RESERVED", "COMPUTING")]
        assert all(row.charge.micro_epsilon == CHARGE for row in rows)
        found[name] = len(rows)
        ledger.close()
    return found


def test_fifty_questions_against_a_budget_for_ten() -> None:
    with tempfile.TemporaryDirectory() as folder:
        parties = Parties(Path(folder), epsilon='"1"', most_sessions="8")
        try:
            parties.start()
            parties.wait_ready()
            most = 0
            with parties.client() as north, parties.client("south") as south:
                asked = [parties.ask_new((north, south)[i % 2]) for i in range(QUESTIONS)]
                open_: list[Request] = list(asked)
                ends: list[tuple[str, str]] = []
                while open_:
                    status = parties.finished(open_.pop(0))
                    ends.append((status.state, status.reason))
                    most = max(most, *released(parties).values())
                # Whoever was refused asks again: the budget is used up to its last unit and not further.
                for _ in range(3):
                    parties.end_of(parties.ask_new(north), "RETURNED", "BUDGET_EXCEEDED")
            assert ends.count(("RELEASED", "")) == AFFORDED
            assert ends.count(("RETURNED", "BUDGET_EXCEEDED")) == QUESTIONS - AFFORDED
            parties.quiet()
            assert most == AFFORDED and released(parties) == dict.fromkeys(NAMES, AFFORDED)
            # A greater budget is taken on while it runs, and the party serves on.
            for name in NAMES:
                path = parties.trial.config(name)
                path.write_text(path.read_text().replace('\nepsilon = "1"', '\nepsilon = "2"'))
            assert parties.stop() == [0, 0, 0]
            parties.start()
            until(lambda: all(parties.status(name).get("ready") for name in NAMES), "all to be ready")
            parties.holds()
        finally:
            parties.kill()
