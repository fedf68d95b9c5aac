"""Counts, crosstabs, histograms and means from registered files to their tables, against R and pandas."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.frequencies import independence_test
from mpc_engine.statistics.presets import parse_query
from tests.statistics.edge.registries import (
    PRIVACY,
    REFERENCES,
    Study,
    pick,
    scenario,
    study,
    table,
    value,
    with_noise,
)

WILMS = REFERENCES / "nwtco"
STAGES = ("I", "II", "III", "IV")


@pytest.fixture(scope="module")
def wilms(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return scenario(tmp_path_factory.mktemp("wilms"), "wilms", {"uk": "", "us": ""})


def test_count(wilms: Study) -> None:
    assert value(wilms.ask(preset="count"), "count") == 4028
    one = wilms.ask(preset="count", where=[{"variable": "stage", "in": ["IV"]}])
    assert value(one, "count") == 460
    (row,) = one.itertuples()
    # The score interval of a Poisson mean without noise: 460 + z²/2 ± z sqrt(460 + z²/4).
    z = stats.norm.ppf(0.975)
    reach = z * np.sqrt(460 + z * z / 4)
    np.testing.assert_allclose([row.lcl, row.ucl], [460 + z * z / 2 - reach, 460 + z * z / 2 + reach])


def test_means_and_spread_are_those_of_r(wilms: Study) -> None:
    reference = pd.read_csv(WILMS / "age_months_moments.csv")
    for by, name in (([], "all"), (["stage"], "stage"), (["stage", "histology"], "stage histol")):
        frame = wilms.ask(preset="mean", variable="age_months", by=by, variance=True)
        wanted = reference[reference["by"] == name]
        for row in wanted.itertuples():
            words = str(row.group).split()
            labels = {"stage": STAGES[int(words[0]) - 1]} if by else {}
            labels |= {"histology": words[1]} if len(by) > 1 else {}
            (mean,) = pick(frame, "mean", **labels).itertuples()
            assert mean.n_shown == value(frame, "number", **labels) == row.n
            assert mean.value == pytest.approx(row.mean, rel=1e-9)
            assert value(frame, "standard_deviation", **labels) == pytest.approx(row.sd, rel=1e-9)
            assert mean.se_sampling == pytest.approx(row.sd / row.n**0.5, rel=1e-9)
            limits = stats.t.interval(0.95, row.n - 1, row.mean, row.sd / row.n**0.5)
            np.testing.assert_allclose([mean.lcl, mean.ucl], limits, rtol=1e-9)
            assert mean.se_noise == 0


def test_a_narrower_clip_is_the_mean_of_clipped_values(wilms: Study) -> None:
    reference = pd.read_csv(WILMS / "hist_age_12m_study.csv")
    asked = {"preset": "mean", "variable": "age_months", "clip": [12, 13]}
    frame = wilms.ask(**asked)
    old = reference[reference["age_months"] != "[0,12)"]["n"].sum()
    young = 4028 - old
    twelve = value(wilms.ask(preset="count", where=[{"variable": "age_months", "in": [12]}]), "count")
    mean = (12 * (young + twelve) + 13 * (old - twelve)) / 4028
    assert value(frame, "mean") == pytest.approx(mean)
    assert value(frame, "standard_deviation") == pytest.approx(
        np.sqrt((mean - 12) * (13 - mean) * 4028 / 4027)
    )
    assert pick(frame, "mean")["ci_method"].tolist() == ["t"]
    without = wilms.ask(**asked, variance=False)
    assert value(without, "mean") == pytest.approx(mean)
    assert pick(without, "mean")["ci_method"].tolist() == ["t, bound"]
    assert pick(without, "standard_deviation").empty


def test_crosstab_with_totals_percentages_and_test(wilms: Study) -> None:
    reference = pd.read_csv(WILMS / "crosstab_stage_histol_study.csv")
    cells = reference.pivot_table(index="stage", columns="histol", values="n", aggfunc="sum").to_numpy()
    frame = wilms.ask(
        preset="crosstab", by=["stage", "histology"], totals=True, percentages=True, test="chi-squared"
    )
    np.testing.assert_array_equal(pick(frame, "count")["value"], cells.reshape(-1))
    totals = pick(frame, "total")
    expected = [*cells.sum(axis=1), *cells.sum(axis=0), cells.sum()]
    np.testing.assert_array_equal(totals["value"], expected)
    assert totals["stage"].tolist() == [*STAGES, "(all)", "(all)", "(all)"]
    assert totals["histology"].tolist() == ["(all)"] * 4 + ["FH", "UH", "(all)"]
    for statistic, base in (
        ("percent", cells.sum()),
        ("row_percent", cells.sum(axis=1, keepdims=True)),
        ("column_percent", cells.sum(axis=0)),
    ):
        found = pick(frame, statistic)
        np.testing.assert_allclose(found["value"], (100 * cells / base).reshape(-1), rtol=1e-12)
        assert set(found["note"]) == {"of the total and the sum of all cells, weighted by their noise"}
    statistic, p, df, _ = stats.chi2_contingency(cells, correction=False)
    assert value(frame, "chi_squared") == pytest.approx(statistic, rel=1e-12)
    assert value(frame, "degrees_of_freedom") == df and value(frame, "p_value") == pytest.approx(p, rel=1e-9)
    without = wilms.ask(preset="crosstab", by=["histology", "stage"], percentages=True)
    np.testing.assert_allclose(
        pick(without, "row_percent")["value"],
        (100 * cells.T / cells.T.sum(axis=1, keepdims=True)).reshape(-1),
    )
    assert set(pick(without, "percent")["note"]) == {"of the sum of all cells"}


def test_a_percentage_of_few_is_marked_unreliable(tmp_path: Any) -> None:
    rows = (
        [{"sex": "F", "stage": 1}] * 100 + [{"sex": "M", "stage": 2}] * 20 + [{"sex": "M", "stage": 1}] * 13
    )
    frame = study(tmp_path, rows).ask(
        preset="crosstab",
        by=["sex", "stage"],
        where=[{"variable": "stage", "in": ["I", "II"]}],
        percentages=True,
    )
    # √(p(1 − p)/n) is more than p/4 for 13 of 133, and not for 20.
    for labels, flag in (
        ({"sex": "F", "stage": "I"}, "ok"),
        ({"sex": "M", "stage": "II"}, "ok"),
        ({"sex": "M", "stage": "I"}, "u"),
    ):
        (row,) = pick(frame, "percent", **labels).itertuples()
        assert row.flag == flag and row.display == f"{row.value:.1f}" and row.lcl < row.value < row.ucl
        assert (row.se_sampling > row.value / 4) == (flag == "u")
    counts = pick(frame, "count")
    assert set(counts[counts["stage"].isin(["I", "II"])]["flag"]) == {"ok"}
    assert set(counts["note"]) == {"interval of the underlying rate, noise included", "outside the filters"}


def noisy(
    made: Study, sums: list[Any], variances: list[float], hidden: Any = None, **asked: Any
) -> pd.DataFrame:
    """Return the table of given noisy sums."""
    query = parse_query({"privacy": PRIVACY, **asked})
    rows = [np.asarray(each, float).reshape(-1) for each in sums]
    zero = [np.zeros(len(each)) for each in rows]
    return table(query, made.codebook, with_noise(query, made.codebook, rows, variances, zero, hidden))


def test_what_the_filters_leave_out_is_a_public_zero(made_up: Study) -> None:
    where = [{"variable": "stage", "in": ["I", "II"]}]
    asked = {"preset": "crosstab", "by": ["sex", "stage"], "where": where}
    codebook = made_up.codebook
    shape = tuple(len(codebook.labels(name)) for name in ("sex", "stage"))
    inside = [codebook.labels("stage").index(label) for label in ("I", "II")]
    cells = np.full(shape, 40.0)  # noise alone in the cells that nobody can be in
    cells[0, inside], cells[1, inside] = [100, 50], [30, 70]
    cells[2:, inside] = 20
    frame = noisy(made_up, [cells], [2.0], **asked, percentages=True, test="chi-squared")
    for statistic in ("count", "percent", "row_percent", "column_percent"):
        rows = pick(frame, statistic)
        out = ~rows["stage"].isin(["I", "II"])
        assert set(rows[out]["flag"]) == {"z"} and set(rows[out]["note"]) == {"outside the filters"}
        assert not (rows[~out]["flag"] == "z").any()
    held = cells[:, inside]
    np.testing.assert_allclose(
        pick(frame, "percent")["value"].dropna(), (100 * held / held.sum()).reshape(-1)
    )
    alone = independence_test(held, noise_variance=2.0)
    assert value(frame, "chi_squared") == alone.statistic
    # With all other cells shown and those outside suppressed, everything is still there.
    out = np.ones(shape, bool)
    out[:, inside] = False
    hidden = noisy(made_up, [cells], [2.0], out, **asked, percentages=True, test="chi-squared")
    pd.testing.assert_frame_equal(hidden, frame)


def test_a_base_of_shown_cells_only_says_so_and_more_than_all_is_unreliable(made_up: Study) -> None:
    sexes = len(made_up.codebook.labels("sex"))
    cells, hidden = np.full(sexes, 100.0), np.zeros(sexes, bool)
    hidden[-1] = True
    frame = noisy(made_up, [cells], [2.0], hidden, preset="crosstab", by=["sex"], percentages=True)
    assert set(pick(frame, "percent")["note"]) == {"of the sum of shown cells only"}
    totals = noisy(
        made_up,
        [cells, [80.0]],
        [2.0, 2.0],
        hidden,
        preset="crosstab",
        by=["sex"],
        percentages=True,
        totals=True,
    )
    percent = pick(totals, "percent")
    assert set(percent["note"]) == {"of the total with noise"}
    assert percent["flag"].tolist() == ["u"] * (sexes - 1) + ["c"] and percent["value"].iloc[0] == 125


def test_a_small_p_is_printed_as_below_a_thousandth(made_up: Study) -> None:
    shape = tuple(len(made_up.codebook.labels(name)) for name in ("sex", "stage"))
    cells = np.full(shape, 50.0) + 400 * np.eye(*shape)
    frame = noisy(made_up, [cells], [2.0], preset="crosstab", by=["sex", "stage"], test="chi-squared")
    assert pick(frame, "p_value")["display"].item() == "<0.001"


def test_bins_outside_the_filters_hold_nobody(made_up: Study) -> None:
    asked = {"preset": "histogram", "variable": "age", "edges": [0, 10, 20, 30]}
    where = [{"variable": "age", "between": [10, 29]}]
    labels = pick(noisy(made_up, [np.zeros(5)], [2.0], **asked), "count")["age"].tolist()
    assert labels[:4] == ["[0,10)", "[10,20)", "[20,30)", "≥ 30"]
    for noise in ([500, 30, 10, 500, 9], [-40, 30, 10, -40, 9]):
        frame = noisy(made_up, [noise], [2.0], **asked, where=where)
        assert pick(frame, "count")["flag"].tolist() == ["z", "ok", "ok", "z", "z"]
        assert value(frame, "median") == pytest.approx(10 + 20 / 3)


def test_means_that_noise_drowns_are_marked(made_up: Study) -> None:
    asked = {"preset": "mean", "variable": "age", "by": ["sex"]}
    sexes = len(made_up.codebook.labels("sex"))
    shape = np.ones(sexes)
    # 100 values of 40 with a spread of 10 around the centre 50; the first has squares below what is possible.
    squares = 100 * (100 + 10**2) * shape
    squares[0] = 0
    frame = noisy(made_up, [100 * shape, -1000 * shape, squares], [2.0, 2e3, 2e6], **asked)
    mean, sd = pick(frame, "mean"), pick(frame, "standard_deviation")
    assert (
        sd["flag"].tolist() == ["x"] + ["ok"] * (sexes - 1) and sd["note"].iloc[0] == "too few for the noise"
    )
    assert mean["ci_method"].tolist() == ["t, bound"] + ["t"] * (sexes - 1)
    assert set(mean["flag"]) == {"ok"} and (mean["se_sampling"] > 0).all()
    # Beyond the bounds, or with a half-width above a quarter of them.
    wide = noisy(made_up, [100 * shape, -1000 * shape, squares], [2.0, 2e6, 2e6], **asked)
    assert set(pick(wide, "mean")["flag"]) == {"u"}
    out = noisy(made_up, [10 * shape, 600 * shape, squares], [2.0, 2e2, 2e6], **asked)
    assert set(pick(out, "mean")["flag"]) == {"u"} and set(pick(out, "mean")["display"]) == {"109.00"}


def test_breast_cancer_by_size_grade_and_nodes(tmp_path: Any) -> None:
    made = scenario(tmp_path, "breast", {"nl": "", "de": ""})
    by = ["size", "grade", "nodes_group"]
    frame = pick(made.ask(preset="crosstab", by=by), "count")
    people = pd.read_csv(REFERENCES / "breast" / "truth_harmonised_pooled.csv", dtype=str)
    truth = people.groupby(["size", "grade", "nodecat"]).size()
    found = {tuple(row[name] for name in by): row["value"] for _, row in frame.iterrows()}
    assert len(found) == 3 * 3 * 4 and sum(found.values()) == 3668
    assert {cell: n for cell, n in found.items() if n} == truth.to_dict()


def test_histogram_and_its_quartiles(wilms: Study) -> None:
    reference = pd.read_csv(WILMS / "hist_age_12m_study.csv").groupby("age_months", sort=False)["n"].sum()
    frame = wilms.ask(preset="histogram", variable="age_months", edges=list(range(0, 193, 12)))
    counts = pick(frame, "count")
    assert counts["age_months"].tolist()[:2] == ["[0,12)", "[12,24)"]
    np.testing.assert_array_equal(counts["value"], reference)
    cumulated = np.concatenate([[0], np.cumsum(reference)]) / 4028
    edges = np.append(np.arange(0, 193, 12), 240)
    for name, p in (("lower_quartile", 0.25), ("median", 0.5), ("upper_quartile", 0.75)):
        assert value(frame, name) == pytest.approx(np.interp(p, cumulated, edges), rel=1e-12)
    assert abs(value(frame, "median") - 37) < 1.5  # R's median of the single ages
    by = wilms.ask(preset="histogram", variable="age_months", edges=[0, 60, 120], by=["stage", "histology"])
    assert len(pick(by, "median")) == 8
    single = wilms.ask(
        preset="histogram",
        variable="age_months",
        edges=[0, 60, 120],
        where=[{"variable": "stage", "in": ["II"]}, {"variable": "histology", "in": ["UH"]}],
    )
    assert value(single, "upper_quartile") == value(by, "upper_quartile", stage="II", histology="UH")


def test_an_outer_bin_that_reaches_too_far_does_not_move_the_quartiles(tmp_path: Any) -> None:
    made = study(tmp_path, [{"age": age} for age in range(100)])
    frame = made.ask(preset="histogram", variable="age", edges=[-1000, 50, 1000])
    assert pick(frame, "count")["value"].tolist() == [50, 50, 0]
    assert value(frame, "lower_quartile") == 25 and value(frame, "upper_quartile") == 75


@pytest.mark.parametrize("regular", [True, False])
def test_many_bins_are_found_whatever_their_spacing(tmp_path: Any, regular: bool) -> None:
    seed = 4
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    days = draw.integers(0, 7001, 400)
    rows: Any = [{"days": int(day)} for day in days] + [{"days": ""}] * 3
    edges = (
        list(range(3, 7001, 7)) if regular else sorted(draw.choice(np.arange(1, 7000), 300, replace=False))
    )
    edges = [int(edge) for edge in edges]
    frame = study(tmp_path, rows).ask(preset="histogram", variable="days", edges=edges)
    found = pick(frame, "count")["value"].to_numpy()
    expected = np.bincount(np.searchsorted(edges, days, side="right"), minlength=len(edges) + 1)
    np.testing.assert_array_equal(found, [*expected, 3])


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"preset": "mean", "variable": "sex"}, "variable: 'sex' is not an integer"),
        ({"preset": "mean", "variable": "diagnosed"}, "variable: 'diagnosed' is not an integer"),
        ({"preset": "mean", "variable": "one_value"}, "variable: one_value has a single value, 3"),
        ({"preset": "mean", "variable": "age", "clip": [9, 9]}, "clip: must ascend"),
        ({"preset": "mean", "variable": "age", "clip": [9, 200]}, "clip: reaches beyond age"),
        ({"preset": "mean", "variable": "ages"}, "variable: the codebook has no variable 'ages'"),
        ({"preset": "mean", "variable": "age", "by": ["age", "age"]}, r"by\[1\]: 'age' occurs twice"),
        ({"preset": "crosstab", "by": []}, "by: must have at least 1"),
        ({"preset": "crosstab", "by": ["sex"], "test": "chi-squared"}, "test: asks for independence of two"),
        ({"preset": "crosstab", "by": ["sex"], "test": "fisher"}, "test: must be"),
        ({"preset": "crosstab", "by": ["days", "age"], "test": "chi-squared"}, "test: 7002 × 101 categories"),
        (
            {"preset": "crosstab", "by": ["sex"], "totals": True, "privacy": PRIVACY | {"rule": "exact"}},
            "totals: are refused",
        ),
        ({"preset": "crosstab", "by": ["sex"], "totals": "yes"}, "totals: must be true or false"),
        ({"preset": "histogram", "variable": "age"}, "needs either `edges` or `bins`"),
        ({"preset": "histogram", "variable": "age", "edges": [0, 9], "by": ["age"]}, "by: repeats 'age'"),
        ({"preset": "count", "by": ["sex"]}, "by: is not a key known here"),
        ({"preset": "count", "privacy": {"epsilon": "0"}}, r"privacy\.epsilon: must be greater than 0"),
        (
            {"preset": "count", "privacy": PRIVACY | {"weights": {"sum": 1}}},
            r"privacy\.weights\.sum: is no part; parts: count",
        ),
    ],
)
def test_wrong_documents_name_the_key(made_up: Study, document: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError, match=message):
        parse_query({"privacy": PRIVACY, **document}).layout(made_up.codebook)


@pytest.fixture(scope="module")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return study(tmp_path_factory.mktemp("made-up"), [])
