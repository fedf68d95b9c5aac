"""Checks of what releases and messages give away: the audit of ε, and attacks against what theory allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Final

import numpy as np
from numpy.typing import NDArray

from mpc_engine.harness.answers import pool, sums_of
from mpc_engine.harness.attacks import (
    Attacked,
    averaging,
    differencing,
    distinct,
    membership,
    subtraction,
)
from mpc_engine.harness.audit import LEVEL, Audited, audit, opened_values, plan_of
from mpc_engine.harness.checks import checks
from mpc_engine.harness.coalition import NOTHING, Finding, Secret, across, findings, together
from mpc_engine.harness.numerals import at_least, in_runs, short
from mpc_engine.harness.record import Asked, Run, Verdict
from mpc_engine.harness.transcripts import View, read_view
from mpc_engine.release.plan import Plan
from mpc_engine.scenario.expectations import Attack, Audit
from mpc_engine.sharing.shamir import degree_for

_FAMILIES: Final = {
    "uniformity": "All that a coalition sees is uniform",
    "independence": "Nothing that it sees follows the others' counts or the noise",
    "drawn": "What its members drew themselves does not tell the noise",
    "streams": "No pad was used twice",
    "repeats": "No block of bytes occurs twice",
    "discriminant": "Every product was opened under a sharing of zero",
}


def audited(run: Run, expectation: Audit) -> Audited:
    """Return the audit of a question's first tally. Raises LookupError where there is nothing to audit."""
    asked = run.released(expectation.ask)
    line = plan_of(run, asked).lines[0]
    truth = pool(sums_of(run, asked)).records[0]
    silos = [party for party in run.scenario.party if party.mapping is not None]
    tossed = all(party.records is not None and party.records.kind == "cells" for party in silos)
    first = run.scenario.asks[0].name in (expectation.ask, asked.ask.name)
    return audit(opened_values(asked)[0], truth, line, coins=tossed and first)


@checks(Audit)
def audit_of(run: Run, expectation: Audit) -> Sequence[Verdict]:
    """Return whether the release shows no more than its ε, and whether the audit could have seen more."""
    found = audited(run, expectation)
    words = f"Events show at least {found.events.epsilon:.3f} ({found.events.what})"
    if found.one_run is not None:
        words += f", guesses at least {found.one_run.epsilon:.3f} ({found.one_run.what})"
    cells = f"{found.without:,} cells of {found.count} patients and {found.holding:,} of {found.count + 1}"
    return [
        Verdict(
            f"The release shows no more of a record than its ε = {found.stated:g} (each bound at confidence "
            f"1 − {LEVEL:g}).",
            found.epsilon <= found.stated,
            f"{words}, from {cells}.",
        ),
        Verdict(
            f"The audit could have seen more: it establishes at least {expectation.power:g} of ε.",
            found.epsilon >= expectation.power * found.stated,
            f"It establishes {found.epsilon / found.stated:.3f} of it.",
        ),
    ]


_MEANS: Final = {
    "averaging": "Averaging all answers",
    "differencing": "Taking one answer off the other",
    "subtraction": "Taking its own counts off the release",
    "membership": "Guessing who is among the patients",
}


def attacked(run: Run, expectation: Attack) -> Attacked:
    """Return what an attack on releases achieves. Raises LookupError where it cannot be tried."""
    if expectation.by == "averaging":
        return averaging(run, [expectation.ask, *variants(run, expectation.ask)])
    if expectation.by == "differencing":
        return differencing(run, expectation.ask, expectation.other)
    if expectation.by == "membership":
        return membership(run, expectation.ask, run.seed)
    return subtraction(run, expectation.ask, expectation.party or run.silos[0])


def variants(run: Run, ask: str | None) -> list[str]:
    """Return the other questions that were asked and differ from one by their title alone."""
    first = run.of(ask)
    name = ask or run.scenario.asks[0].name
    same = {**first[0].query.digest_fields(), "title": ""} if first else {}
    found = [each.ask.name for each in run.asked if {**each.query.digest_fields(), "title": ""} == same]
    return [each for each in dict.fromkeys(found) if each != name]


@checks(Attack)
def attack(run: Run, expectation: Attack) -> Sequence[Verdict]:
    """Return whether an attacker achieves no more than theory allows, and whether all was paid for."""
    if expectation.by == "coalition":
        return _coalition(run, expectation)
    found = attacked(run, expectation)
    beyond, so = ("above", "much or more") if found.by == "membership" else ("below", "little or less")
    who = expectation.party or run.silos[0] if found.by == "subtraction" else "the attacker"
    verdicts = [
        Verdict(
            f"{_MEANS[found.by]}, {who} does no better than theory allows: the {found.measure} is not "
            f"{beyond} {found.theory:.4g} by more than chance explains ({at_least(expectation.p_least)}).",
            found.p >= expectation.p_least,
            f"{found.achieved:.4g} over {found.values:,} values; chance gives so {so} {in_runs(found.p)} "
            f"(p = {short(found.p)}, of {found.tested}).",
        ),
        Verdict(
            f"The attack by {who} could have shown more: without any noise chance would hardly ever explain "
            f"what it finds (p < {short(expectation.p_least)}).",
            found.least < expectation.p_least,
            f"It would do so {in_runs(found.least)} (p = {short(found.least, '.2g')}).",
        ),
    ]
    if expectation.by in ("averaging", "differencing"):
        verdicts.append(
            Verdict(
                f"Each answer of the run was paid for, ε = {float(found.owed):g} in all.",
                found.paid_for,
                f"Every silo's ledger says at least {float(found.paid):g}.",
            )
        )
    if expectation.by == "averaging":
        verdicts += _one_release(run)
    return verdicts


