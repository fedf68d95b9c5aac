"""Awkward registries and awkward releases: the right answer or a clear refusal from every preset.

Warnings are errors here: nothing may divide by nobody in silence.
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.dp.accounting import Guarantee, Part, Rule, guarantee_for
from mpc_engine.errors import DataError
from mpc_engine.release.groups import parts_of
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query
from tests.statistics.edge.registries import (
    CODEBOOK,
    PRIVACY,
    laplace,
    pick,
    study,
    table,
    value,
    with_noise,
)

pytestmark = [
    pytest.mark.filterwarnings("error"),
    # Of a dependency, and nothing that a registry's rows could cause.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

FOLLOWED = {"time": "days", "event": {"variable": "status", "in": ["dead"]}}
SURVIVAL: dict[str, Any] = {"preset": "survival", **FOLLOWED, "grid": {"edges": [1, 5, 10]}}
BY_STAGE: dict[str, Any] = SURVIVAL | {"by": ["sex", "stage"], "compare": "sex", "conditional_on": [1]}
PERIOD = {"approach": "period", "diagnosed": "diagnosed", "window": ["2000-01-01", "2005-12-31"]}
COHORT = PERIOD | {"approach": "cohort", "followed_until": "2020-12-31"}
ALL: dict[str, dict[str, Any]] = {
    "count": {"preset": "count"},
    "crosstab": {
        "preset": "crosstab",
        "by": ["sex", "stage"],
        "totals": True,
        "percentages": True,
        "test": "chi-squared",
    },
    "one variable": {"preset": "crosstab", "by": ["stage"], "totals": True, "percentages": True},
    "three variables": {"preset": "crosstab", "by": ["stage", "sex", "age_group"], "percentages": True},
    "histogram": {"preset": "histogram", "variable": "age", "edges": [0, 20, 60, 90], "by": ["sex"]},
    "plain histogram": {"preset": "histogram", "variable": "age", "edges": [-10, 50, 200]},
    "mean": {"preset": "mean", "variable": "age", "by": ["stage"]},
    "spread": {"preset": "mean", "variable": "age", "by": ["sex", "stage"], "variance": True},
    "plain mean": {"preset": "mean", "variable": "age", "variance": True, "clip": [10, 90]},
    "survival": SURVIVAL,
    "by stage": BY_STAGE,
    "stratified": BY_STAGE | {"stratified": True},
    "actuarial": BY_STAGE | {"method": "actuarial", "interval": "log"},
    "plain interval": BY_STAGE | {"interval": "plain"},
    "one interval": SURVIVAL
    | {"by": ["sex"], "compare": "sex", "grid": {"unit": "days", "every": 9, "until": 9}},
    "period": SURVIVAL | {"by": ["sex"]} | PERIOD,
    "cohort": BY_STAGE | COHORT,
    "childhood": {
        "preset": "childhood_survival",
        **FOLLOWED,
        "by": ["stage", "age_group"],
        "compare": "age_group",
    },
}


@pytest.fixture(scope="module")
def codebook(tmp_path_factory: pytest.TempPathFactory) -> Codebook:
    path = tmp_path_factory.mktemp("book") / "codebook.toml"
    path.write_text(CODEBOOK, encoding="utf-8")
    return load_codebook(path)


# --- awkward registries -----------------------------------------------------------------------------

REGISTRIES: dict[str, tuple[list[dict[str, object]], ...]] = {
    "an empty silo": ([{"status": 1, "days": 400}, {"sex": "M", "stage": 2, "days": 90}], []),
    "a stratum in one silo": ([{"days": 300}] * 3, [{"stage": 3, "status": 1, "days": 500}] * 2),
    "a single patient": ([{"status": 1, "days": 366}], []),
    "all censored": ([{"days": 100 + i, "sex": "FM"[i % 2]} for i in range(20)], []),
    "all ties": ([{"days": 365, "status": 1, "sex": "FM"[i % 2]} for i in range(9)], []),
    "all at time 0": ([{"days": 0, "status": i % 2} for i in range(6)], [{"days": 0, "status": 1}]),
    "all on edges": ([{"days": days, "status": 1} for days in (365, 366, 1826, 1827, 3652, 3653)], []),
    "stages missing": ([{"stage": "", "status": i % 2, "days": 100 * i} for i in range(8)], []),
    "nothing known": ([{"stage": "", "age": "", "status": "", "days": "", "diagnosed": ""}] * 5, []),
    "equal ages": ([{"age": 40, "days": 700}] * 6, [{"age": 40, "sex": "M"}] * 2),
}


# Those that share their cells are tabulated once.
DIFFERENT = ("three variables", "histogram", "spread", "by stage", "stratified", "actuarial", "period")


@pytest.mark.parametrize("name", REGISTRIES)
def test_every_preset_answers_for_awkward_registries(name: str, tmp_path: Path) -> None:
    made = study(tmp_path, *(rows for rows in REGISTRIES[name] if rows or "silo" in name))
    for asked in DIFFERENT:
        frame = made.ask(**ALL[asked])
        assert len(frame) and "c" not in set(frame["flag"]), asked


def test_every_preset_answers_where_nobody_is_registered(tmp_path: Path) -> None:
    made = study(tmp_path, [])
    for asked, document in ALL.items():
        frame = made.ask(**document)
        assert len(frame) and "c" not in set(frame["flag"]), asked
        counts = frame[frame["statistic"].isin(["count", "total", "patients", "number"])]
        assert (counts["value"] == 0).all()


def test_a_stratum_in_one_silo_is_that_silo_s(tmp_path: Path) -> None:
    made = study(tmp_path, *REGISTRIES["a stratum in one silo"])
    frame = made.ask(**SURVIVAL, by=["stage"], compare="stage")
    assert pick(frame, "patients")["value"].tolist() == [3, 0, 2, 0, 5]
    assert pick(frame, "survival", stage="III")["value"].tolist() == [1, 0, 0]
    assert set(pick(frame, "survival", stage="II")["flag"]) == {"x"}
    mean = made.ask(preset="mean", variable="age", by=["stage"])
    assert pick(mean, "mean")["flag"].tolist() == ["ok", "z", "ok", "z"]


def test_all_censored_never_falls_and_compares_nothing(tmp_path: Path) -> None:
    frame = study(tmp_path, *REGISTRIES["all censored"]).ask(**SURVIVAL, by=["sex"], compare="sex")
    # All are censored within the first year: after it nobody is at risk and nothing is known.
    assert pick(frame, "survival", sex="(all)")["display"].tolist() == ["100.0", "[x]", "[x]"]
    assert pick(frame, "at_risk", sex="(all)")["display"].tolist() == ["20", "0", "0"]
    assert set(pick(frame, "median_survival")["display"]) == {"NR"}
    tests = frame[frame["statistic"].str.startswith("log_rank")]
    assert set(tests[tests["statistic"].str.contains("squared|degrees|_p")]["flag"]) == {"x"}
    assert pick(frame, "log_rank_observed")["value"].tolist() == [0, 0]
    assert "nothing to compare" in pick(frame, "log_rank_p")["note"].iloc[0]


def test_all_ties_and_edges_fall_into_the_interval_that_ends_there(tmp_path: Path) -> None:
    for folder in ("ties", "edges", "zero"):
        (tmp_path / folder).mkdir()
    frame = study(tmp_path / "ties", *REGISTRIES["all ties"]).ask(**SURVIVAL)
    assert pick(frame, "events")["value"].tolist() == [9, 0, 0]
    assert pick(frame, "survival")["value"].tolist() == [0, 0, 0]
    # 365.25, 1826.25 and 3652.5 days: 366, 1827 and 3653 are past the edges, the last beyond the grid.
    frame = study(tmp_path / "edges", *REGISTRIES["all on edges"]).ask(**SURVIVAL)
    assert pick(frame, "events")["value"].tolist() == [1, 2, 2]
    assert pick(frame, "at_risk")["value"].tolist() == [6, 5, 3]
    frame = study(tmp_path / "zero", *REGISTRIES["all at time 0"]).ask(**SURVIVAL)
    assert pick(frame, "events")["value"].tolist() == [4, 0, 0]
    assert pick(frame, "censored")["value"].tolist() == [3, 0, 0]


def test_missing_stages_are_a_category_and_unknown_outcomes_take_no_part(tmp_path: Path) -> None:
    rows = [{"stage": "", "days": 50, "status": 1}, {"status": "", "days": 9}, {"days": ""}, {"stage": 2}]
    made = study(tmp_path, rows)
    frame = made.ask(**SURVIVAL, by=["stage"])
    assert pick(frame, "patients")["value"].tolist() == [0, 1, 0, 1, 2]
    assert value(made.ask(preset="count"), "count") == 4
    # The codebook's own label of unknown can be the event, and then everybody's status counts.
    lost = made.ask(**SURVIVAL | {"event": {"variable": "status", "in": ["dead", "lost"]}})
    assert value(lost, "patients") == 3 and pick(lost, "events")["value"].tolist() == [2, 0, 0]
    # An integer may hold the status too; what it does not know takes no part either.
    coded = made.ask(**SURVIVAL | {"event": {"variable": "code", "in": [1]}})
    assert value(coded, "patients") == 2 and pick(coded, "events")["value"].tolist() == [1, 0, 0]


def test_a_patient_with_several_records_counts_as_the_query_says(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "stage": 1, "days": 100, "status": 1, "age": 40},
        {"id": "a", "stage": 2, "days": 90, "status": 1, "age": 42},
        {"id": "a", "stage": 2, "days": 80, "status": 1, "age": 44},
        {"id": "b", "stage": 2},
    ]
    made = study(tmp_path, rows, [{"id": "a", "stage": 3}])  # in two silos a patient is two
    two = {"privacy": PRIVACY | {"max_records_per_patient": 2}}
    stages = {"by": ["stage"]}
    assert pick(made.ask(**SURVIVAL, **stages), "patients")["value"].tolist() == [1, 1, 1, 0, 3]
    every = made.ask(**SURVIVAL, **stages, **two, multiple_primaries="all")
    assert pick(every, "patients")["value"].tolist() == [1, 2, 1, 0, 4]
    first = {"where": [{"variable": "stage", "in": ["II"]}]}
    assert value(made.ask(**SURVIVAL, **first), "patients") == 1  # the first of "a" is no stage II
    assert value(made.ask(**SURVIVAL, **first, multiple_primaries="all"), "patients") == 2
    counted = made.ask(preset="crosstab", **stages)
    assert pick(counted, "count")["value"].tolist() == [1, 1, 1, 0]
    counted = made.ask(preset="crosstab", **stages, **two)
    assert pick(counted, "count")["value"].tolist() == [1, 2, 1, 0]
    query = parse_query({"preset": "crosstab", **stages, "privacy": two["privacy"]})
    assert made.silos[0].max_records_per_patient == 3
    assert query.layout(made.codebook).max_records_per_patient == 2
    mean = made.ask(preset="mean", variable="age", **two, where=[{"variable": "age", "in": [40, 42, 44]}])
    assert value(mean, "mean") == 41


def test_rows_that_do_not_fit_are_refused_when_they_are_registered(tmp_path: Path) -> None:
    for name, row in {
        "negative": {"days": -1},
        "long": {"days": 7001},
        "stage": {"stage": 4},
        "text": {"age": "forty"},
        "date": {"diagnosed": "2001-02-30"},
    }.items():
        (tmp_path / name).mkdir()
        with pytest.raises(DataError):
            study(tmp_path / name, [row])


# --- awkward releases -------------------------------------------------------------------------------


@cache
def allotted(epsilon: Fraction, parts: tuple[Part, ...]) -> Guarantee:
    return guarantee_for(epsilon, parts, Rule.NOISY, 5)


def opened(query: Query, codebook: Codebook, seed: int, people: int, hidden: Any = None) -> pd.DataFrame:
    """Return the table of an even cohort with the noise of ε = 1."""
    layout = query.layout(codebook)
    parts = parts_of(layout.groups)
    guarantee = allotted(query.privacy.epsilon_exact, tuple(parts))
    variances = [float(each.table.variance) for each in guarantee.allotments]
    draw = np.random.default_rng(seed)
    sums = [np.rint(each) for each in query.typical(codebook, layout, people)]
    noise = [
        laplace(draw, float(each.epsilon) / part.step, row.shape)
        for each, part, row in zip(guarantee.allotments, parts, sums, strict=True)
    ]
    return table(query, codebook, with_noise(query, codebook, sums, variances, noise, hidden))


@pytest.mark.parametrize("name", ALL)
@settings(max_examples=10, deadline=None, print_blob=True)
@given(seed=st.integers(0, 2**32 - 1), people=st.sampled_from([0, 3, 40, 5000]))
def test_noise_of_any_size_gives_a_table(codebook: Codebook, name: str, seed: int, people: int) -> None:
    query = parse_query({"privacy": PRIVACY, **ALL[name]})
    frame = opened(query, codebook, seed, people)
    shown = frame[frame["flag"].isin(["ok", "t"])]
    assert not shown["display"].str.fullmatch(r"-0(\.0+)?").any()
    counts = shown[shown["statistic"].isin(["count", "patients", "number", "total"])]
    assert not counts["display"].str.startswith("-").any()
    assert (counts["lcl"] >= 0).all() and (counts["se_noise"] > 0).all()
    curve = shown[shown["statistic"] == "survival"]
    assert curve["value"].between(0, 1).all()
    assert (curve["lcl"].isna() | (curve["lcl"] <= curve["value"] + 1e-12)).all()


@pytest.mark.parametrize("name", [name for name, asked in ALL.items() if asked.get("by")])
def test_suppressed_groups_in_every_position(codebook: Codebook, name: str) -> None:
    query = parse_query({"privacy": PRIVACY, **ALL[name]})
    grid = query.layout(codebook).groups[0].guard.grid
    places = [np.arange(grid.cells) == i for i in range(grid.cells)]
    places += [np.arange(grid.cells) < half for half in (grid.cells // 2, grid.cells - 1, grid.cells)]
    whole = opened(query, codebook, 5, 3000)
    for hidden in places:
        frame = opened(query, codebook, 5, 3000, hidden)
        assert len(frame) == len(whole) or "log_rank_p" in set(frame["statistic"])  # never a missing row
        strata = {axis.variable for axis in grid.axes}
        guard = frame[frame["statistic"].isin(["count", "patients", "number"])]
        guard = guard[(guard[list(strata)] != "(all)").any(axis=1)]
        assert (guard["flag"] == "c").sum() == hidden.sum() and strata <= set(frame.columns)
        if hidden.all():
            rest = frame[~frame["statistic"].isin(["total"])]
            assert not rest["flag"].isin(["ok", "t", "u"]).any()
            assert set(pick(frame, "survival")["flag"]) <= {"c"}  # hidden, not empty


def test_what_is_hidden_leaves_the_rest_as_it_is(codebook: Codebook) -> None:
    query = parse_query({"privacy": PRIVACY, **BY_STAGE})
    hidden = np.zeros((2, 4), np.bool_)
    hidden[0, 1] = hidden[:, 3] = True
    whole, part = (opened(query, codebook, 5, 3000, mask) for mask in (None, hidden))
    for statistic in ("survival", "at_risk", "median_survival", "conditional_survival_1y"):
        before, after = pick(whole, statistic), pick(part, statistic)
        assert len(before) == len(after)
        seen = (after["flag"] != "c") & (after["sex"] != "(all)")
        assert seen.sum() == len(after) // 9 * 5
        pd.testing.assert_frame_equal(before[seen.to_numpy()], after[seen])
    together = part[(part["statistic"] == "survival") & (part["sex"] == "(all)")]
    assert together["note"].str.contains("5 shown of 8 strata together").all()
    assert "suppressed strata left out" in pick(part, "log_rank_p")["note"].iloc[0]


def test_the_size_of_all_shown_strata_is_the_sum_of_theirs(codebook: Codebook) -> None:
    query = parse_query({"privacy": PRIVACY, **BY_STAGE})
    hidden = np.zeros((2, 4), np.bool_)
    hidden[0, 1] = True
    for mask, note in ((None, "all strata together"), (hidden, "7 shown of 8 strata together")):
        sizes = pick(opened(query, codebook, 5, 3000, mask), "patients")
        each, (whole,) = sizes[sizes["sex"] != "(all)"], sizes[sizes["sex"] == "(all)"].to_dict("records")
        assert whole["value"] == each["value"].sum() and whole["note"].startswith(note)
        assert ("too high" in whole["note"]) == (mask is not None)
        assert whole["se_noise"] == pytest.approx(np.sqrt((each["se_noise"] ** 2).sum()))


def test_too_few_after_noise_is_not_available_and_uncertain_is_marked(codebook: Codebook) -> None:
    query = parse_query({"privacy": PRIVACY, **BY_STAGE})
    frame = opened(query, codebook, 3, 3000)
    curve = frame[frame["statistic"].isin(["survival", "conditional_survival_1y"])]
    assert not curve["flag"].isin(["u", "x"]).any()
    frame = opened(query, codebook, 3, 40)  # 5 in each stratum
    at_risk = frame[(frame["statistic"] == "at_risk") & (frame["time"] == 1)]
    few = at_risk[at_risk["flag"] == "x"]
    assert len(few) and few["note"].str.contains("too few after noise").all()
    assert (at_risk["value"].dropna() >= 5).all()
    stratum = (frame["sex"] == few["sex"].iloc[0]) & (frame["stage"] == few["stage"].iloc[0])
    assert set(frame[stratum & (frame["statistic"] != "patients")]["flag"]) == {"x"}
    frame = opened(query, codebook, 3, 240)
    rows = frame[frame["statistic"].isin(["survival", "conditional_survival_1y"])]
    error = np.hypot(rows["se_sampling"], rows["se_noise"])
    assert (rows["flag"] == "u").any()
    assert (rows[error > 0.1]["flag"].isin(["u", "t"])).all() and not (
        rows[error <= 0.1]["flag"] == "u"
    ).any()


def test_the_period_approach_is_actuarial_unless_asked_otherwise(codebook: Codebook) -> None:
    asked = {"privacy": PRIVACY, **ALL["period"]}
    frame = opened(parse_query(asked), codebook, 3, 3000)
    assert set(pick(frame, "survival")["ci_method"]) == {"actuarial, log-log"}
    assert len(pick(frame, "adjusted_at_risk")) and set(pick(frame, "median_follow_up")["flag"]) == {"z"}
    frame = opened(parse_query(asked | {"method": "kaplan-meier"}), codebook, 3, 3000)
    assert set(pick(frame, "survival")["ci_method"]) == {"kaplan-meier, log-log"}
    frame = opened(parse_query({"privacy": PRIVACY, **BY_STAGE}), codebook, 3, 3000)
    assert set(pick(frame, "survival")["ci_method"]) == {"kaplan-meier, log-log"}
    assert pick(frame, "at_risk")["display"].str.fullmatch("[0-9,]+").all()


def test_a_small_p_is_printed_as_such(tmp_path: Path) -> None:
    rows = [{"days": 100, "status": 1, "sex": "F"}] * 40 + [{"days": 5000, "sex": "M"}] * 40
    frame = study(tmp_path, rows).ask(**SURVIVAL, by=["sex"], compare="sex")
    assert pick(frame, "log_rank_p")["display"].tolist() == ["<0.001"]
    assert 0 < value(frame, "log_rank_p") < 0.001


def test_a_group_of_which_nothing_is_shown_is_not_compared(codebook: Codebook) -> None:
    query = parse_query({"privacy": PRIVACY, **BY_STAGE | {"compare": "stage", "stratified": True}})
    hidden = np.zeros((2, 4), np.bool_)
    hidden[:, 1] = hidden[0, 2] = True
    frame = opened(query, codebook, 5, 3000, hidden)
    assert pick(frame, "log_rank_observed")["stage"].tolist() == ["I", "III", "unknown"]
    assert (
        "where only some of the groups are shown, those are compared"
        in pick(frame, "log_rank_p")["note"].iloc[0]
    )
    assert value(frame, "log_rank_degrees_of_freedom") == 2
    hidden[:, 1:] = True
    frame = opened(query, codebook, 5, 3000, hidden)
    assert pick(frame, "log_rank_p")["flag"].tolist() == ["x"]
