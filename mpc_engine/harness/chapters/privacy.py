"""The chapter on privacy: what is promised, how far that is exact, what was measured, and who saw what."""

from __future__ import annotations

from collections import Counter
from typing import Final

from mpc_engine.errors import EngineError
from mpc_engine.harness.attacks import Attacked, distinct
from mpc_engine.harness.audit import LEVEL, exact, plan_of
from mpc_engine.harness.blocks import Block, Cell, Table, Text
from mpc_engine.harness.checks.privacy import attacked, audited, coalition
from mpc_engine.harness.numerals import in_symbols, short
from mpc_engine.harness.record import Asked, PartyRecord, Run
from mpc_engine.harness.report.charts import bars
from mpc_engine.runtime.link import Section
from mpc_engine.scenario.expectations import Attack, Audit

_SECTIONS: Final = (Section.PREPARE, Section.INPUT, Section.TEST, Section.PATTERN, Section.VALUES)
_COALITION: Final = {
    "uniformity": "anything not uniform",
    "independence": "a trace of the others' counts or of the noise",
    "drawn": "the noise in what a party drew itself",
    "streams": "a pad used twice",
    "repeats": "a block of 16 bytes that occurs twice",
    "discriminant": "an opened product without a sharing of zero",
}


def privacy(run: Run) -> list[Block]:
    """Return the chapter; nothing where nothing was released."""
    try:
        released = list(distinct(run, [ask.name for ask in run.scenario.asks]).values())
    except LookupError:
        return []
    blocks: list[Block] = [_parameters(run, released), *_statements(run, released), _bounds(run, released)]
    for part in (_audits, _attacks, _coalitions):
        blocks += part(run)
    return [*blocks, *_seen(run), _openings(released)]


def _parameters(run: Run, released: list[Asked]) -> Table:
    rows: list[list[Cell]] = []
    for asked in released:
        guarantee = plan_of(run, asked).guarantee
        delta = asked.release["parameters"]["truncation_delta_log2"] if asked.release else ""
        strict = f"{short(float(guarantee.strict_delta))} + " if guarantee.strict_delta else ""
        rows.append(
            [
                asked.name,
                guarantee.rule.value,
                guarantee.threshold,
                guarantee.cap,
                float(guarantee.epsilon),
                f"{strict}2^{delta}" if guarantee.differentially_private else "no bound",
            ]
        )
    return Table(
        "Parameters of each release; ε and δ are for one patient's records at one silo",
        ("question", "rule", "k", "records per patient", "ε", "δ at most"),
        rows,
        {"k": "d", "records per patient": "d", "ε": "g"},
    )


def _statements(run: Run, released: list[Asked]) -> list[Text]:
    """Return what is promised of the releases, each promise once."""
    found = dict.fromkeys(in_symbols(plan_of(run, asked).guarantee.statement()) for asked in released)
    return [Text(f"{statement[0].upper()}{statement[1:]}.") for statement in found]


def _bounds(run: Run, released: list[Asked]) -> Table:
    rows: list[list[Cell]] = []
    known: set[str] = set()
    for asked in released:
        for line in plan_of(run, asked).lines:
            table = line.allotment.table
            if table.digest() in known:
                continue
            known.add(table.digest())
            found = exact(table)
            rows.append(
                [
                    line.allotment.part.name,
                    float(found.stated),
                    found.epsilon,
                    f"2^{found.delta_log2}",
                    found.deviation,
                    found.limit,
                    found.coins,
                    found.random_bits,
                    found.widest,
                ]
            )
    return Table(
        "The noise tables, verified in exact arithmetic: the greatest log-ratio of neighbouring "
        "probabilities is at most ε per unit. A value takes one toss of each coin, and a sign",
        (
            "part",
            "ε per unit",
            "exact ε",
            "δ of the range",
            "standard deviation",
            "largest",
            "coins",
            "random bits",
            "widest coin, bits",
        ),
        rows,
        {
            "ε per unit": ".6g",
            "exact ε": ".9f",
            "standard deviation": ".4f",
            **dict.fromkeys(("largest", "coins", "random bits", "widest coin, bits"), ",d"),
        },
    )


def _audits(run: Run) -> list[Block]:
    rows: list[list[Cell]] = []
    for expectation in run.scenario.expect:
        if not isinstance(expectation, Audit):
            continue
        try:
            found = audited(run, expectation)
        except (EngineError, LookupError):
            continue
        one = found.one_run
        rows.append(
            [
                expectation.ask or run.scenario.asks[0].name,
                f"{found.without:,} of {found.count}, {found.holding:,} of {found.count + 1}",
                found.stated,
                found.events.epsilon,
                found.events.what,
                None if one is None else one.epsilon,
                "nobody tossed coins over who is there" if one is None else one.what,
            ]
        )
    if not rows:
        return []
    table = Table(
        f"Audit: lower bounds on ε from the release itself, each at confidence 1 − {LEVEL:g}",
        ("question", "cells of patients", "ε stated", "by event sets", "event", "by one run", "guesses"),
        rows,
        {"ε stated": "g", "by event sets": ".4f", "by one run": ".4f"},
    )
    words = (
        "A bound above the stated ε would convict the release; one near it says that a fault would have "
        "been seen. Event sets compare cells that differ by one patient in every event; the one-run audit "
        "guesses, from the release, the coins that decided who is there [Steinke23]."
    )
    return [table, Text(words, "note")]


