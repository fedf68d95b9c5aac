"""Release documents as a session would publish them, with made-up counts and noise from a printed seed."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Collection
from functools import cache
from typing import Any

import numpy as np

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.release.publication import Published
from mpc_engine.release.table import Release
from mpc_engine.statistics.presets import parse_query

BOOK: dict[str, Any] = {
    "name": "made-up",
    "version": "1",
    "variables": {
        "sex": {"kind": "category", "categories": ["F", "M"]},
        "stage": {"kind": "category", "categories": ["I", "II", "III, [c] $x$"], "unknown": "unknown"},
        "age": {"kind": "integer", "unit": "years", "lower": 0, "upper": 99, "unknown": "?"},
        "ages": {"kind": "band", "of": "age", "cuts": [15, 65], "labels": ["0-14", "15-64", "65+"]},
        "days": {"kind": "integer", "unit": "days", "lower": 0, "upper": 9000},
        "place": {"kind": "integer", "unit": "number", "lower": 1, "upper": 2500},
        "dead": {"kind": "category", "categories": ["no", "yes"]},
    },
}
CODEBOOK = parse(BOOK, Codebook)
_GROUPS: list[Any] = [
    {"label": "I", "description": "Leukaemias, myeloproliferative diseases and myelodysplastic diseases"},
    {"label": "V", "description": "Retinoblastoma"},
    *("VI", "VII", "VIII"),
]
_ICCC = {"kind": "category", "description": "Main diagnostic group", "categories": _GROUPS}
_VARIABLES: dict[str, Any] = {**BOOK["variables"], "iccc": _ICCC}
DESCRIBED = parse({**BOOK, "variables": _VARIABLES}, Codebook)
"""The codebook with a variable whose categories are described."""
MEMBERS = (
    Member("uk", True, True, "sha256:" + "0" * 64, 1 << 20),
    Member("us", True, True, "sha256:" + "1" * 64, 1 << 20),
    Member("helper", True, False, "sha256:" + "2" * 64, 1 << 20),
)
SURVIVAL: dict[str, Any] = {
    "preset": "survival",
    "title": "Survival by stage",
    "time": "days",
    "event": {"variable": "dead", "in": ["yes"]},
    "by": ["stage"],
    "grid": {"unit": "years", "every": 1, "until": 10},
}
CROSSTAB: dict[str, Any] = {"preset": "crosstab", "by": ["stage", "sex"], "totals": True}
HISTOGRAM: dict[str, Any] = {
    "preset": "histogram",
    "variable": "age",
    "edges": [0, 20, 40, 60, 100],
    "by": ["sex"],
}
MEAN: dict[str, Any] = {"preset": "mean", "variable": "age", "by": ["sex"], "variance": True}
COUNT: dict[str, Any] = {"preset": "count"}


_BOOKS = {CODEBOOK.digest(): CODEBOOK}


def seed_of(seed: int | None = None) -> int:
    """Return a seed and print it; TEST_SEED sets it."""
    if seed is None:
        seed = int(os.environ.get("TEST_SEED") or int.from_bytes(os.urandom(4)))
    print(f"TEST_SEED={seed}")
    return seed


def document(
    query: dict[str, Any],
    cases: float = 60,
    hide: Collection[int] | None = (),
    seed: int | None = 1,
    beyond: float = 1,
    codebook: Codebook = CODEBOOK,
) -> dict[str, Any]:
    """Return a release of about ``cases`` patients in each group, ``beyond`` times as many in its last cell.

    Groups of the numbers ``hide`` are suppressed, all of them if it is None.
    """
    _BOOKS[codebook.digest()] = codebook
    return copy.deepcopy(
        _document(json.dumps(query), cases, _key(hide), seed_of(seed), beyond, codebook.digest())
    )


def _key(hide: Collection[int] | None) -> tuple[int, ...] | None:
    return None if hide is None else tuple(hide)


@cache
def _document(
    text: str, cases: float, hide: tuple[int, ...] | None, seed: int, beyond: float, book: str
) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    fields = json.loads(text)
    query = parse_query({**fields, "privacy": {"epsilon": "1"} | fields.get("privacy", {})})
    plan = propose(query, _BOOKS[book], MEMBERS).plan()
    values, pattern = [], []
    for line in plan.lines:
        cells = line.tally.grid.cells
        mean = np.full((cells // line.per_group, line.per_group), cases / line.per_group)
        if line.per_group > 1:
            mean[:, -1] *= beyond
        true = rng.poisson(mean.ravel())
        if line.tally.signed:
            true = rng.normal(-5 * cases, 50, cells).round().astype(np.int64)
        elif line.tally.step > 1:
            true = rng.poisson(900 * cases, cells)
        deviation = float(line.allotment.table.variance) ** 0.5
        noise = rng.laplace(0, deviation / 2**0.5, cells).round().astype(np.int64)
        values.append(true + noise)
        if line.guard:
            shown = np.full(cells, hide is not None)
            shown[[number for number in hide or () if number < cells]] = False
            pattern.append(shown)
    made = Release(plan, query.digest_fields(), Published(tuple(pattern), tuple(values)), {"id": "0" * 32})
    fields = json.loads(json.dumps(made.as_fields()))
    assert isinstance(fields, dict)
    return fields
