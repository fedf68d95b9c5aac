"""Scenarios as if they had been played: releases made in memory, or made up, in runs laid out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mpc_engine.codebook import load_codebook
from mpc_engine.harness.answers import Question
from mpc_engine.harness.record import Asked, Run
from mpc_engine.release.plan import Member
from mpc_engine.release.table import Release
from mpc_engine.scenario.document import Scenario, changed, load_scenario
from mpc_engine.silo.register import load_registration, register
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.presets import load_query, parse_query
from mpc_engine.statistics.query import Query
from tests import world

ROOT = Path(__file__).parents[2]
Rows = list[np.ndarray]
"""A silo's sums: one array per tally, a guard's with two rows."""


def query_of(scenario: Scenario, ask: str) -> Query:
    """Return the query of one question."""
    (found,) = [each for each in scenario.asks if each.name == ask]
    query = load_query(scenario.path(found.query))
    return parse_query(changed(query.digest_fields(), found.change), ask) if found.change else query


def released(query: Query, run: Run, counts: Sequence[Rows], seed: int) -> Release:
    """Return the release of a whole session in memory; the first three parties compute."""
    privacy = query.privacy
    held: list[Any] = [*counts, *[None] * (3 - len(counts))]
    outcome = world.release(
        held,
        computing=3,
        seed=seed,
        groups=query.layout(run.codebook).groups,
        epsilon=privacy.epsilon,
        rule=Question(query, run.codebook).guarantee.rule,
        threshold=privacy.threshold,
        cap=privacy.max_records_per_patient,
    )
    return replace(outcome.releases[0], query=query.digest_fields())


def play(path: Path, folder: Path, asks: Sequence[str] | None = None, seed: int = 7) -> Run:
    """Return a scenario's run: records registered in ``folder``, each question answered once in memory."""
    scenario = load_scenario(path)
    run = empty(scenario)
    registered: dict[str, Path] = {}
    for party in scenario.ordered:
        if party.mapping is not None:
            registered[party.name] = folder / party.name
            register(scenario.path(party.mapping), registered[party.name])
    run = replace(run, registered=registered)
    for number, ask in enumerate(scenario.asks):
        if asks is None or ask.name in asks:
            query = query_of(scenario, ask.name)
            counts = [
                list(tabulate(query, run.codebook, load_registration(each)).take())
                for each in registered.values()
            ]
            answer(run, ask.name, query, dict(zip(registered, counts, strict=True)), seed + number)
    return run


def empty(scenario: Scenario) -> Run:
    """Return the run of a scenario in which nothing was asked."""
    members = tuple(
        Member(party.name, party.computing, party.mapping is not None, f"sha256:{number}", 1 << 20)
        for number, party in enumerate(scenario.ordered)
    )
    names = {party.name: Path() for party in scenario.ordered if party.mapping is not None}
    return Run(scenario, "memory", 1, load_codebook(scenario.path(scenario.codebook)), members, names)


def answer(
    run: Run,
    ask: str,
    query: Query,
    sums: Mapping[str, Rows],
    seed: int,
    ticket: str = "",
    counted: Mapping[str, Rows] | None = None,
) -> Asked:
    """Answer a question of a run from the silos' ``sums``; ``counted`` is what the parties bring instead."""
    brought = sums if counted is None else counted
    fields = released(query, run, list(brought.values()), seed).as_fields()
    (asked,) = [each for each in run.scenario.asks if each.name == ask]
    number = sum(each.ask.name == ask for each in run.asked)
    found = Asked(
        asked, number, query, "ab" * 16, "RELEASED", "", "", ticket or f"{ask}{number}", 0, 1, fields
    )
    run.asked.append(found)
    run._sums[query.digest()] = {
        name: [np.asarray(x).reshape(-1) for x in rows] for name, rows in sums.items()
    }
    return found


TABLE = """
query = "query.toml"
codebook = "codebook.toml"
[policy]
greatest_epsilon = "1"
least_threshold = 5
[[party]]
name = "a"
mapping = "a.toml"
[[party]]
name = "b"
mapping = "b.toml"
[[party]]
name = "c"
mapping = "c.toml"
"""


@cache
def _document(folder: Path, cells: int) -> Scenario:
    (folder / "codebook.toml").write_text(
        'name = "cells"\nversion = "1"\n[variables.cell]\nkind = "integer"\nunit = "places"\n'
        f"lower = 0\nupper = {cells - 1}\n"
    )
    (folder / "query.toml").write_text('preset = "crosstab"\nby = ["cell"]\n[privacy]\nepsilon = "1"\n')
    (folder / "table.toml").write_text(TABLE)
    return load_scenario(folder / "table.toml")


def table(folder: Path, sums: Mapping[str, np.ndarray], **privacy: Any) -> tuple[Run, Query]:
    """Return the run of a made-up table in which nothing was asked yet, and its query.

    ``sums`` are the counts of the silos a, b and c, one patient each.
    """
    scenario = _document(folder, next(iter(sums.values())).size)
    query = load_query(folder / "query.toml")
    if privacy:
        query = parse_query(changed(query.digest_fields(), {"privacy": privacy}), "query")
    return empty(scenario), query


def rows(counts: np.ndarray) -> Rows:
    """Return counts of patients with one record each as a silo's sums."""
    return [np.stack([counts, counts])]


def doctored(asked: Asked, values: Sequence[int | None]) -> Asked:
    """Return an answered request whose release holds other values."""
    assert asked.release is not None
    fields = dict(asked.release)
    groups = [dict(each) for each in fields["groups"]]
    groups[0] = {**groups[0], "tallies": [{**groups[0]["tallies"][0], "values": list(values)}]}
    return replace(asked, release={**fields, "groups": groups})


def noise(epsilon: Fraction, size: int, rng: np.random.Generator) -> np.ndarray:
    """Return discrete Laplace noise in another way than the engine: a difference of geometric numbers."""
    p = 1 - float(np.exp(-float(epsilon)))
    return np.asarray(rng.geometric(p, size) - rng.geometric(p, size))
