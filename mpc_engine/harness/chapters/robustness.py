"""The chapter on robustness: what befell the parties, who noticed it when, and what it cost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from mpc_engine.harness.blocks import Block, Cell, Table, Text
from mpc_engine.harness.ledgers import SPENT
from mpc_engine.harness.notice import first_notice
from mpc_engine.harness.record import Happened, Run
from mpc_engine.ledger.charge import micro_words

_ALL_RELEASED = frozenset({"RELEASED"})
_ANSWERED = frozenset({"SIGNED", "RELEASED"})
"""States of a session in which a party holds the release."""


def robustness(run: Run) -> list[Block]:
    """Return the chapter; nothing for a scenario without faults in which every question was answered."""
    smooth = {asked.state for asked in run.asked} <= _ALL_RELEASED
    if not run.faults and smooth and all(party.serves for party in run.parties.values()):
        return []
    blocks: list[Block] = []
    if run.faults:
        blocks += [_summary(run), _faults(run)]
    return [*blocks, _questions(run), _parties(run)]


def _summary(run: Run) -> Text:
    came = [each for each in run.faults if each.began_s is not None]
    noticed = [each for each in came if each.noticed_s is not None]
    released = sum(asked.release is not None for asked in run.asked)
    serving = sum(party.serves for party in run.parties.values())
    return Text(
        f"Of {len(run.faults)} faults {len(came)} came, and others noted {len(noticed)} of them"
        + (" (one that is over soon need not be noted). " if len(noticed) < len(came) else ". ")
        + f"{released} of {len(run.asked)} requests were answered, and in the end {serving} of "
        f"{len(run.parties)} parties served. {_lost(run)} Times are seconds "
        + ("of virtual time." if run.stage == "memory" else "on this machine's clock.")
    )


def _lost(run: Run) -> str:
    """Return what was paid for and never answered, and which releases a party has not kept."""
    rows = [row for party in run.parties.values() for row in party.sessions]
    answered = {row.ticket for row in rows if row.state in _ANSWERED}
    paid = {row.ticket: row.charge.micro_epsilon for row in rows if row.state in SPENT}
    lost = [micro for ticket, micro in paid.items() if ticket not in answered]
    kept = [
        sum(any(row.ticket == ticket for row in party.sessions) for party in run.parties.values())
        for ticket in answered
    ]
    missing = sum(len(run.parties) - number for number in kept)
    without = f" {missing} entries of answered sessions are missing from ledgers." if missing else ""
    if not lost:
        return "Nothing was lost: every session that was paid for was answered." + without
    sessions = "1 session" if len(lost) == 1 else f"{len(lost)} sessions"
    return f"Lost: {sessions} paid for and not answered, ε = {micro_words(sum(lost))} in all.{without}"


def _faults(run: Run) -> Table:
    columns = ("fault", "where", "at s", "noted after s", "by", "as", "session ended after s", "over after s")
    rows = [_fault(run, happened) for happened in run.faults]
    return Table(
        "Faults: when they came, when another party noted them first, when one ended a session for it, when "
        "they were over, and the ε that parties had spent just before each and in the end",
        (*columns, "ε before", "ε in the end"),
        rows,
        {name: ".3f" for name in columns if name.endswith(" s")},
    )


def _fault(run: Run, happened: Happened) -> list[Cell]:
    fault, began = happened.fault, happened.began_s
    since = "all were ready" if fault.kind == "expire" else "the question"
    where = fault.at or f"{fault.after_s:g} s after {since}"
    told = f"{fault.kind} {fault.party}" + (f" | {', '.join(fault.against)}" if fault.against else "")
    if began is None:
        return [told, where, None, None, "", "it never came", None, None, "", ""]
    aborted = first_notice(run, happened, events=("session.aborted", "session.not_published", "session.lost"))
    return [
        told,
        where,
        began,
        _after(began, happened.noticed_s),
        happened.by,
        happened.reason,
        _after(began, None if aborted is None else aborted.at_s),
        _after(began, happened.ended_s),
        _range(happened.spent_before.values()),
        _range(happened.spent_after.values()),
    ]


def _after(began: float, then: float | None) -> float | None:
    return None if then is None else max(0.0, then - began)


def _range(micros: Iterable[int]) -> str:
    found = sorted(set(micros))
    if not found:
        return ""
    return micro_words(found[0]) + (f" to {micro_words(found[-1])}" if len(found) > 1 else "")


def _questions(run: Run) -> Table:
    attempts = {
        asked.request: max(
            (sum(row.request == asked.request for row in party.sessions) for party in run.parties.values()),
            default=0,
        )
        for asked in run.asked
    }
    rows: list[list[Cell]] = [
        [
            asked.name,
            asked.state,
            asked.reason,
            asked.began_s,
            asked.ended_s - asked.began_s,
            attempts[asked.request],
        ]
        for asked in run.asked
    ]
    return Table(
        "Requests: how they ended, how long that took, and in how many sessions they were tried",
        ("question", "ended", "reason", "asked at s", "took s", "sessions"),
        rows,
        {"asked at s": ".3f", "took s": ".3f"},
    )


def _parties(run: Run) -> Table:
    rows: list[list[Cell]] = []
    for party in run.parties.values():
        states = Counter(str(row.state) for row in party.sessions)
        told = ", ".join(f"{count} {state}" for state, count in sorted(states.items()))
        rows.append([party.name, told, micro_words(run.spent(party.name)), party.verified, party.serves])
    return Table(
        "Parties in the end: their sessions, the ε they have spent, whether their audit chain holds, and "
        "whether they serve",
        ("party", "sessions", "ε spent", "chain holds", "serves"),
        rows,
    )