def _attacks(run: Run) -> list[Block]:
    found: list[Attacked] = []
    names: list[str] = []
    for expectation in run.scenario.expect:
        if isinstance(expectation, Attack) and expectation.by != "coalition":
            try:
                found.append(attacked(run, expectation))
            except (EngineError, LookupError):
                continue
            who = expectation.by == "subtraction" and (expectation.party or run.silos[0])
            names.append(f"{expectation.by} by {who}" if who else expectation.by)
    if not found:
        return []
    rows: list[list[Cell]] = [
        [
            name,
            each.measure,
            each.achieved,
            each.theory,
            each.without,
            each.p,
            each.values,
            f"{each.answers} of {each.requests}",
            float(each.owed),
            float(each.paid),
        ]
        for name, each in zip(names, found, strict=True)
    ]
    table = Table(
        "Attacks on the releases: what was achieved, what theory allows at best, and what there is without "
        "the attack; p is the chance, against an engine that keeps its promise, of so small a mean absolute "
        "error, or of so many right guesses",
        (
            "attack",
            "measure",
            "achieved",
            "theory",
            "without",
            "p",
            "values",
            "answers of requests",
            "ε owed in all",
            "ε paid",
        ),
        rows,
        {
            **dict.fromkeys(("achieved", "theory", "without"), ".4f"),
            "p": ".2g",
            "values": ",d",
            "ε owed in all": "g",
            "ε paid": "g",
        },
    )
    picture = bars(
        "Attacks: achieved against theory. An error below theory, or an advantage above it, beyond chance, "
        "would be a leak",
        names,
        {"achieved": [each.achieved for each in found], "theory": [each.theory for each in found]},
        axis="error in patients, or advantage",
    )
    if not any(each.by == "subtraction" for each in found):
        return [table, picture]
    words = (
        "What is left of a release after a silo's own counts are taken off errs by just what the release "
        "errs: so much is "
        "arithmetic, and the same for every silo. What is tested is that this is the whole noise."
    )
    return [table, picture, Text(words, "note")]


def _coalitions(run: Run) -> list[Block]:
    blocks: list[Block] = []
    for expectation in run.scenario.expect:
        if not isinstance(expectation, Attack) or expectation.by != "coalition":
            continue
        try:
            found = coalition(run, expectation)
        except (EngineError, LookupError):
            continue
        rows: list[list[Cell]] = [
            [_COALITION[each.family], each.tests, each.p, each.worst] for each in found.findings
        ]
        blocks.append(
            Table(
                f"Looked for in all that parties saw ({found.who}); p is corrected for the number of tests",
                ("looked for", "tests", "p", "least likely"),
                rows,
                {"tests": ",d", "p": ".2g"},
            )
        )
    return blocks


def _seen(run: Run) -> list[Block]:
    """Return how many messages and bytes each party received, by section where it was kept."""
    parties = sorted(run.parties.values(), key=lambda party: party.number)
    kept = any(party.seen for party in parties)
    columns = ["party", "role"]
    columns += (
        [f"{section.name.lower()}, kB" for section in _SECTIONS] if kept else ["received, kB", "sent, kB"]
    )
    rows = [[party.name, _role(party), *(_received(party) if kept else _usage(party))] for party in parties]
    if not any(isinstance(cell, float) and cell for row in rows for cell in row):
        return []
    words = "What each party received, by section of the sessions" if kept else "What travelled, by party"
    table = Table(f"{words}; shares and masked values, control messages apart", columns, rows)
    table.digits.update({column: ",.1f" for column in columns[2:]})
    return [table]


def _role(party: PartyRecord) -> str:
    if not party.computing:
        return "input-only silo"
    return "silo, computes" if party.silo else "helper"


def _received(party: PartyRecord) -> list[Cell]:
    sizes = Counter[Section]()
    for each in party.seen:
        if each.what == "received":
            sizes[each.key.section] += len(each.content)
    return [sizes[section] / 1000 for section in _SECTIONS]


def _usage(party: PartyRecord) -> list[Cell]:
    return [party.usage.received_bytes / 1000, party.usage.sent_bytes / 1000]


def _openings(released: list[Asked]) -> Table:
    opened = Counter[tuple[str, str]]()
    for asked in released:
        for opening in (asked.release or {})["openings"]:
            opened[str(opening["section"]), str(opening["what"])] += int(opening["opened"])
    return Table(
        "All that was opened for the releases, by their own account, together",
        ("section", "what", "values"),
        [[section, what, number] for (section, what), number in opened.items()],
        {"values": ",d"},
    )
