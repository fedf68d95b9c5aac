"""The noise part of standard errors against the spread of statistics under drawn noise.

The strata of one release are the repetitions: equal cohorts, each with noise of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.dp.accounting import Rule, guarantee_for
from mpc_engine.release.groups import parts_of
from mpc_engine.statistics.presets import parse_query
from tests.statistics.edge.registries import laplace, pick, table, with_noise

REPETITIONS = 2500
SEED = 8
CODEBOOK = parse(
    {
        "name": "repetitions",
        "version": "1",
        "variables": {
            "repetition": {"kind": "category", "categories": [f"r{i}" for i in range(REPETITIONS)]},
            "sex": {"kind": "category", "categories": ["F", "M"]},
            "age": {"kind": "integer", "unit": "years", "lower": 0, "upper": 99},
            "status": {"kind": "category", "categories": ["alive", "dead"]},
            "days": {"kind": "integer", "unit": "days", "lower": 0, "upper": 7000},
            "diagnosed": {"kind": "date", "lower": "1990-01-01", "upper": "2015-12-31"},
        },
    },
    Codebook,
    str(Path(__file__)),
)
FOLLOWED = {
    "time": "days",
    "event": {"variable": "status", "in": ["dead"]},
    "grid": {"edges": [1, 2, 3, 4, 5]},
}
PERIOD = {"approach": "period", "diagnosed": "diagnosed", "window": ["2000-01-01", "2005-12-31"]}


def noisy(document: dict[str, Any], epsilon: str, people: int, entries: tuple[int, ...] = ()) -> pd.DataFrame:
    """Return the table of equal cohorts with noise as the release draws it; ``entries`` of a period."""
    print(f"seed {SEED}")
    query = parse_query({"privacy": {"epsilon": epsilon}, "by": ["repetition"], **document})
    layout = query.layout(CODEBOOK)
    guarantee = guarantee_for(query.privacy.epsilon_exact, parts_of(layout.groups), Rule.NOISY, 5)
    draw = np.random.default_rng(SEED)
    sums = [np.rint(each) for each in query.typical(CODEBOOK, layout, people * REPETITIONS)]
    noise = []
    if entries:
        sums[-1] = np.tile(entries, REPETITIONS)
    for allotment, row in zip(guarantee.allotments, sums, strict=True):
        noise.append(laplace(draw, float(allotment.epsilon) / allotment.part.step, row.shape))
    variances = [float(each.table.variance) for each in guarantee.allotments]
    return table(query, CODEBOOK, with_noise(query, CODEBOOK, sums, variances, noise))


def compare(frame: pd.DataFrame, statistic: str, tolerance: float, **labels: str) -> None:
    found = pick(frame, statistic, **labels)
    found = found[found["repetition"] != "(all)"]
    for _, rows in found.groupby("time", dropna=False):
        # Noise may leave a variance that says nothing, rarely.
        assert rows["flag"].isin(["ok", "t"]).mean() > 0.998
        stated = np.sqrt(np.mean(rows["se_noise"] ** 2))
        assert stated == pytest.approx(rows["value"].std(), rel=tolerance), statistic


@pytest.mark.parametrize("method", ["kaplan-meier", "actuarial"])
def test_survival(method: str) -> None:
    frame = noisy({"preset": "survival", **FOLLOWED, "method": method, "conditional_on": [1]}, "1", 400)
    for statistic in ("patients", "survival", "at_risk", "events", "censored", "conditional_survival_1y"):
        compare(frame, statistic, 0.12)


def test_many_small_strata_together_are_not_too_many() -> None:
    """2,500 strata of 4 people, shown where noise brings the guard to 5: their guards add up to far too
    many, their curve has as many at risk as there are."""
    print(f"seed {SEED}")
    query = parse_query({"preset": "survival", "privacy": {"epsilon": "1"}, "by": ["repetition"], **FOLLOWED})
    layout = query.layout(CODEBOOK)
    guarantee = guarantee_for(query.privacy.epsilon_exact, parts_of(layout.groups), Rule.NOISY, 5)
    draw = np.random.default_rng(SEED)
    row = np.zeros(11)
    row[0], row[-1] = 1, 3
    sums = [np.full(REPETITIONS, 4.0), np.tile(row, REPETITIONS)]
    noise = [
        laplace(draw, float(allotment.epsilon), each.shape)
        for allotment, each in zip(guarantee.allotments, sums, strict=True)
    ]
    variances = [float(each.table.variance) for each in guarantee.allotments]
    hidden = sums[0] + noise[0] < 5
    frame = table(query, CODEBOOK, with_noise(query, CODEBOOK, sums, variances, noise, hidden))
    true = 4.0 * (~hidden).sum()
    whole = frame[frame["repetition"] == "(all)"].set_index("statistic")
    at_risk = whole.loc["at_risk"].iloc[0]
    assert at_risk["value"] == pytest.approx(true, abs=3 * at_risk["se_noise"])
    assert whole.loc["patients"]["value"] > 1.5 * true > true + 5 * at_risk["se_noise"]
    assert "too high" in whole.loc["patients"]["note"]


def test_survival_of_a_period() -> None:
    frame = noisy({"preset": "survival", **FOLLOWED, **PERIOD}, "2", 2000, (800, 300, 300, 200, 200, 200))
    for statistic in ("patients", "survival", "at_risk", "entered"):
        compare(frame, statistic, 0.15)


def test_means_and_spread() -> None:
    frame = noisy({"preset": "mean", "variable": "age", "variance": True}, "1", 600)
    for statistic in ("number", "mean", "standard_deviation"):
        compare(frame, statistic, 0.12)
    compare(noisy({"preset": "mean", "variable": "age"}, "1", 300), "mean", 0.12)


@pytest.mark.parametrize("totals", [False, True])
def test_counts_and_percentages(totals: bool) -> None:
    document = {"preset": "crosstab", "by": ["repetition", "sex"], "percentages": True, "totals": totals}
    frame = noisy(document, "1", 200)
    compare(frame, "count", 0.12, sex="F")
    compare(frame, "row_percent", 0.12, sex="M")


def test_quartiles_are_at_least_as_sure_as_they_say() -> None:
    """The whole bin that holds a quartile counts as below it: with five bins that is up to 40 % too much."""
    document = {"preset": "histogram", "variable": "age", "edges": [0, 20, 40, 60, 80, 100]}
    frame = noisy(document, "1", 200)
    for statistic in ("lower_quartile", "median", "upper_quartile"):
        rows = pick(frame, statistic)
        ratio = np.sqrt(np.mean(rows["se_noise"] ** 2)) / rows["value"].std()
        assert 0.9 < ratio < 1.5, statistic
