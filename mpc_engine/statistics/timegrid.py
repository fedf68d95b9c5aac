"""Grids of follow-up time: public edges, chosen in the query or from an expected size, never from data."""

from __future__ import annotations

from fractions import Fraction
from itertools import pairwise
from typing import Annotated, Any, Final, Literal

from mpc_engine.codebook import Codebook, IntegerVariable
from mpc_engine.documents import Document, Field, broken, model_validator
from mpc_engine.statistics.where import Problems

Unit = Literal["days", "months", "years"]
DAYS: Final[dict[str, Fraction]] = {
    "days": Fraction(1),
    "months": Fraction(1461, 48),
    "years": Fraction(1461, 4),
}
"""Length of a unit; a year has 365.25 days and a month is its twelfth part."""

STEPS_BY_SIZE: Final = ((3_000, 1), (1_000, 3), (500, 6), (0, 12))
"""For so many expected cases in a stratum, or more, months between edges; in the order of choice. At ε = 1
the noise on 5-year survival is then about half as large as the sampling error at the beginning of each step;
on the annual grid it is as large at about 65 cases (``mpc-engine plan``)."""

MOST_INTERVALS: Final = 20_000

Step = Annotated[int, Field(ge=1, le=100_000)]


class TimeGrid(Document):
    """Edges in ``unit``: given as ``edges``; or ``every`` so many units ``until`` the last; or so many that
    suit ``expected_cases`` in a stratum, a number that must come from public knowledge, ``until`` the last.

    Time 0 is always the first edge and is not written. Interval j reaches from above the edge before it up
    to and including its own edge; the first one includes time 0.
    """

    unit: Unit = "years"
    edges: Annotated[tuple[Step, ...] | None, Field(min_length=1, max_length=MOST_INTERVALS)] = None
    every: Step | None = None
    until: Step | None = None
    expected_cases: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None

    @model_validator(mode="after")
    def _one_way(self) -> TimeGrid:
        ways = [self.edges is not None, self.every is not None, self.expected_cases is not None]
        if sum(ways) != 1:
            raise broken("", "needs exactly one of `edges`, `every` and `expected_cases`")
        if (self.until is None) != (self.edges is not None):
            raise broken("until", "goes with `every` or `expected_cases`, and is needed there")
        for index, (before, after) in enumerate(pairwise(self.edges or ()), 1):
            if after <= before:
                raise broken(f"edges[{index}]", f"is {after}, not above the edge before it, {before}")
        if self.every is not None and self.until is not None and self.until % self.every:
            raise broken("until", f"is {self.until}, no multiple of `every` = {self.every}")
        if self.expected_cases is not None and self.unit != "years":
            raise broken("unit", "is years where the grid follows from expected cases")
        if self.until is not None and self._intervals() > MOST_INTERVALS:
            raise broken("until", f"makes more than {MOST_INTERVALS} intervals")
        return self

    @property
    def times(self) -> tuple[Fraction, ...]:
        """Return the edges after 0 in ``unit``, exact."""
        if self.edges is not None:
            return tuple(Fraction(edge) for edge in self.edges)
        until = self.until or 0
        if self.every is not None:
            return tuple(Fraction(edge) for edge in range(self.every, until + 1, self.every))
        step = self._months()
        return tuple(Fraction(month, 12) for month in range(step, 12 * until + 1, step))

    def _months(self) -> int:
        """Return the months between edges that suit the expected cases."""
        cases = self.expected_cases or 0
        return next(step for least, step in STEPS_BY_SIZE if cases >= least)

    def _intervals(self) -> int:
        """Return the number of intervals until the last edge, without making them."""
        until = self.until or 0
        return 12 * until // self._months() if self.every is None else until // self.every

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the intervals in words, such as ``(1, 2] years``."""
        texts = [_text(edge) for edge in (Fraction(0), *self.times)]
        return tuple(
            f"{'[' if low == '0' else '('}{low}, {high}] {self.unit}" for low, high in pairwise(texts)
        )

    @property
    def last(self) -> str:
        """Return the last edge in words, such as ``10 years``."""
        return f"{_text(self.times[-1])} {self.unit}"

    def cuts(self, variable: IntegerVariable, path: str, problems: Problems) -> tuple[int, ...]:
        """Return, for each edge, the first value of a time variable that lies beyond it.

        Faults: a unit that is no time, edges that the variable's unit cannot tell apart, and a grid that
        reaches beyond the variable's bounds, where nobody could be at risk.
        """
        days = DAYS.get(variable.unit)
        if days is None:
            units = ", ".join(DAYS)
            problems.append((path, f"is in {variable.unit}; follow-up is measured in {units}"))
            return ()
        if variable.lower < 0:
            problems.append(
                (path, f"may be negative by the codebook, from {variable.lower}; follow-up starts at 0")
            )
        exact = [edge * DAYS[self.unit] / days for edge in self.times]
        cuts = tuple(edge.numerator // edge.denominator + 1 for edge in exact)
        if any(after <= before for before, after in pairwise((1, *cuts))):
            problems.append(("grid", f"has edges that whole {variable.unit} cannot tell apart"))
        if exact[-1] > variable.upper:
            problems.append(
                (
                    "grid",
                    f"ends at {float(exact[-1]):g} {variable.unit}, beyond the codebook's {variable.upper}",
                )
            )
        return cuts

    def coarser(self, keep: tuple[int, ...]) -> TimeGrid | None:
        """Return the next coarser grid: steps of 1, 3, 6, 12 months, then only the times to ``keep`` (years).

        None when there is none that keeps the last edge.
        """
        months = [edge * DAYS[self.unit] / DAYS["months"] for edge in self.times]
        last, widest = months[-1], max(after - before for before, after in pairwise((Fraction(0), *months)))
        for step in (1, 3, 6, 12):
            if step > widest and last % step == 0:
                return TimeGrid(unit="months", every=step, until=int(last))
        kept = tuple(sorted({*keep, int(last / 12)})) if last % 12 == 0 else ()
        if kept and len(kept) < len(months):
            return TimeGrid(unit="years", edges=kept)
        return None

    def describe(self) -> str:
        """Return the grid in words."""
        times = self.times
        steps = {after - before for before, after in pairwise((Fraction(0), *times))}
        if len(steps) == 1:
            step = _text(steps.pop())
            return f"every {self.unit[:-1] if step == '1' else f'{step} {self.unit}'} until {self.last}"
        return f"at {', '.join(_text(time) for time in times)} {self.unit}"


def time_variable(name: str, path: str, codebook: Codebook, problems: Problems) -> IntegerVariable | None:
    """Return the integer variable of follow-up; a fault at ``path`` if it is none."""
    variable: Any = codebook.variables.get(name)
    if isinstance(variable, IntegerVariable):
        return variable
    integers = [each for each, kind in codebook.variables.items() if isinstance(kind, IntegerVariable)]
    problems.append((path, f"{name!r} is not an integer variable; allowed: {', '.join(integers) or 'none'}"))
    return None


def _text(edge: Fraction) -> str:
    # Parts of a year are months: two decimals tell any two of them apart.
    return str(edge) if edge.denominator == 1 else f"{float(edge):.2f}".rstrip("0")
