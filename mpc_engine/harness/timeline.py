"""Where the time of a session goes, from the parties' journals: from AGREE to the last value opened.

The clock of a session starts when the last party has sent its AGREE, for until then some are not connected,
and stops when the last party has opened its last value. In between, a party that has what it waits for goes
on at once, so that the times of all are one chain of trips and computing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mpc_engine.harness.record import Noted, Run
from mpc_engine.release.blocks import CELLS_IN_FLIGHT
from mpc_engine.release.plan import Plan
from mpc_engine.runtime.link import Section

CONTROL_TRIPS: Final = 3
"""One-way trips apart from the protocols': AGREE, COMMIT, and the comparison of the patterns.

RESERVE travels together with the first message of the noise.
"""

_MARKS: Final[Mapping[tuple[str, str], str]] = {
    ("session.reserved", ""): "reserved",
    ("session.phase", "agree"): "agree",
    ("session.phase", "compute"): "agreed",
    ("session.section", "prepare"): "prepared",
    ("session.section", "input"): "shared",
    ("session.section", "test"): "tested",
    ("session.committed", ""): "committed",
    ("session.phase", "open"): "opening",
    ("session.section", "pattern"): "pattern",
    ("session.section", "values"): "values",
    ("session.released", ""): "released",
}
_PER_BLOCK: Final = "session.section"
"""Noted for each block, so that the last one counts; of all else the first one does."""


@dataclass(frozen=True)
class Phase:
    """A part of a session: it lasts from the mark before it to its own, `ends`.

    `sections` are those whose rounds it holds, `control` how many trips of control messages. What it takes
    without delay grows with the cells if `grows`.
    """

    name: str
    ends: str
    sections: tuple[Section, ...] = ()
    control: int = 0
    grows: bool = False

    def trips(self, plan: Plan) -> int:
        """Return its one-way trips, one after the other."""
        return self.control + waves(plan.cells) * sum(plan.costs[section].rounds for section in self.sections)


PHASES: Final = (
    Phase("agreement", "agreed", control=1),
    Phase("preparing noise", "prepared", (Section.PREPARE,), grows=True),
    Phase("sharing counts", "shared", (Section.INPUT,), grows=True),
    Phase("small-cell test", "tested", (Section.TEST,), grows=True),
    Phase("writing the commitment", "committed"),
    Phase("exchanging commitments", "opening", control=1),
    Phase("opening the pattern", "pattern", (Section.PATTERN,), grows=True),
    Phase("opening values", "values", (Section.VALUES,), control=1, grows=True),
)
"""The parts of a session from AGREE to the last value, in order."""


@dataclass(frozen=True)
class Timeline:
    """When the parties of one session passed its marks, in seconds, by party and mark."""

    ticket: str
    marks: Mapping[str, Mapping[str, float]]

    def last(self, mark: str) -> float:
        """Return when the last party passed a mark. Raises LookupError if any has not."""
        try:
            return max(marks[mark] for marks in self.marks.values())
        except (KeyError, ValueError):
            raise LookupError(f"not every party noted `{mark}` of the session {self.ticket[:8]}") from None

    @property
    def complete(self) -> bool:
        """Whether all parties got from AGREE to the last value."""
        return bool(self.marks) and all({"agree", "values"} <= marks.keys() for marks in self.marks.values())

    @property
    def seconds(self) -> float:
        """From the last AGREE that was sent to the last value opened. Raises LookupError."""
        return self.last("values") - self.last("agree")

    def phases(self) -> dict[str, float]:
        """Return what each phase took, in seconds; a phase that did not occur is left out."""
        found: dict[str, float] = {}
        before = self.last("agree")
        for phase in PHASES:
            passed = [marks[phase.ends] for marks in self.marks.values() if phase.ends in marks]
            if passed:
                found[phase.name] = max(0.0, max(passed) - before)
                before = max(before, *passed)
        return found


def timelines(journals: Mapping[str, Iterable[Noted]], parties: Sequence[str]) -> dict[str, Timeline]:
    """Return the sessions that `parties` noted in their journals, by ticket, in the order of beginning."""
    marks: dict[str, dict[str, dict[str, float]]] = {}
    for name in parties:
        for noted in journals[name]:
            ticket = str(noted.fields.get("ticket", ""))
            detail = str(noted.fields.get("phase", noted.fields.get("section", "")))
            mark = _MARKS.get((noted.event, detail))
            if ticket and mark is not None:
                own = marks.setdefault(ticket, {}).setdefault(name, {})
                if noted.event == _PER_BLOCK or mark not in own:
                    own[mark] = noted.at_s
    return {
        ticket: Timeline(ticket, found)
        for ticket, found in sorted(marks.items(), key=lambda item: _began(item[1]))
    }


def timelines_of(run: Run) -> dict[str, Timeline]:
    """Return the sessions of a run at its computing parties, by ticket."""
    computing = [party.name for party in run.parties.values() if party.computing]
    return timelines({name: run.parties[name].journal for name in computing}, computing)


def trips_of(plan: Plan) -> int:
    """Return the one-way trips from AGREE to the last value opened, as the plan declares them.

    Of a table with more cells than are under way at a time, one part waits for another.
    """
    return CONTROL_TRIPS + plan.rounds * waves(plan.cells)


def waves(cells: int) -> int:
    """Return how many times over a table of so many cells makes the rounds of its protocols."""
    return max(1, -(-cells // CELLS_IN_FLIGHT))


def _began(marks: Mapping[str, Mapping[str, float]]) -> float:
    return min(min(own.values()) for own in marks.values())
