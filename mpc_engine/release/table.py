"""The published result: one entry per cell of the full grid, with everything needed to read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from mpc_engine.dp.accounting import NOT_PRIVATE, Rule
from mpc_engine.release.execute import Published
from mpc_engine.release.plan import Plan

SHOWN: Final = "ok"
SUPPRESSED: Final = "c"

FORMAT: Final = "mpc-engine/release/1"


@dataclass(frozen=True)
class Release:
    """One published table.

    Attributes:
        plan: what was agreed.
        query: the query as plain fields.
        published: which cells are shown, and their noisy values.
        session: public facts of the session, such as its id and hashes, by name.
    """

    plan: Plan
    query: Mapping[str, object]
    published: Published
    session: Mapping[str, str]

    def cells(self) -> list[dict[str, object]]:
        """Return one entry per cell: its categories, `value` (None if suppressed) and `flag`."""
        shown = self.published.shown.tolist()
        values = self.published.values.tolist()
        return [
            {**labels, "value": value if visible else None, "flag": SHOWN if visible else SUPPRESSED}
            for labels, visible, value in zip(self.plan.grid.labels(), shown, values, strict=True)
        ]

    def as_fields(self) -> dict[str, Any]:
        """Return the release document."""
        plan, guarantee = self.plan, self.plan.guarantee
        parameters: dict[str, object] = {
            **guarantee.as_fields(),
            "noise": {
                "distribution": "published table of integers, added jointly and known to nobody",
                "table_digest": plan.table.digest(),
                "standard_deviation": f"{float(plan.table.variance) ** 0.5:.4f}",
                "largest": plan.table.limit,
            },
        }
        if guarantee.rule is Rule.EXACT:
            parameters["notice"] = NOT_PRIVATE
        return {
            "format": FORMAT,
            "query": dict(self.query),
            "parameters": parameters,
            "parties": [
                {
                    "name": member.name,
                    "role": _role(member.computing, member.silo),
                    "fingerprint": member.fingerprint,
                }
                for member in plan.members
            ],
            "digests": {**plan.digests, "plan": plan.digest},
            "session": dict(self.session),
            "openings": self.openings(),
            "promise": promise(plan),
            "cells": self.cells(),
        }

    def openings(self) -> list[dict[str, object]]:
        """Return what was opened: the plan's openings, with how many values each one really opened."""
        log = [dict(opening) for opening in self.plan.openings()]
        for opening in log:
            opening["opened"] = opening.pop("values")
            if opening["section"] == "VALUES":
                opening["opened"] = int(self.published.shown.sum())
        return log

    def as_csv(self) -> str:
        """Return the cells as CSV: the variables, `value` (empty if suppressed) and `flag`."""
        names = [axis.variable for axis in self.plan.grid.axes]
        text = io.StringIO()
        writer = csv.DictWriter(text, [*names, "value", "flag"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(self.cells())
        return text.getvalue()


def _role(computing: bool, silo: bool) -> str:
    if computing:
        return "silo and computing party" if silo else "helper"
    return "input-only silo"


def promise(plan: Plan) -> list[str]:
    """Return what is protected, against whom and what is not, one sentence each."""
    n = plan.computing
    t = (n - 1) // 2
    guarantee = plan.guarantee
    statement = guarantee.statement()
    single = "no single computing party learns" if t == 1 else f"no {t} computing parties together learn"
    lines = [
        f"With {n} computing parties, {single} more than this release and their own data imply; any {t + 1} "
        "together could learn everything. This holds for parties that follow the protocol (semi-honest), "
        "assuming AES.",
        "Degree checks and batch checks detect faults and simple deviations; they are not security against "
        "a party that deviates on purpose, and nothing can detect records that a silo made up.",
        "A silo that subtracts its own counts from a published cell holds the others' count plus the joint "
        "noise, however small that count is.",
        f"{statement[0].upper()}{statement[1:]}.",
    ]
    k, cap = guarantee.threshold, guarantee.cap
    if guarantee.rule is Rule.NOISY:
        counted = "value" if cap == 1 else "number of records"
        lines.append(
            f"A cell is shown if its noisy {counted} is at least {k}: a true count below {k} can appear, "
            "never with certainty."
        )
        if cap > 1:
            lines.append(
                f"One patient may have up to {cap} records in a cell, so {-(-k // cap)} patients can have "
                f"{k} records."
            )
    elif guarantee.rule is Rule.STRICT:
        lines.append(
            f"A cell is shown only if it holds at least {k} patients, counted at each silo, and its noisy "
            f"value is at least {guarantee.least_shown}."
        )
    else:
        lines.append(
            f"A cell is shown exactly if it holds at least {k} patients, counted at each silo (but for a "
            "chance of 2^-31 that it is not), so which cells are shown can tell about single patients."
        )
    return lines