def _one_release(run: Run) -> list[Verdict]:
    """Return whether each question that was asked several times has one release; nothing if none was."""
    repeated = [ask for ask in run.scenario.asks if ask.times > 1]
    if not repeated:
        return []
    many = {ask.name: len(distinct(run, [ask.name])) for ask in repeated}
    times = sum(ask.times for ask in repeated)
    return [
        Verdict(
            "The very same question is answered with the very same release.",
            all(number == 1 for number in many.values()),
            f"Asked {times} times it had {sum(many.values())}.",
        )
    ]


# --- coalitions -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Listened:
    """What coalitions found: `who` they were, findings by family, and messages that could not be read."""

    who: str
    findings: Sequence[Finding]
    unread: int


def coalition(run: Run, expectation: Attack) -> Listened:
    """Return what coalitions find in all that they saw. Raises LookupError where nothing was kept."""
    sessions = sessions_of(run)
    computing = sessions[0][1].computing
    whole: list[Finding] = []
    unread = 0
    for members in coalitions(run, computing, expectation.party):
        kept: list[list[View]] = []
        for asked, plan, patterns in sessions:
            views = [view_of(run, asked, plan, name, patterns) for name in members]
            unread += sum(view.unread for view in views)
            whole += findings(views, secrets_of(run, asked, members))
            kept.append(views)
        if len(kept) > 1:
            whole.append(across(kept))
    t = degree_for(computing)
    who = "each party alone" if t == 1 else f"every {t} computing parties together, and each other silo"
    return Listened(f"{expectation.party} alone" if expectation.party else who, together(whole), unread)


def _coalition(run: Run, expectation: Attack) -> Sequence[Verdict]:
    found = coalition(run, expectation)
    tests = sum(each.tests for each in found.findings)
    verdicts = [
        Verdict(
            f"Everything that parties saw was read: {found.who}.",
            found.unread == 0 and tests > 0,
            f"{found.unread} messages were not as the plan says; {tests:,} tests.",
        )
    ]
    for each in found.findings:
        p = min(1.0, each.p * len(found.findings))
        verdicts.append(
            Verdict(
                f"{_FAMILIES[each.family]} ({at_least(expectation.p_least)}).",
                each.tests > 0 and p >= expectation.p_least,
                f"{each.tests:,} tests; chance gives so unlikely a result among them {in_runs(p)} "
                f"(p = {short(p)} for all; the least likely: {each.worst or 'none'})."
                if each.tests
                else "Nothing was there to be tested.",
            )
        )
    return verdicts


def coalitions(run: Run, computing: int, party: str | None) -> list[tuple[str, ...]]:
    """Return who listens: `party`, or all sets of t computing parties and each input-only silo alone."""
    if party is not None:
        return [(party,)]
    names = [member.name for member in run.members]
    inside, outside = names[:computing], names[computing:]
    return [*combinations(inside, degree_for(computing)), *((name,) for name in outside)]


def sessions_of(run: Run) -> list[tuple[Asked, Plan, list[NDArray[np.bool_]]]]:
    """Return every session that released: a request, its plan, and which groups of each kind were shown.

    Raises LookupError if there is none, or nobody kept what parties saw.
    """
    if not any(party.seen for party in run.parties.values()):
        raise LookupError("nobody kept what parties saw: a coalition needs the stage `memory`")
    found = []
    for asked in distinct(run, [ask.name for ask in run.scenario.asks]).values():
        plan, values = plan_of(run, asked), opened_values(asked)
        guards = [each for line, each in zip(plan.lines, values, strict=True) if line.guard]
        found.append((asked, plan, [~np.isnan(each) for each in guards]))
    return found


def view_of(run: Run, asked: Asked, plan: Plan, name: str, pattern: Sequence[NDArray[np.bool_]]) -> View:
    """Return what a party saw in the session that answered a request."""
    session = bytes.fromhex(str((asked.release or {})["session"]["session_id"]))
    party = run.parties[name]
    seen = [each for each in party.seen if each.session == session]
    return read_view(plan, party.number, seen, pattern)


def secrets_of(run: Run, asked: Asked, members: Sequence[str]) -> list[Secret]:
    """Return what a coalition must not learn: the other silos' true sums, and the noise of what is shown."""
    sums = sums_of(run, asked)
    others = {name: each for name, each in sums.items() if name not in members}
    truths = pool(sums).records
    secrets = []
    for number, values in enumerate(opened_values(asked)):
        if others:
            secrets.append(Secret("the others' counts", number, pool(others).records[number]))
        shown = np.nan_to_num(values).astype(np.int64)
        noise = np.where(np.isnan(values), NOTHING, shown - truths[number])
        secrets.append(Secret("noise", number, noise))
    return secrets
