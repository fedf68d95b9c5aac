"""Made-up coded values for the variables of a codebook: plausible, seeded, and taken from nobody.

What a variable is about is guessed from its name, unit and labels, since a codebook does not say it:

* categories are skewed, the i-th as frequent as 1/i^0.8; sexes are equally frequent;
* ages lean to the young where nobody is over 25 years old and to the old otherwise; years and dates of
  diagnosis rise slowly; other whole numbers lean to their lower bound;
* a time of follow-up is the earlier of a time to the event (Weibull, falling hazard) and a time to
  censoring (early leavers, and the end of the study), and the status that goes with it says which it was;
* a year takes its value from the date of the same name, and a coarse grouping (``VI``) from the fine one
  (``VI(a)``).

Apart from that variables are independent. Nothing here can be learnt about a disease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

import numpy as np
import numpy.typing as npt

from mpc_engine.codebook import CategoryVariable, Codebook, DateVariable, IntegerVariable, day

Values = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

LARGEST: Final = 999_999_999
"""Largest size of a number that sources may hold; see :mod:`mpc_engine.silo.texts`."""
PER_YEAR: Final = {"days": 365.25, "months": 12.0, "years": 1.0}
"""How many of each unit of time make a year."""
FREEZE: Final = date(2024, 12, 31)
"""Nobody is diagnosed or seen after this day, unless the codebook begins only shortly before it."""
_LONGEST_YEARS: Final = 20.0
_CHILDREN_YEARS: Final = 25.0
_SEXES: Final = frozenset({"sex", "gender"})
_TIMES: Final = frozenset({"follow", "followup", "survival", "time", "duration", "fu"})
_STATES: Final = frozenset(
    {"vital", "status", "relapse", "death", "dead", "event", "recurrence", "progression", "outcome"}
)
_EVENTS: Final = frozenset(
    {"dead", "died", "deceased", "death", "yes", "event", "relapse", "recurrence", "progression"}
)


@dataclass(frozen=True)
class Pair:
    """The status of a time of follow-up, and the positions of its categories that are events."""

    status: str
    events: frozenset[int]


def draw(
    codebook: Codebook,
    rows: int,
    generator: np.random.Generator,
    reach: Mapping[str, tuple[int, ...]] | None = None,
    pairs: Mapping[str, Pair] | None = None,
) -> dict[str, Values]:
    """Return ``rows`` coded values, none unknown, of every mapped variable of ``codebook``.

    ``reach`` has the positions that a category may take, by variable, all of them by default. ``pairs`` has
    the status of each time of follow-up; what it does not name is guessed.
    """
    reach = dict(reach or {})
    for name, variable in codebook.mapped.items():
        if isinstance(variable, CategoryVariable):
            reach.setdefault(name, tuple(range(len(variable.known))))
    values: dict[str, Values] = {}
    for name, variable in codebook.mapped.items():
        if isinstance(variable, CategoryVariable):
            even = bool(_SEXES & _words(name))
            values[name] = skewed(np.array(reach[name], dtype=np.int64), rows, generator, even=even)
        elif isinstance(variable, DateVariable):
            values[name] = _rising(*_diagnosed(variable), rows, generator)
        elif not _is_time(name, variable):
            values[name] = _number(name, variable, rows, generator)
    _years_of_dates(codebook, values)
    _coarse_of_fine(codebook, values, reach)
    found = guessed_pairs(codebook) | dict(pairs or {})
    left = _years_left(codebook, values, rows)
    for name, variable in codebook.mapped.items():
        if isinstance(variable, IntegerVariable) and _is_time(name, variable, found):
            values[name], event = _follow_up(variable, left, rows, generator)
            if name in found:
                pair = found[name]
                values[pair.status] = _status(pair, event, reach[pair.status], generator)
    return values


def skewed(positions: Values, rows: int, generator: np.random.Generator, *, even: bool = False) -> Values:
    """Return ``rows`` draws of ``positions``, the earlier the likelier unless ``even``; none gives -1."""
    if not positions.size:
        return np.full(rows, -1, dtype=np.int64)
    edges = np.cumsum(np.arange(1, positions.size + 1, dtype=np.float64) ** (0.0 if even else -0.8))
    edges /= edges[-1]
    index = np.searchsorted(edges, generator.random(rows), side="right")
    return positions[np.minimum(index, positions.size - 1)]


def guessed_pairs(codebook: Codebook) -> dict[str, Pair]:
    """Return the status of each time of follow-up, as names and labels suggest them."""
    pairs: dict[str, Pair] = {}
    status: Pair | None = None
    waiting: list[str] = []
    for name, variable in codebook.mapped.items():
        if isinstance(variable, CategoryVariable) and _STATES & _words(name) and len(variable.known) > 1:
            events = frozenset(
                place for place, label in enumerate(variable.known) if label.lower() in _EVENTS
            )
            if events and len(events) < len(variable.known):
                status = Pair(name, events)
                pairs |= dict.fromkeys(waiting, status)
                waiting = []
        elif isinstance(variable, IntegerVariable) and _is_time(name, variable):
            if status is None:
                waiting.append(name)
            else:
                pairs[name] = status
    # One status cannot go with two times that are drawn apart.
    taken: set[str] = set()
    return {
        name: pair
        for name, pair in pairs.items()
        if not (pair.status in taken or taken.add(pair.status))  # type: ignore[func-returns-value]
    }


def is_personal(name: str) -> bool:
    """Return whether a column or variable of this name is the same in all records of a patient."""
    return bool((_SEXES | {"birth", "born", "dob", "birthdate"}) & _words(name.lower()))


def is_age(name: str) -> bool:
    """Return whether a variable of this name is an age."""
    return "age" in _words(name)


def _words(name: str) -> set[str]:
    return set(name.replace("-", "_").replace(" ", "_").split("_"))


def _is_time(name: str, variable: IntegerVariable, pairs: Mapping[str, Pair] | None = None) -> bool:
    if pairs is not None and name in pairs:
        return True
    return variable.unit in PER_YEAR and bool(_TIMES & _words(name)) and not is_age(name)


def _is_year(name: str, variable: IntegerVariable) -> bool:
    return variable.unit == "year" or ("year" in _words(name) and variable.unit != "years")


def readable(variable: IntegerVariable) -> tuple[int, int]:
    """Return the variable's bounds, within what a source can hold."""
    return max(variable.lower, -LARGEST), min(variable.upper, LARGEST)


