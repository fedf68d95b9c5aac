"""Runs made up for the attacks: true sums and noise as a test wants them, everything else as in service."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mpc_engine.codebook import load_codebook
from mpc_engine.dp.noise_table import NoiseTable
from mpc_engine.harness.noise_law import law_of
from mpc_engine.harness.record import Asked, PartyRecord, Run
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member, Plan
from mpc_engine.release.publication import Published
from mpc_engine.release.table import Release
from mpc_engine.scenario.document import load_scenario
from mpc_engine.statistics.presets import parse_query
from tests.harness.staged import HEAD, PARTIES

CODEBOOK = (
    'name = "a"\nversion = "1"\n[variables.cell]\nkind = "integer"\nunit = "cells"\nlower = 1\nupper = {n}\n'
)
QUERY = 'preset = "crosstab"\nby = ["cell"]\n[privacy]\nepsilon = "1"\n'
SCENARIO = HEAD + PARTIES
Noise = Callable[[int, int], np.ndarray]
"""The noise of a question's cells, by the question's number and the number of cells."""


def drawn(table: NoiseTable, seed: int) -> Noise:
    """Noise from a table, fresh for each question."""
    law = law_of(table)
    chances = law.chances / law.chances.sum()

    def noise(number: int, cells: int) -> np.ndarray:
        return np.random.default_rng([seed, number]).choice(law.support, cells, p=chances)

    return noise


def made_up(
    folder: Path,
    counts: Sequence[Mapping[str, np.ndarray]],
    noise: Noise,
    *,
    asks: str = "",
    spent: int | None = None,
    titles: Sequence[str] = (),
    agreed: int = 5,
) -> Run:
    """Return a run in which each question was answered with the silos' counts and the noise.

    `counts` are by question and silo; `asks` are the scenario's questions and expectations, by default one
    of each name "q0", "q1", …; `spent` is every silo's micro-ε, by default that of all questions; `agreed`
    is the threshold that the parties agreed on, of five or more.
    """
    cells = len(next(iter(counts[0].values())))
    texts = {"codebook.toml": CODEBOOK.format(n=cells), "query.toml": QUERY, "mapping.toml": ""}
    usual = "".join(f'[[ask]]\nname = "q{i}"\nquery = "query.toml"\n' for i in range(len(counts)))
    for name, text in {**texts, "scenario.toml": SCENARIO + (asks or usual)}.items():
        (folder / name).write_text(text)
    scenario = load_scenario(folder / "scenario.toml")
    codebook = load_codebook(folder / "codebook.toml")
    members = tuple(Member(name, True, name != "helper", name, 1 << 24) for name in ("one", "two", "helper"))
    run = Run(scenario, "memory", 1, codebook, members, {"one": folder, "two": folder})
    for number, held in enumerate(counts):
        title = titles[number] if titles else f"question {number}"
        query = parse_query(
            {"preset": "crosstab", "by": ["cell"], "title": title, "privacy": {"epsilon": "1"}}
        )
        plan = propose(query, codebook, members).plan(agreed)
        noisy = sum(held.values()) + noise(number, cells)
        shown = noisy >= agreed
        published = Published((shown,), (np.where(shown, noisy, 0),))
        session = {"session_id": bytes([number] * 16).hex()}
        release = Release(plan, query.digest_fields(), published, session).as_fields()
        ask = scenario.asks[min(number, len(scenario.asks) - 1)]
        run.asked.append(Asked(ask, 0, query, f"r{number}", "RELEASED", "", "", f"t{number}", 0, 1, release))
        run._sums[query.digest()] = {
            name: [np.stack([each, each]).reshape(-1)] for name, each in held.items()
        }
    cost = len(counts) * 10**6 if spent is None else spent
    run.parties = {
        member.name: PartyRecord(member.name, number, True, member.silo, spent=cost)
        for number, member in enumerate(members, start=1)
    }
    return run


def plan_of_first(run: Run) -> Plan:
    """Return the plan of the first question."""
    return propose(run.asked[0].query, run.codebook, run.members).plan(5)


def text_of(verdicts: Sequence[Any]) -> str:
    """Return verdicts as text."""
    return "\n".join(f"{verdict.holds}: {verdict.claim} {verdict.found}" for verdict in verdicts)
