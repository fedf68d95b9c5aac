"""What analysts' programs may send: ten methods' worth of nonsense, whatever the parties are doing."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import pytest

from mpc_engine.documents import canonical
from mpc_engine.harness import virtual_time
from mpc_engine.party.submission import make_submission
from mpc_engine.transport.analyst_methods import METHODS
from tests.party.household import CODEBOOK, Household, crosstab
from tests.robustness.hostile import Mutator
from tests.robustness.ordeal import Ordeal, manual_at

CALLS = 1_600
"""For each seed."""


class Writer:
    """Writes the messages of an analyst's program, spoiled."""

    def __init__(self, ordeal: Ordeal, mutator: Mutator) -> None:
        self.ordeal, self.mutator, self.rng = ordeal, mutator, ordeal.rng
        house = ordeal.house
        # Signing costs more than what it is tried on: a few requests do for all.
        self._submissions = [
            make_submission(
                crosstab("0.1", by=by, title=f"fuzz {i}"),
                CODEBOOK.digest(),
                "wilms",
                f"fuzz {min(i, 2)}",
                house.analyst,
                clock=house.clock,
            ).model_dump(by_alias=True)
            for i, by in enumerate((("sex",), ("stage",), ("sex", "stage"), ("stage", "sex")))
        ]

    def fields(self, method: str) -> dict[str, Any]:
        """Return a valid message."""
        match method:
            case "Submit":
                return dict(self.rng.choice(self._submissions))
            case "Status" | "Withdraw" | "Result":
                return {"id": self.ordeal.request()}
            case "Wait":
                return {"id": self.ordeal.request(), "timeout_s": self.rng.choice((0, 1, 60)), "seen": ""}
            case "Cost":
                asked = self.rng.choice(self._submissions)
                return {key: asked[key] for key in ("query", "codebook", "project")}
            case "Policy":
                return {"party": f"party{self.rng.randrange(1, 5)}"}
        return {}

    def message(self, method: str) -> bytes:
        """Return a message for a method, or rarely one that was meant for another."""
        meant = method if self.rng.random() < 0.95 else self.rng.choice(tuple(METHODS))
        fields = self.fields(meant)
        return canonical(fields) if self.rng.random() < 0.35 else self.mutator.document(fields)


@pytest.mark.parametrize("seed", [4101, 4102])
def test_nonsense_from_an_analyst(seed: int) -> None:
    print(f"seed {seed}")
    by_method: Counter[str] = Counter()

    async def main() -> None:
        async with Household(policies=manual_at(2)) as house:
            ordeal = Ordeal(house, random.Random(seed))
            writer = Writer(ordeal, Mutator(seed))
            certificate = house.analyst.card.certificate_fingerprint
            calls: list[asyncio.Task[Any]] = []
            for step in range(CALLS):
                if step % 20 == 0:
                    await ordeal.live()
                method = ordeal.rng.choice(tuple(METHODS))
                by_method[method] += 1
                caller = certificate if ordeal.rng.random() < 0.97 else str(writer.mutator.value())
                answers = house.parties[ordeal.rng.choice((1, 2, 3))].answers
                call = ordeal.attempt(answers.answer(caller, method, writer.message(method)))
                calls.append(asyncio.create_task(call))
                if ordeal.rng.random() < 0.3:
                    await asyncio.sleep(ordeal.rng.choice((0, 0, 0.01)))
            await asyncio.gather(*calls)
            await ordeal.serves_a_fresh_query()
            ordeal.is_sound(quiet=False)
            await _while_stopping(ordeal, writer, certificate)
            print(dict(ordeal.seen), dict(by_method))
            assert {"OK", "DOCUMENT", "UNKNOWN_REQUEST", "REQUEST_STATE", "CERT_UNKNOWN"} <= set(ordeal.seen)

    virtual_time.run(main, random.Random(seed).shuffle)


async def _while_stopping(ordeal: Ordeal, writer: Writer, certificate: str) -> None:
    """Go on while one party stops with a session under way, and afterwards; then start it again."""
    house = ordeal.house
    status = await house.submit(crosstab("0.1", title="cut off"), "cut off")
    await ordeal.approved(status.id)
    party = house.parties[3]
    stopping = asyncio.create_task(party.stop(1.0))
    for _ in range(200):
        method = ordeal.rng.choice(tuple(METHODS))
        if method != "Wait":
            answers = house.parties[ordeal.rng.choice((1, 2, 3))].answers
            await ordeal.attempt(answers.answer(certificate, method, writer.message(method)))
        await asyncio.sleep(0)
    await stopping
    await house.revive(3, house.ledgers[3].image())
    await ordeal.connected()
    await ordeal.serves_a_fresh_query("after the restart")
    await house.until(status.id)
    await asyncio.sleep(120)
    ordeal.is_sound()
