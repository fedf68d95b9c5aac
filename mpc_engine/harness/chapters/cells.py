"""The chapter on utility, cell by cell: what is left of a table, what is published, and the noise itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from mpc_engine.dp.accounting import publication_probability
from mpc_engine.dp.calibrate import MOST_COMPARED_BITS, total_variation
from mpc_engine.harness.alternatives import Kept, classes, guessed, ideal_variance, kept, per_unit
from mpc_engine.harness.blocks import Block, Cell, Table, Text
from mpc_engine.harness.chapters.answered import Answered
from mpc_engine.harness.checks.utility import compared
from mpc_engine.harness.numerals import short
from mpc_engine.harness.report.charts import bars


def left(answered: Answered) -> list[Block]:
    """Return what is left of the table under each way, in expectation, and of the first release as it was."""
    question = answered.question
    first, *others = kept(question, answered.sums)
    known = others[0]
    read = replace(guessed(question, answered.sums), whole=first.whole)
    ways = [first, read, *others, _as_it_was(answered)]
    none, few, enough = classes(question, answered.pooled)
    k = question.guarantee.threshold
    columns = [
        "",
        "private",
        f"0 ({none})",
        f"1–{k - 1} ({few})",
        f"{k}+ ({enough})",
        "whole",
        "error",
        "hidden",
        "total",
    ]
    rows: list[list[Cell]] = [
        [
            way.name,
            way.private or "no",
            way.empty,
            way.few,
            way.enough,
            way.whole,
            way.error,
            way.lost,
            way.total,
        ]
        for way in ways
    ]
    drawn = [way for way in ways if way is not known]  # whole cells alone lose nearly all
    return [
        Table(
            "What is left of the table: groups shown by true number of patients, and those shown whole; then "
            "the absolute error of shown counts, records in hidden ones, and both, expected over the noise"
            + _counted(answered),
            columns,
            rows,
            dict.fromkeys(columns[2:], ".1f"),
        ),
        _sites(answered),
        bars(
            "Absolute error of the whole table",
            [way.name for way in drawn],
            {
                "error of shown cells": [way.error for way in drawn],
                "records in hidden cells": [way.lost for way in drawn],
            },
            axis="records",
        ),
    ]


def _counted(answered: Answered) -> str:
    """Return what the errors and records of a table are added up over, where that is more than one tally."""
    names = [line.allotment.part.name.replace("_", " ") for line in answered.question.lines if line.counts]
    if len(names) < 2:
        return ""
    return (
        f", added up over the {len(names)} counts of this question ({', '.join(names)}), so that one record "
        "can count in each of them"
    )


def _sites(answered: Answered) -> Table:
    """Return what each site could tell of the table by itself."""
    question, k = answered.question, answered.question.guarantee.threshold
    guards = [at for at, line in enumerate(question.lines) if line.guard]
    whole = sum(int(answered.pooled.records[at].sum()) for at in guards)
    rows: list[list[Cell]] = []
    for name, own in answered.sums.items():
        patients = np.concatenate(own.patients)
        records = sum(int(own.records[at].sum()) for at in guards)
        masked = sum(int(np.where(own.records[at] < k, 0, own.records[at]).sum()) for at in guards)
        rows.append(
            [name, records, int((patients > 0).sum()), int((patients >= k).sum()), masked, whole - records]
        )
    return Table(
        "Each site alone: records in the groups, groups that hold anybody, and those that it may show",
        ["site", "records", "groups held", f"groups of {k}+", "records after masking", "records elsewhere"],
        rows,
        dict.fromkeys(["records", "records after masking", "records elsewhere"], ",d"),
    )


def _as_it_was(answered: Answered) -> Kept:
    """Return what the first release left."""
    question, release, k = answered.question, answered.releases[0], answered.question.guarantee.threshold
    shown = np.zeros(3)
    error = lost = 0.0
    for at, line in enumerate(question.lines):
        seen = ~np.isnan(release.values[at])
        if line.guard:
            held = answered.pooled.patients[line.group][seen]
            shown += np.array([(held == 0).sum(), ((held > 0) & (held < k)).sum(), (held >= k).sum()])
        if line.counts:
            error += float(np.abs(release.errors(at)).sum())
            lost += float(answered.pooled.records[at][~seen].sum())
    private = f"ε = {question.query.privacy.epsilon}"
    empty, few, enough = map(float, shown)
    return Kept("this release", private, empty, few, enough, enough, error, lost)


def published(answered: Answered) -> list[Block]:
    """Return how many groups were shown, by true number of patients, and how many theory expects."""
    guarantee, k = answered.question.guarantee, answered.question.guarantee.threshold
    most = 2 * k + 2
    found = np.zeros((3, most + 2))  # groups, shown, expected; by patients, the last for all above
    for release in answered.releases:
        for at, line in enumerate(answered.question.lines):
            if not line.guard:
                continue
            patients, records = release.pooled.patients[line.group], release.pooled.records[at]
            pairs, kinds, times = np.unique(
                np.stack([patients, records]), axis=1, return_inverse=True, return_counts=True
            )
            chances = [
                float(publication_probability(guarantee, held, rows, at)) for held, rows in pairs.T.tolist()
            ]
            shown = np.bincount(kinds.reshape(-1), ~np.isnan(release.values[at]), times.size)
            columns = np.minimum(pairs[0], most + 1)
            for row, weights in enumerate((times, shown, times * np.array(chances))):
                found[row] += np.bincount(columns, weights, most + 2)
    listed: list[list[Cell]] = [
        [str(held) if held <= most else f"above {most}", int(total), int(seen), expected]
        for held, (total, seen, expected) in enumerate(found.T.tolist())
        if total
    ]
    return [
        Table(
            "Groups published, by true number of patients",
            ["patients", "groups", "shown", "expected"],
            listed,
            {"expected": ".2f"},
        )
    ]


def noise(answered: Answered) -> list[Block]:
    """Return each part's noise, exact, and how it compares with a curator's and with noise at each site."""
    sites = len(answered.sums)
    rows: list[list[Cell]] = []
    for line in answered.question.lines:
        table = line.allotment.table
        ideal = ideal_variance(per_unit(line)) ** 0.5
        summed = table.K <= MOST_COMPARED_BITS
        rows.append(
            [
                line.allotment.part.name,
                line.tally.grid.cells,
                float(line.allotment.epsilon),
                float(table.variance) ** 0.5,
                ideal,
                sites**0.5 * ideal,
                float(total_variation(table)) if summed else None,
            ]
        )
    found = compared(answered.run, answered.asked[0].ask.name)
    alike = "no value was shown with certainty, so no errors were compared"
    if found.values:
        alike = (
            f"over {found.values:,} published values the root mean square error is {found.release:.3f} of "
            f"the ideal noise's, over {found.draws:,} draws of OpenDP {found.curator:.3f}; a small p would "
            f"tell the two apart, and p = {short(found.p_alike, '.2g')}"
        )
    words = (
        f"Beside a trusted curator: {alike}. Noise of the same ε at each of {sites} sites is √{sites} = "
        f"{found.factor:.4f} times as large in theory"
    )
    if found.draws:
        words += f"; drawn, it is {found.local / found.curator:.3f} times as large"
    return [
        Table(
            "Noise of each part: standard deviations, and the exact total variation distance of the noise "
            "table from discrete Laplace",
            [
                "part",
                "cells",
                "ε",
                "MPC",
                "trusted curator",
                f"noise at each of {sites} sites",
                "total variation",
            ],
            rows,
            {"cells": ",d", "total variation": ".3g"},
        ),
        Text(f"{words}."),
    ]
