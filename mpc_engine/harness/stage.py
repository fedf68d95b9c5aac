"""What a stage is: where a scenario's parties live while it is played.

There are three: `memory` (one process, virtual time), `processes` and `network`. `mpc_engine.harness.play`
makes a stage, runs it in an event loop that the stage chooses, and plays the same scenario on any of them.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Protocol, Self

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.dp.rationals import GREATEST_EPSILON, LEAST_EPSILON
from mpc_engine.harness.record import Happened, PartyRecord
from mpc_engine.identity import Terms
from mpc_engine.party.policy import Policy, PolicyDocument
from mpc_engine.release.plan import Member
from mpc_engine.scenario import document
from mpc_engine.scenario.document import Ask, Scenario
from mpc_engine.scenario.faults import Fault
from mpc_engine.statistics.query import Query

Show = Callable[[str], None]
"""Called with one line about what is going on, for people who wait."""
PROJECT: Final = "scenario"
"""The project that every analyst of a scenario asks for."""
BUDGET: Final = "1000"
"""ε that a silo grants in all where the scenario's policy sets no budget."""


@dataclass(frozen=True)
class Ended:
    """How a request stands: final, or as it was when time was up (`state` UNKNOWN: nobody could be asked).

    `release` and `receipt` are the documents as published, None where nothing was released.
    """

    state: str
    reason: str = ""
    detail: str = ""
    ticket: str = ""
    release: Mapping[str, Any] | None = field(default=None, repr=False)
    receipt: Mapping[str, Any] | None = field(default=None, repr=False)


class Stage(Protocol):
    """A stage; it is entered once, within the event loop of `new_loop`.

    Implementations are made as ``SomeStage(scenario, seed, folder, show)``: everything that they write lies
    in `folder`, which exists, is empty, and stays until the run is closed (`registered` is used after the
    stage has ended). Entering returns when all parties are ready, and leaving ends every process and task,
    however it comes about.

    Attributes:
        name: which of the three it is.
        codebook: the scenario's, once entered; analysts ask with it.
        members: the parties as the roster has them, once entered.
        registered: folder of each silo's registered records, by name, once entered.
        measuring: the requests that the stage has made itself, to measure; none of the scenario's.
    """

    name: document.Stage
    codebook: Codebook
    members: tuple[Member, ...]
    registered: Mapping[str, Path]
    measuring: Collection[str] = ()

    def new_loop(self) -> asyncio.AbstractEventLoop:
        """Return a new event loop of the kind that it needs, by default the usual one."""
        return asyncio.new_event_loop()

    @abstractmethod
    async def __aenter__(self) -> Self:
        """Start all parties and wait until they are ready."""

    @abstractmethod
    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End everything."""

    @abstractmethod
    def now(self) -> float:
        """Return the seconds since all parties were ready, on this stage's clock."""

    @abstractmethod
    async def sleep(self, seconds: float) -> None:
        """Let so many seconds pass on this stage's clock."""

    @abstractmethod
    async def submit(self, ask: Ask, number: int, query: Query) -> str:
        """Hand a question in and return the request's id.

        It is asked by `ask.analyst` at `ask.party` (default: the first silo) under the key
        ``{ask.name}-{number}``; `query` is what is asked, its title included. Raises EngineError: the
        party's own if it refuses to take it. A party that cannot be reached is asked again for `ask.wait_s`.
        """

    @abstractmethod
    async def wait(self, ask: Ask, request: str, wait_s: float) -> Ended:
        """Wait until a request has ended or time is up, and return how it stands.

        A party that cannot be reached is asked again until then; nothing is raised for that.
        """

    @abstractmethod
    def arm(self, fault: Fault, happened: Happened) -> None:
        """Prepare a fault that comes at the failpoint `fault.at`, or an `expire`.

        When it has come the stage fills `began_s` and `spent_before`, and `ended_s` when it has undone it.
        """

    @abstractmethod
    async def strike(self, fault: Fault, happened: Happened) -> None:
        """Have a fault befall the parties now; fills `happened` as `arm`.

        Returns once it has begun. With `for_s` the stage itself undoes it that much later.
        """

    @abstractmethod
    async def mend(self) -> None:
        """Undo what faults have left, start who is down, and wait until all serve and nothing runs.

        Does not raise if a party does not come back in time: its record says that it does not serve. Raises
        what went wrong in faults that came or ended when nobody waited for them.
        """

    @abstractmethod
    async def records(self) -> dict[str, PartyRecord]:
        """Return what is known of every party now, by name; asked once, after `mend`."""

    def further(self) -> dict[str, Any]:
        """Return what was measured beside, for `Run.further`; asked once, after `records`.

        ``meters`` holds by session ticket and party what that party's session took: ``rounds``,
        ``control_rounds``, ``sent_bytes`` (payload), ``cpu_s``. By default there is nothing.
        """
        return {}


def budgeted(scenario: Scenario, party: document.ScenarioParty) -> dict[str, Any]:
    """Return the fields of a party's policy, with `BUDGET` to spend if the document limits nothing."""
    policy = (party.policy or scenario.policy).model_dump(mode="json", exclude_unset=True)
    if policy.get("budget") is None:
        policy["budget"] = {"epsilon": BUDGET}
    return policy


def policy_of(scenario: Scenario, party: document.ScenarioParty) -> Policy:
    """Return a party's policy, with `BUDGET` to spend if the document limits nothing."""
    return parse(budgeted(scenario, party), PolicyDocument, f"the policy of {party.name}").policy()


def terms_under(policies: Iterable[Policy]) -> Terms:
    """Return what an analyst may spend who is enrolled on the same terms by parties with these policies.

    That is the least that one of them grants an analyst, or the most that an enrolment can say: a release
    takes from all of them.
    """
    granted = [each.budget.per_analyst for each in policies if each.budget.per_analyst is not None]
    most = min([*granted, Fraction(GREATEST_EPSILON)])
    # Nobody can be enrolled with nothing; this is less than the least that a ledger counts.
    least = max(most, LEAST_EPSILON)
    return Terms(budget=format(Decimal(least.numerator) / Decimal(least.denominator), "f"))
