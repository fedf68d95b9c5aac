"""Standard populations: the weights of directly standardised rates, by age group.

The package carries five, as published, in ``standard_populations.csv``: one line per age group with the first
and the last completed year of age (none for an open-ended group) and the weight. Only ratios of weights
matter; the published totals differ (100,000 or 1,000,000) and are kept.

A standard is used with coarser age groups by adding weights, never by splitting them: an age group that would
cut through one of the standard's is refused.
"""

from __future__ import annotations

import csv
import itertools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources

import numpy as np
import numpy.typing as npt

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.intervals import FloatArray, numbers

TITLES = {
    "segi_1960": "World standard population (Segi 1960, as modified by Doll 1966)",
    "who_2000": "WHO world standard population 2000-2025",
    "esp_1976": "European standard population 1976",
    "esp_2013": "European standard population 2013",
    "us_2000": "US standard population 2000 (19 age groups)",
}
"""The standards of the package by name, with the titles that tables print. Sources: [Segi60], [Doll66],
[AhmadWHO01], [WHO76], [ESP13], [SEERStd]."""

_GROUP = re.compile(
    r"<\s*(?P<below>[0-9]+)|(?P<open>[0-9]+)\s*\+|(?P<first>[0-9]+)(?:\s*[-–]\s*(?P<last>[0-9]+))?"
)


@dataclass(frozen=True)
class AgeGroups:
    """Contiguous age groups: group i covers ages from ``edges[i]`` to below ``edges[i + 1]``, in years.

    If ``open_ended``, one more group begins at the last edge and has no end. Raises DocumentError for edges
    that do not ascend from 0 or above, and for no group at all.
    """

    edges: tuple[int, ...]
    open_ended: bool

    def __post_init__(self) -> None:
        if any(edge < 0 for edge in self.edges) or any(a >= b for a, b in itertools.pairwise(self.edges)):
            raise DocumentError("age groups: the limits must ascend, from 0 or above")
        if len(self.edges) < 2 - self.open_ended:
            raise DocumentError("age groups: at least one is needed")

    def __len__(self) -> int:
        return len(self.edges) - (not self.open_ended)

    @property
    def widths(self) -> FloatArray:
        """Years in each group; infinite for an open-ended one."""
        ends = (*self.edges, np.inf) if self.open_ended else self.edges
        return np.diff(np.array(ends, dtype=np.float64))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names such as ``<1``, ``1-4``, ``5-9`` and ``85+``."""
        closed = [
            (
                f"<{end}"
                if start == 0 and end == 1
                else str(start)
                if end == start + 1
                else f"{start}-{end - 1}"
            )
            for start, end in itertools.pairwise(self.edges)
        ]
        return (*closed, f"{self.edges[-1]}+") if self.open_ended else tuple(closed)


def parse_age_groups(labels: Sequence[str]) -> AgeGroups:
    """Return the age groups that labels such as ``<1``, ``1-4``, ``0``, ``5–9``, ``85+`` describe, in order.

    Raises DocumentError for a label of another form, for gaps, overlaps or disorder between groups, and for
    an open-ended group that is not the last.
    """
    edges: list[int] = []
    open_ended = False
    for label in labels:
        match = _GROUP.fullmatch(label.strip())
        if match is None:
            raise DocumentError(f"age group {label!r}: write it like 0-4, <1 or 85+")
        start = int(match["open"] or match["first"] or 0)
        if open_ended or (edges and edges[-1] != start):
            raise DocumentError(f"age group {label!r} does not begin where the one before it ends")
        edges = edges or [start]
        open_ended = match["open"] is not None
        if match["below"]:
            edges.append(int(match["below"]))
        elif match["first"]:
            edges.append(int(match["last"] or match["first"]) + 1)
    return AgeGroups(tuple(edges), open_ended)


@dataclass(frozen=True)
class StandardPopulation:
    """A named standard: age groups and one weight for each, not negative and not all 0.

    Build the user's own with this constructor and ``parse_age_groups``. Raises DocumentError for weights that
    do not fit the groups.
    """

    name: str
    title: str
    groups: AgeGroups
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.weights) != len(self.groups):
            raise DocumentError(f"standard population {self.name}: one weight per age group is needed")
        check_weights(self.weights)

    def collapse(self, groups: AgeGroups) -> StandardPopulation:
        """Return the standard for coarser age groups, by adding weights.

        Ages outside ``groups`` are left out, which truncates the standard (ages 0-14, say). Raises
        DocumentError where a group would cut through one of the standard's or reach past its last age.
        """
        starts = self.groups.edges[: len(self.groups)]
        limits: dict[float, int] = {edge: index for index, edge in enumerate(self.groups.edges)}
        ends: tuple[float, ...] = groups.edges[1:]
        if groups.open_ended:
            if not self.groups.open_ended:
                raise DocumentError(f"standard population {self.name} ends below the open-ended age group")
            ends = (*ends, np.inf)
            limits[np.inf] = len(starts)
        weights = []
        for label, start, end in zip(groups.labels, groups.edges, ends, strict=False):
            if start not in limits or end not in limits:
                raise DocumentError(
                    f"age group {label} cuts through an age group of standard population {self.name}, "
                    f"which has {', '.join(self.groups.labels)}"
                )
            weights.append(float(sum(self.weights[limits[start] : limits[end]])))
        return StandardPopulation(self.name, self.title, groups, tuple(weights))


def check_weights(weights: npt.ArrayLike) -> FloatArray:
    """Return weights as floats. Raises DocumentError for negative or missing ones and for a sum of 0."""
    array = numbers(weights, "weights", least=0)
    if np.isnan(array).any() or not array.sum() > 0:
        raise DocumentError("weights: numbers from 0 up are needed, and not only zeros")
    return array


def standard_population(name: str) -> StandardPopulation:
    """Return one of the package's standards, in its finest age groups.

    Raises DocumentError, with the known names, for any other.
    """
    shipped = _shipped()
    if name not in shipped:
        raise DocumentError(f"unknown standard population; known are {', '.join(shipped)}")
    return shipped[name]


@cache
def _shipped() -> dict[str, StandardPopulation]:
    """All standards of the packaged table, by name."""
    file = resources.files("mpc_engine.estimators").joinpath("standard_populations.csv")
    groups: dict[str, list[tuple[str, float]]] = {}
    with file.open(encoding="utf-8") as stream:
        for row in csv.DictReader(stream):
            label = f"{row['age_from']}-{row['age_to']}" if row["age_to"] else f"{row['age_from']}+"
            groups.setdefault(row["standard"], []).append((label, float(row["weight"])))
    return {
        name: StandardPopulation(
            name,
            TITLES[name],
            parse_age_groups([label for label, _ in rows]),
            tuple(weight for _, weight in rows),
        )
        for name, rows in groups.items()
    }