def _number(name: str, variable: IntegerVariable, rows: int, generator: np.random.Generator) -> Values:
    lower, upper = readable(variable)
    if _is_year(name, variable):
        last = min(upper, FREEZE.year) if lower <= FREEZE.year - 1 else upper
        return _rising(lower, last, rows, generator)
    shape = (2.0, 2.0) if lower < 0 else (0.8, 5.0)
    if is_age(name) and variable.unit in PER_YEAR:
        per_year = PER_YEAR[variable.unit]
        children = upper <= _CHILDREN_YEARS * per_year
        shape = (0.9, 1.4) if children else (4.5, 2.2)
        upper = upper if children else max(lower, min(upper, int(100 * per_year)))
    found = lower + np.floor((upper - lower + 1) * generator.beta(*shape, rows)).astype(np.int64)
    return np.minimum(found, upper)


def _rising(lower: int, upper: int, rows: int, generator: np.random.Generator) -> Values:
    """Return whole numbers whose frequency rises slowly from ``lower`` to ``upper``."""
    place = generator.random(rows) ** 0.85
    return np.minimum(lower + np.floor((upper - lower + 1) * place).astype(np.int64), upper)


def _diagnosed(variable: DateVariable) -> tuple[int, int]:
    lower, upper = day(variable.lower), day(variable.upper)
    return lower, min(upper, day(FREEZE)) if lower <= day(FREEZE) - 365 else upper


