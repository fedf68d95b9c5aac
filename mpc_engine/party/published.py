"""A party's policy as anybody may read it: the parameters, their digest, the same in plain words.

The published form is what receipts name by its digest. It holds no record, no analyst and no amount spent.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any, Final

from mpc_engine.documents import digest
from mpc_engine.dp.rationals import decimal_text
from mpc_engine.party.policy import ROLES, Policy
from mpc_engine.statistics.presets import presets

FORMAT: Final = "mpc-engine/policy/1"
USUAL_K: Final = 5
"""Smaller thresholds are rare among registries."""
LARGE_EPSILON: Final = 5
"""From here on one answer may tell much of a patient: odds change by up to e^5, about 150."""
ENOUGH_SILOS: Final = 3
"""With fewer each silo, taking its own part away, is left with one other's, under the noise alone."""


def published(
    policy: Policy,
    name: str,
    dataset: str,
    snapshot_id: str,
    engine: Mapping[str, str],
    *,
    silo: bool = True,
) -> dict[str, Any]:
    """Return the policy of a party as plain fields: text, whole numbers, lists and tables.

    ``dataset`` and ``snapshot_id`` are "" at a helper; ``engine`` tells ``version`` and ``source`` (SHA-256).
    Amounts are exact, as decimal text; null stands for no limit.
    """
    budget = policy.budget
    return {
        "format": FORMAT,
        "party": name,
        "silo": silo,
        "dataset": dataset,
        "snapshot": snapshot_id,
        "engine": {"version": engine["version"], "source": engine["source"]},
        "greatest_epsilon": decimal_text(Fraction(policy.greatest_epsilon)),
        "least_threshold": policy.least_threshold,
        "rules": sorted(rule.value for rule in policy.rules),
        "greatest_delta": decimal_text(policy.greatest_delta),
        "greatest_chance_for_nobody": decimal_text(policy.greatest_chance_for_nobody),
        "presets": {preset: policy.approval_of(preset) for preset in presets()},
        "columns": None
        if policy.columns is None
        else {
            variable: [role for role in ROLES if role in roles]
            for variable, roles in sorted(policy.columns.items())
        },
        "other_columns": "all" if policy.other_columns else "never",
        "most_cells": policy.most_cells,
        "shortest_interval_days": policy.shortest_interval_days,
        "finest_bin": dict(sorted(policy.finest_bin.items())),
        "most_records_per_patient": policy.most_records_per_patient,
        "budget": {
            "epsilon": _text(budget.epsilon),
            "delta": _text(budget.delta),
            "per_analyst": _text(budget.per_analyst),
            "projects": {project: _text(amount) for project, amount in sorted(budget.projects.items())},
            "other_projects": _text(budget.other_projects),
        },
        "engines": sorted(policy.engines),
        "analysts": policy.accepts_of(silo),
    }


def policy_digest(fields: Mapping[str, Any]) -> str:
    """Return the SHA-256 of a published policy, in hexadecimal, as receipts name it."""
    return digest({"policy": dict(fields)})


