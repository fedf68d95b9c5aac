"""The published release: every cell of the full grids, with everything needed to read it."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, Final

import numpy as np

from mpc_engine.documents import digest
from mpc_engine.dp.accounting import NOT_PRIVATE, Rule
from mpc_engine.errors import DocumentError
from mpc_engine.release.opened import Opened, open_groups
from mpc_engine.release.plan import Plan
from mpc_engine.release.publication import Published

SHOWN: Final = "ok"
SUPPRESSED: Final = "c"

FORMAT: Final = "mpc-engine/release/2"
_HIDDEN: Final = -(1 << 63)


@dataclass(frozen=True)
class Release:
    """What one session published: whole numbers, and nothing computed from them.

    Attributes:
        plan: what was agreed.
        query: the query as plain fields.
        published: which groups are shown, and their noisy values.
        session: public facts of the session, such as its id and hashes, by name.
    """

    plan: Plan
    query: Mapping[str, object]
    published: Published
    session: Mapping[str, str]

    def opened(self) -> Opened:
        """Return the opened values in the shape of their grids."""
        return open_groups(self.plan.groups, self.plan.guarantee, self.published)

    def tallies(self) -> Iterator[tuple[str, str, list[int | None]]]:
        """Yield groups' name, tally's name and its values in the order of the cells, None if suppressed."""
        for line, values in zip(self.plan.lines, self.published.values, strict=True):
            shown = np.repeat(self.published.pattern[line.group], line.per_group)
            listed = [
                value if visible else None for value, visible in zip(values.tolist(), shown, strict=True)
            ]
            yield self.plan.groups[line.group].name, line.tally.name, listed

    def as_fields(self) -> dict[str, Any]:
        """Return the release document."""
        plan, guarantee = self.plan, self.plan.guarantee
        # Floating-point numbers are for readers; nothing that parties compare holds any.
        split = [
            {
                **allotment.as_fields(),
                "noise_standard_deviation": f"{float(allotment.table.variance) ** 0.5:.4f}",
                "noise_variance": repr(float(allotment.table.variance)),
            }
            for allotment in guarantee.allotments
        ]
        parameters: dict[str, object] = {
            **guarantee.as_fields(),
            "split": split,
            "noise": "published tables of integers, added jointly and known to nobody",
        }
        if guarantee.rule is Rule.EXACT:
            parameters["notice"] = NOT_PRIVATE
        tallies = iter(self.tallies())
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
            "groups": [
                {
                    "name": groups.name,
                    "tallies": [
                        {**tally.as_fields(), "values": next(tallies)[2]} for tally in groups.tallies
                    ],
                }
                for groups in plan.groups
            ],
        }

    def openings(self) -> list[dict[str, object]]:
        """Return what was opened: the plan's openings, with how many values each one really opened."""
        log = [dict(opening) for opening in self.plan.openings()]
        opened = iter(
            int(self.published.pattern[line.group].sum()) * line.per_group for line in self.plan.lines
        )
        for opening in log:
            opening["opened"] = opening.pop("values")
            if opening["section"] == "VALUES":
                opening["opened"] = next(opened)
        return log

    def as_csv(self) -> str:
        """Return all cells as CSV: group, tally, the variables, `value` (empty if suppressed) and `flag`."""
        axes = [axis.variable for line in self.plan.lines for axis in line.tally.grid.axes]
        names = list(dict.fromkeys(axes))
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["group", "tally", *names, "value", "flag"])
        for line, (group, tally, values) in zip(self.plan.lines, self.tallies(), strict=True):
            for labels, value in zip(line.tally.grid.labels(), values, strict=True):
                flag = SUPPRESSED if value is None else SHOWN
                writer.writerow([group, tally, *(labels.get(name, "") for name in names), value, flag])
        return text.getvalue()


def release_digest(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hexadecimal, of a release document: what its receipt is for.

    It covers every field; the values of a tally enter as the SHA-256 of 64-bit integers, little-endian, with
    −2^63 for what is suppressed. Raises DocumentError when it is no release document.
    """
    try:
        slim = {
            **fields,
            "groups": [
                {
                    **groups,
                    "tallies": [
                        {**tally, "values": _values_digest(tally["values"])} for tally in groups["tallies"]
                    ],
                }
                for groups in fields["groups"]
            ],
        }
    except (KeyError, TypeError, ValueError, OverflowError):
        raise DocumentError("this is not a release document of this engine") from None
    return digest(slim)


def _values_digest(values: Sequence[int | None]) -> str:
    if any(type(value) is not int for value in values if value is not None):
        raise ValueError
    numbers = np.array([_HIDDEN if value is None else value for value in values], "<i8")
    return sha256(b"mpc-engine/values/1\0" + numbers.tobytes()).hexdigest()


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
    least = [str(line.allotment.least_shown) for line in plan.lines if line.guard]
    grouped = any(groups.members for groups in plan.groups)
    shown = "A group of cells is shown" if grouped else "A cell is shown"
    if guarantee.rule is Rule.NOISY:
        counted = "count" if cap == 1 else "number of records"
        below = f"a group whose true count is below {k}" if grouped else f"a true count below {k}"
        lines.append(
            f"{shown} if its noisy {counted} is at least {k}: {below} can appear, never with certainty."
        )
        if cap > 1:
            lines.append(
                f"One patient may have up to {cap} records in a cell, so {-(-k // cap)} patients can have "
                f"{k} records."
            )
    elif guarantee.rule is Rule.STRICT:
        lines.append(
            f"{shown} only if it holds at least {k} patients, counted at each silo, and its noisy count is "
            f"at least {' / '.join(least)}."
        )
    else:
        lines.append(
            f"{shown} exactly if it holds at least {k} patients, counted at each silo (but for a "
            "chance of 2^-31 that it is not), so which of them are shown can tell about single patients."
        )
    if grouped:
        lines.append(
            f"When a group is shown, all its members are, with their own noise, those below {k} too."
        )
    return lines
