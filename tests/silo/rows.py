"""Coded rows as a silo registers them, and an oracle that goes through them one by one and day by day."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.silo.register import Registration
from mpc_engine.statistics.layout import (
    Amount,
    AxisRule,
    EntryRule,
    FollowUp,
    Layout,
    Place,
    Recipe,
    Selection,
)

BOOK = parse(
    tomllib.loads("""
name = "made-up"
version = "1"
[variables.sex]
kind = "category"
categories = ["female", "male"]
[variables.stage]
kind = "category"
categories = ["I", "II", "III"]
unknown = "unknown"
[variables.age]
kind = "integer"
unit = "years"
lower = 0
upper = 99
unknown = "unknown"
[variables.days]
kind = "integer"
unit = "days"
lower = 0
upper = 1000
[variables.status]
kind = "category"
categories = ["alive", "dead"]
unknown = "unknown"
[variables.diagnosed]
kind = "date"
lower = 1970-01-01
upper = 1980-01-01
unknown = "unknown"
"""),
    Codebook,
)


@dataclass(frozen=True)
class Row:
    """One record: coded values, None for unknown; dates are days. Of a patient the first row ranks first."""

    patient: int
    sex: int = 0
    stage: int | None = 0
    age: int | None = 0
    days: int = 0
    status: int | None = 0
    diagnosed: int | None = 0
    primary: bool = True


def registration(
    folder: Path,
    rows: Sequence[Row],
    count_bound: int = 1000,
    primaries: bool = False,
    most: int | None = None,
) -> Registration:
    """Write a snapshot of the rows, in no order, and return its registration."""
    ranks: dict[int, int] = {}
    columns: dict[str, list[int | None]] = {
        "_patient": [],
        "_rank": [],
        **({"_primary": []} if primaries else {}),
    }
    for row in rows:
        ranks[row.patient] = ranks.get(row.patient, -1) + 1
        columns["_patient"].append(row.patient)
        columns["_rank"].append(ranks[row.patient])
        if primaries:
            columns["_primary"].append(int(row.primary))
        for name in BOOK.mapped:
            columns.setdefault(name, []).append(getattr(row, name))
    names = [*columns, *(name for name in BOOK.mapped if name not in columns)]
    frame = pd.DataFrame({name: pd.array(columns.get(name, []), dtype="Int64") for name in names})
    frame.sample(frac=1, random_state=1).to_parquet(folder / "snapshot.parquet", index=False)
    fields = {
        "snapshot_id": "ab" * 16,
        "codebook_digest": BOOK.digest(),
        "count_bound": count_bound,
        "mapping": "mapping.toml",
        "mapping_digest": "",
        "source": None,
        "snapshot": "snapshot.parquet",
        "snapshot_sha256": "",
        "rows": len(rows),
        "max_records_per_patient": most or max(ranks.values(), default=0) + 1,
        "has_primaries": primaries,
    }
    return parse(fields, Registration, str(folder / "registration.json"))


@dataclass(frozen=True)
class Asked:
    """A query that has its layout already."""

    made: Layout

    def layout(self, codebook: Codebook) -> Layout:
        """Return the layout."""
        return self.made


def categories(rule: Place) -> int:
    """Return how many places a rule tells apart."""
    if isinstance(rule, AxisRule):
        if rule.variable == "sex":
            return 2
        known = len(rule.cuts) + 1 if rule.cuts else {"stage": 3, "status": 2, "age": 100}[rule.variable]
        return known + (rule.unknown is not None)
    return len(rule.cuts) + 1 if isinstance(rule, EntryRule) else 2 * len(rule.cuts) + 1


def grid(rules: Sequence[Place]) -> Grid:
    """Return a grid with an axis for every rule."""
    return Grid(
        tuple(
            Axis(f"axis{index}", tuple(map(str, range(categories(rule))))) for index, rule in enumerate(rules)
        )
    )


def layout(
    kinds: Sequence[tuple[Recipe, Sequence[Recipe]]],
    where: Sequence[Selection] = (),
    cap: int = 1,
    primaries: str = "all",
    follow_up: FollowUp | None = None,
) -> Layout:
    """Return a layout of kinds of groups, each given by the recipes of its guard and of its members."""
    groups, recipes = [], []
    for number, (guard, members) in enumerate(kinds):
        tallies = [
            Tally(f"member{index}", grid(member.rules), step=10**9, signed=True)
            for index, member in enumerate(members)
        ]
        groups.append(Groups(f"kind{number}", Tally("n", grid(guard.rules)), tuple(tallies)))
        recipes += [guard, *members]
    return Layout(tuple(groups), tuple(recipes), tuple(where), cap, primaries, follow_up)  # type: ignore[arg-type]


# --- the oracle ---------------------------------------------------------------------------------------


def selected(row: Row, selection: Selection) -> bool:
    """Return whether a row satisfies a filter."""
    value = getattr(row, selection.variable)
    if value is None:
        return selection.unknown
    return any(value in range(low, high + 1) for low, high in selection.ranges)


def takes_part(row: Row, follow_up: FollowUp) -> bool:
    """Return whether a row is under observation on any day that the window and its horizon include."""
    days = days_at_risk(row, follow_up)
    horizon = None if follow_up.window is None else follow_up.window.horizon
    return any(horizon is None or day < horizon for day in days)


def days_at_risk(row: Row, follow_up: FollowUp) -> list[int]:
    """Return the days since diagnosis, from 0, on which a row is under observation and not yet over."""
    every = range(getattr(row, follow_up.time) + 1)
    if follow_up.window is None:
        return list(every)
    start = getattr(row, follow_up.window.diagnosed)
    if start is None:
        return []
    calendar = range(follow_up.window.opens, follow_up.window.closes + 1)
    return [day for day in every if start + day in calendar]


def interval(day: int, cuts: Sequence[int]) -> int:
    """Return the interval of a day: as many intervals are over as cuts have been passed or reached."""
    index = 0
    while index < len(cuts) and day >= cuts[index]:
        index += 1
    return index


def place_of(row: Row, rule: Place) -> int:
    """Return where a row counts along an axis."""
    if isinstance(rule, AxisRule):
        value = getattr(row, rule.variable)
        if value is None:
            assert rule.unknown is not None
            return rule.unknown
        return interval(value, rule.cuts) if rule.cuts else value - rule.offset
    days = days_at_risk(row, rule.follow_up)
    if isinstance(rule, EntryRule):
        return 0 if days[0] == 0 else 1 + interval(days[0], rule.cuts)
    ended = days[-1] == getattr(row, rule.follow_up.time)  # and not just the window
    event = ended and selected(row, rule.follow_up.event)
    j = interval(days[-1], rule.cuts)
    if j == len(rule.cuts):
        return 2 * j
    return 2 * j if event else 2 * j + 1


def amount_of(row: Row, amount: Amount | None) -> int | None:
    """Return what a row adds; None if it is left out."""
    if amount is None:
        return 1
    value = getattr(row, amount.variable)
    if value is None:
        return None
    clipped = amount.lower if value < amount.lower else amount.upper if value > amount.upper else value
    return (clipped - amount.centre) ** (2 if amount.squared else 1)


def taken(rows: Sequence[Row], made: Layout) -> list[Row]:
    """Return the rows that count, in their order."""
    kept: list[Row] = []
    seen: set[int] = set()
    counted: dict[int, int] = {}
    for row in rows:
        first, _ = row.patient not in seen, seen.add(row.patient)
        if made.primaries == "first" and not first:
            continue
        if made.primaries == "iarc" and not row.primary:
            continue
        if not all(selected(row, selection) for selection in made.where):
            continue
        if made.follow_up is not None and not takes_part(row, made.follow_up):
            continue
        counted[row.patient] = counted.get(row.patient, 0) + 1
        if counted[row.patient] <= made.max_records_per_patient:
            kept.append(row)
    return kept


def expected(rows: Sequence[Row], made: Layout) -> list[np.ndarray]:
    """Return the sums of every tally; for guards records, then patients."""
    kept, found = taken(rows, made), []
    recipes = iter(made.recipes)
    for groups in made.groups:
        for tally in groups.tallies:
            recipe = next(recipes)
            shape = tally.grid.shape
            sums, patients = np.zeros(shape, np.int64), np.zeros(shape, object)
            holders: dict[tuple[int, ...], set[int]] = {}
            for row in kept:
                cell = tuple(place_of(row, rule) for rule in recipe.rules)
                more = amount_of(row, recipe.amount)
                if more is not None:
                    sums[cell] += more
                holders.setdefault(cell, set()).add(row.patient)
            for cell, who in holders.items():
                patients[cell] = len(who)
            lines = [sums.reshape(-1)] + ([patients.reshape(-1).astype(int)] if tally is groups.guard else [])
            found.append(np.vstack(lines))
    return found