def summary(fields: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a published policy in plain words: pairs of what and how, in the order of reading."""
    by_approval: dict[str, list[str]] = {"auto": [], "manual": [], "never": []}
    for preset, how in fields["presets"].items():
        by_approval[how].append(preset)
    rows = [
        ("data set", _dataset(fields)),
        ("engine", f"{fields['engine']['version']}, source {fields['engine']['source'][:16]}…"),
        ("answered at once", ", ".join(by_approval["auto"]) or "nothing"),
        ("after an operator", ", ".join(by_approval["manual"]) or "nothing"),
        ("never", ", ".join(by_approval["never"]) or "no preset is ruled out"),
        ("ε of a query", f"at most {fields['greatest_epsilon']}"),
        ("k", f"at least {fields['least_threshold']}; a smaller one asked for is answered with this"),
        ("rules", f"{', '.join(fields['rules'])}; δ at most {fields['greatest_delta']}"),
        (
            "a group of nobody",
            f"shown with a chance of at most {fields['greatest_chance_for_nobody']}",
        ),
        ("columns", _columns(fields)),
        ("grids", _grids(fields)),
        ("records of a patient", _most(fields["most_records_per_patient"], "as many as a query asks for")),
        *_budgets(fields["budget"], fields["analysts"]),
        ("analysts", _WHO[fields["analysts"]]),
        ("other engines", ", ".join(f"{each[:16]}…" for each in fields["engines"]) or "none"),
    ]
    return [(what, how) for what, how in rows if how]


def warnings(fields: Mapping[str, Any], silos: int | None = None) -> list[str]:
    """Return what somebody responsible should know of a published policy before it is used.

    ``silos`` is their number on the roster, where known.
    """
    found: list[str] = []
    if silos is not None and silos < ENOUGH_SILOS:
        found.append(
            f"Only {silos} silo{'' if silos == 1 else 's'}: each can take its own part away from a result "
            "and is left with the other's, which the joint noise alone protects."
        )
    if "exact" in fields["rules"]:
        found.append(
            "The rule exact is accepted: which cells are shown then follows the data exactly, which is "
            "statistical disclosure control and not differential privacy."
        )
    if not fields["silo"]:
        return found + _engines(fields)
    budget, greatest = fields["budget"], _number(fields["greatest_epsilon"])
    total = budget["epsilon"]
    if total is None:
        found.append(
            "No total budget (`budget.epsilon`): nothing bounds what all releases together tell of a patient."
        )
    elif greatest >= _number(total):
        found.append("A single query may spend the whole budget of the data set (`greatest_epsilon`).")
    if greatest > LARGE_EPSILON:
        found.append(
            f"ε = {fields['greatest_epsilon']} for one query is large: it may tell much of a patient."
        )
    if fields["least_threshold"] < USUAL_K:
        found.append(
            f"k may be as small as {fields['least_threshold']}; registries commonly take {USUAL_K} or more."
        )
    answered = [how for how in fields["presets"].values() if how != "never"]
    if answered and set(answered) == {"auto"}:
        found.append("Every request within these limits is answered without anybody looking at it.")
    if fields["other_columns"] == "all":
        rest = "Every variable" if fields["columns"] is None else "Every variable not listed"
        found.append(f"{rest} may be used in every way (`columns`).")
    if fields["analysts"] == "any":
        found.append("Analysts are answered whom only another party enrolled (`analysts`).")
        if budget["per_analyst"] is None:
            found.append("Such analysts have no budget of their own here (`budget.per_analyst`).")
    return found + _engines(fields)


def _engines(fields: Mapping[str, Any]) -> list[str]:
    if not fields["engines"]:
        return []
    return ["Other parties may run other engine sources than this one (`engines`): know what they are."]


_WHO = {
    "enrolled": "those whom this party enrolled",
    "any": "those whom any party enrolled",
}


def _dataset(fields: Mapping[str, Any]) -> str:
    if not fields["silo"]:
        return "none: this party holds no records"
    return f"{fields['dataset']}, snapshot {fields['snapshot'][:16] or 'not registered'}"


def _columns(fields: Mapping[str, Any]) -> str:
    columns = fields["columns"]
    if columns is None:
        return "every variable, in every way"
    listed = [f"{variable} {'/'.join(roles) if roles else 'never'}" for variable, roles in columns.items()]
    rest = "all others in every way" if fields["other_columns"] == "all" else "no other"
    return "; ".join([*listed, rest])


def _grids(fields: Mapping[str, Any]) -> str:
    found = []
    if fields["most_cells"] is not None:
        found.append(f"at most {fields['most_cells']:,} cells")
    if fields["shortest_interval_days"] is not None:
        found.append(f"follow-up in intervals of {fields['shortest_interval_days']} days or more")
    found += [
        f"{variable} in categories of {width} values or more"
        for variable, width in fields["finest_bin"].items()
    ]
    return "; ".join(found) or "as fine as a query asks for"


def _budgets(budget: Mapping[str, Any], whose: str) -> list[tuple[str, str]]:
    delta = "" if budget["delta"] is None else f", δ = {budget['delta']}"
    projects = "; ".join(f"{name} {_amount(amount)}" for name, amount in budget["projects"].items())
    others = _most(budget["other_projects"], "")
    if projects and others:
        projects += f"; each other {_amount(budget['other_projects'])}"
    unknown = _most(budget["per_analyst"], "without limit")
    others_too = "" if whose == "enrolled" else f"; enrolled elsewhere only: {unknown}"
    return [
        ("ε in all", _most(budget["epsilon"], "without limit") + delta),
        ("ε of an analyst", f"as enrolled{others_too}"),
        ("ε of a project", projects or (f"{others} each" if others else "without limit")),
    ]


def _amount(text: str) -> str:
    return "none" if text == "0" else text


def _most(amount: str | int | None, otherwise: str) -> str:
    return otherwise if amount is None else "none" if amount == "0" else f"at most {amount}"


def _number(text: str) -> Fraction:
    return Fraction(text)


def _text(amount: Fraction | None) -> str | None:
    return None if amount is None else decimal_text(amount)
