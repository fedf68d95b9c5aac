"""What is known of a scenario that was played: everything that checks and reports are made from.

Times are seconds since the parties were ready, on the stage's clock: virtual time in one process.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import Codebook
from mpc_engine.harness.ledgers import spent_on
from mpc_engine.ledger.rows import SessionRow
from mpc_engine.release.plan import Member
from mpc_engine.runtime.link import MessageKey
from mpc_engine.scenario.document import Ask, Scenario, Stage
from mpc_engine.scenario.faults import Fault
from mpc_engine.statistics.query import Query

Made = TypeVar("Made")


@dataclass(frozen=True)
class Asked:
    """One request and its end. `number` counts the requests of one `ask`, from 0.

    `release` and `receipt` are the documents as published, None where nothing was released.
    """

    ask: Ask
    number: int
    query: Query
    request: str
    state: str
    reason: str
    detail: str
    ticket: str
    began_s: float
    ended_s: float
    release: Mapping[str, Any] | None = field(default=None, repr=False)
    receipt: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def name(self) -> str:
        """The question's name, with the number where it was asked more than once."""
        return (
            f"{self.ask.name} #{self.number + 1}" if self.ask.times * self.ask.together > 1 else self.ask.name
        )


@dataclass(frozen=True)
class Noted:
    """One entry of a party's journal; `fields` are those of its log."""

    at_s: float
    event: str
    fields: Mapping[str, str | int]


@dataclass(frozen=True)
class Usage:
    """What a party's process used, from ready to the end; zero where the stage cannot tell parties apart.

    `sent_bytes` and `received_bytes` are payload of sessions' links: where a party is a process of its own,
    of its last process only.
    """

    cpu_s: float = 0.0
    rss_mib: float = 0.0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(frozen=True)
class Seen:
    """Something a party saw or chose, as raw bytes, in the order in which it did.

    `what` is ``received``, ``sent`` or ``drawn``: what it chose by itself before dealing it. `peer` is the
    other end, 0 for ``drawn``. Numbers are little-endian, as they travel.
    """

    session: bytes
    what: str
    peer: int
    key: MessageKey
    content: bytes = field(repr=False)


@dataclass
class PartyRecord:
    """One party at the end. `spent` is micro-ε over all its sessions; `verified` whether its chain holds.

    `spent` counts what was only measured, too; `Run.spent` does not. `serves` tells whether it was ready in
    the end.
    """

    name: str
    number: int
    computing: bool
    silo: bool
    sessions: tuple[SessionRow, ...] = ()
    spent: int = 0
    verified: bool = False
    serves: bool = False
    journal: tuple[Noted, ...] = ()
    usage: Usage = Usage()
    seen: tuple[Seen, ...] = field(default=(), repr=False)


@dataclass
class Happened:
    """A fault that was injected. None: it never came to that, nobody noticed, or it was never undone.

    `noticed_s` is when another party noted a failure first, with `reason` and by whom; `spent_before` and
    `spent_after` are micro-ε by party, just before and in the end.
    """

    fault: Fault
    began_s: float | None = None
    ended_s: float | None = None
    noticed_s: float | None = None
    reason: str = ""
    by: str = ""
    spent_before: dict[str, int] = field(default_factory=dict)
    spent_after: dict[str, int] = field(default_factory=dict)


@dataclass
class Run:
    """A scenario that was played.

    Attributes:
        registered: folder of each silo's registered records, by name; gone when the run is closed.
        members: the parties as the roster has them.
        took_s: wall time of all of it, on the machine's clock.
        further: what the stage measured beside, by name, such as the parts of `trips`.
        measuring: the requests that the stage made for that, which are no part of the scenario.
        kept: the folder with everything that the parties wrote, until the run is closed.
    """

    scenario: Scenario
    stage: Stage
    seed: int
    codebook: Codebook
    members: tuple[Member, ...]
    registered: Mapping[str, Path]
    asked: list[Asked] = field(default_factory=list)
    parties: dict[str, PartyRecord] = field(default_factory=dict)
    faults: list[Happened] = field(default_factory=list)
    took_s: float = 0.0
    further: dict[str, Any] = field(default_factory=dict)
    measuring: frozenset[str] = frozenset()
    kept: TemporaryDirectory[str] | None = field(default=None, repr=False)
    _sums: dict[str, dict[str, list[NDArray[np.int64]]]] = field(default_factory=dict, repr=False)
    _made: dict[Hashable, Any] = field(default_factory=dict, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete everything that the parties wrote; `sums` and `pooled` know only what they know then."""
        if self.kept is not None:
            self.kept.cleanup()
            self.kept = None

    def once(self, key: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` made for `key`, once for this run: so that all speak of the same draws."""
        if key not in self._made:
            self._made[key] = make()
        made: Made = self._made[key]
        return made

    def of(self, ask: str | None) -> list[Asked]:
        """Return the requests of a question, by default of the first."""
        name = ask or self.scenario.asks[0].name
        return [asked for asked in self.asked if asked.ask.name == name]

    def released(self, ask: str | None) -> Asked:
        """Return the first request of a question that was answered. Raises LookupError if none was."""
        for asked in self.of(ask):
            if asked.release is not None:
                return asked
        raise LookupError(f"no release of {ask or self.scenario.asks[0].name}")

    @cached_property
    def silos(self) -> tuple[str, ...]:
        """Names of the parties that hold records."""
        return tuple(member.name for member in self.members if member.silo)

    def spent(self, party: str) -> int:
        """Return the micro-ε that a party has spent on the scenario, that is not on measuring."""
        found = self.parties[party]
        return found.spent - spent_on(row for row in found.sessions if row.request in self.measuring)

    def sums(self, asked: Asked) -> dict[str, list[NDArray[np.int64]]]:
        """Return each silo's true sums for a question, by name: one vector per tally, in the plan's order.

        A guard's vector holds its records and, where they differ in number, its patients after them; see
        `mpc_engine.harness.answers.Question.split`.

        Counted anew from the registered records, as the silo itself counts.
        """
        # Imported here, for most of the harness needs no table libraries.
        from mpc_engine.silo.register import load_registration
        from mpc_engine.silo.tabulate import tabulate

        digest = asked.query.digest()
        if digest not in self._sums:
            self._sums[digest] = {
                name: [
                    np.asarray(row, np.int64).reshape(-1)
                    for row in tabulate(asked.query, self.codebook, load_registration(folder)).take()
                ]
                for name, folder in self.registered.items()
            }
        return self._sums[digest]

    def pooled(self, asked: Asked) -> list[NDArray[np.int64]]:
        """Return the true sums over all silos."""
        return [sum(rows[1:], rows[0]) for rows in zip(*self.sums(asked).values(), strict=True)]


@dataclass(frozen=True)
class Verdict:
    """Whether one expectation holds: `claim` in words, `found` as it was, each one sentence.

    `kind` is that of the expectation; empty for what is always expected.
    """

    claim: str
    holds: bool
    found: str
    kind: str = ""


Verdicts = Sequence[Verdict]