def _years_of_dates(codebook: Codebook, values: dict[str, Values]) -> None:
    dates = {
        frozenset(_words(name) - {"date"}): name
        for name, variable in codebook.mapped.items()
        if isinstance(variable, DateVariable)
    }
    for name, variable in codebook.mapped.items():
        if isinstance(variable, IntegerVariable) and name in values and _is_year(name, variable):
            source = dates.get(frozenset(_words(name) - {"year"}))
            if source is not None:
                found = calendar_years(values[source])
                fits = (found >= variable.lower) & (found <= variable.upper)
                values[name] = np.where(fits, found, values[name])


def calendar_years(days: Values) -> Values:
    """Return the calendar years of days since 1970-01-01."""
    return days.astype("datetime64[D]").astype("datetime64[Y]").astype(np.int64) + 1970


def _coarse_of_fine(
    codebook: Codebook, values: dict[str, Values], reach: Mapping[str, tuple[int, ...]]
) -> None:
    categories = {
        name: variable.known
        for name, variable in codebook.mapped.items()
        if isinstance(variable, CategoryVariable)
    }
    for fine, labels in categories.items():
        stems = [label.partition("(")[0] for label in labels]
        if stems == list(labels):
            continue
        for coarse, groups in categories.items():
            if coarse != fine and set(stems) <= set(groups) and reach[fine]:
                found = np.array([groups.index(stem) for stem in stems])[values[fine]]
                values[coarse] = np.where(np.isin(found, reach[coarse]), found, values[coarse])


def _years_left(codebook: Codebook, values: Mapping[str, Values], rows: int) -> npt.NDArray[np.float64]:
    """Return how many years each record could be followed, from its diagnosis to the end of the study."""
    end = FREEZE.year + 1.0
    for wanted in (DateVariable, IntegerVariable):
        for name, variable in codebook.mapped.items():
            if not isinstance(variable, wanted) or name not in values:
                continue
            entered: npt.NDArray[np.float64]
            if isinstance(variable, DateVariable):
                entered = values[name].astype(np.float64) / PER_YEAR["days"] + 1970.0
            elif isinstance(variable, IntegerVariable) and _is_year(name, variable):
                entered = values[name].astype(np.float64) + 0.5
            else:
                continue
            after = end if entered.max(initial=0.0) <= end else float(entered.max(initial=0.0)) + 5.0
            return np.maximum(after - entered, 1 / 12)
    return np.full(rows, _LONGEST_YEARS)


def _follow_up(
    variable: IntegerVariable,
    left: npt.NDArray[np.float64],
    rows: int,
    generator: np.random.Generator,
) -> tuple[Values, Flags]:
    """Return times of follow-up, and whether each ended in the event."""
    lower, upper = readable(variable)
    per_year = PER_YEAR.get(variable.unit, (upper - lower + 1) / _LONGEST_YEARS)
    longest = min((upper - lower + 1) / per_year, 2 * _LONGEST_YEARS)
    scale = min(longest, _LONGEST_YEARS)
    event_after = 0.6 * scale * generator.weibull(0.7, rows)
    leaves_after = scale * generator.exponential(2.0, rows)
    censored_after = np.minimum(np.minimum(leaves_after, left), longest)
    event = event_after < censored_after
    time = lower + np.floor(np.minimum(event_after, censored_after) * per_year).astype(np.int64)
    return np.minimum(time, upper), event


def _status(pair: Pair, event: Flags, reach: tuple[int, ...], generator: np.random.Generator) -> Values:
    yes = np.array([place for place in reach if place in pair.events], dtype=np.int64)
    no = np.array([place for place in reach if place not in pair.events], dtype=np.int64)
    happened = skewed(yes if yes.size else no, event.size, generator)
    return np.where(event, happened, skewed(no if no.size else yes, event.size, generator))
