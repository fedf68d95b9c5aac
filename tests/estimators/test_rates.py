"""Rates against independent references, published test cases, and simulated noise."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError
from mpc_engine.estimators.rates import (
    UK_LEAST_EVENTS,
    crude_rate,
    cumulative_rate,
    cumulative_risk,
    directly_standardised_rate,
    rate,
)
from mpc_engine.estimators.standards import AgeGroups, parse_age_groups, standard_population

DATA = Path(__file__).parents[2] / "data"
REFERENCES = DATA / "references" / "asr"
STANDARDS = {
    "us2000_19": "us_2000",
    "segi1960_18": "segi_1960",
    "who2000_18": "who_2000",
    "esp2013_18": "esp_2013",
}
INTERVALS = {
    "dobson-byar": "dobson_byar",
    "dobson-exact": "dobson_exact",
    "fay-feuer": "fayfeuer",
    "normal": "normal",
}
TOP = {"all": None, "0-14": 15, "0-19": 20}


def merge(cells: np.ndarray, fine: AgeGroups, coarse: AgeGroups) -> np.ndarray:
    """Columns of fine age groups added up to coarse ones; ages beyond are dropped."""
    starts = np.array(fine.edges[: len(fine)])
    ends = [*coarse.edges[1:], *([10**6] if coarse.open_ended else [])]
    pairs = zip(coarse.edges, ends, strict=False)
    return np.stack([cells[:, (starts >= a) & (starts < b)].sum(axis=1) for a, b in pairs], axis=1)


def compare(reference: pd.DataFrame, counts: np.ndarray, population: np.ndarray, fine: AgeGroups) -> int:
    """Compare every row of the reference, given counts and populations row by row of it; return how many."""
    checked = 0
    for (ages, scheme), rows in reference.groupby(["ages", "standard"]):
        top = TOP[ages]
        edges = tuple(
            e for e in fine.edges if (top is None or e <= top) and (e != 1 or scheme == "us2000_19")
        )
        groups = AgeGroups(edges, open_ended=top is None)
        weights = standard_population(STANDARDS[scheme]).collapse(groups).weights
        x = merge(counts, fine, groups)[rows.row]
        n = merge(population, fine, groups)[rows.row]
        np.testing.assert_array_equal(x.sum(axis=1), rows["count"])
        multiplier = 100_000 if ages == "all" else 1_000_000
        crude = crude_rate(x, n, multiplier=multiplier)
        np.testing.assert_allclose(crude.value, rows.crude, rtol=1e-9)
        for method, column in INTERVALS.items():
            result = directly_standardised_rate(x, n, weights, method=method, multiplier=multiplier)  # type: ignore[arg-type]
            np.testing.assert_allclose(result.value, rows.asr, rtol=1e-9)
            np.testing.assert_allclose(result.se_sampling, rows.se, rtol=1e-9)
            np.testing.assert_allclose(result.lower, np.maximum(rows[f"{column}_lo"], 0), rtol=1e-9)
            np.testing.assert_allclose(result.upper, rows[f"{column}_hi"], rtol=1e-9)
            assert not result.se_noise.any()
        checked += len(rows)
    return checked


def us_cells() -> tuple[np.ndarray, np.ndarray, AgeGroups]:
    """Counts and populations of the United States, 19 years by 19 age groups."""
    table = pd.read_csv(REFERENCES / "us_uscs_counts.csv")
    labels = list(table.Age.iloc[:19])
    wide = table.pivot(index="Year", columns="Age")
    counts, population = (wide[name][labels].to_numpy(float) for name in ("Count", "Population"))
    return counts, population, parse_age_groups(labels)


def test_united_states_by_year() -> None:
    counts, population, groups = us_cells()
    reference = pd.read_csv(REFERENCES / "us_uscs_asr_by_year.csv")
    reference["row"] = reference.year - 1999
    assert compare(reference, counts, population, groups) == len(reference) == 171


def test_published_denominators_are_those_of_the_reference() -> None:
    table = pd.read_csv(REFERENCES / "us_uscs_counts.csv").drop(columns="Count")
    pd.testing.assert_frame_equal(pd.read_csv(DATA / "population" / "us_1999_2017.csv"), table)


def test_testis_cancer_in_denmark() -> None:
    cells = pd.read_csv(REFERENCES / "testisDK_cells_5y_period.csv")
    labels, periods = list(cells.ab.iloc[:18]), list(cells.per.unique())
    wide = cells.pivot(index="per", columns="ab").loc[periods]
    counts, population = (wide[name][labels].to_numpy(float) for name in ("D", "Y"))
    counts, population = (
        np.vstack([counts, counts.sum(axis=0)]),
        np.vstack([population, population.sum(axis=0)]),
    )
    reference = pd.read_csv(REFERENCES / "testisDK_asr.csv")
    reference["row"] = [[*periods, "all"].index(period) for period in reference.period]
    assert compare(reference, counts, population, parse_age_groups(labels)) == len(reference) == 42


@pytest.mark.parametrize("area", ["big", "small", "tiny", "1976"])
@pytest.mark.parametrize("multiplier", [10_000, 100_000])
def test_published_cases_of_englands_agency(area: str, multiplier: int) -> None:
    expected = pd.read_csv(REFERENCES / "phe_test_expected.csv")
    expected = expected[expected.statistic.str.contains("dsr")].query("area == 'testdata_' + @area")
    expected = expected.iloc[[int(multiplier == 100_000)]]
    cells = pd.read_csv(REFERENCES / "phe_test_input.csv")
    cells = (
        cells.query("area == 'testdata_' + @area")
        if area != "1976"
        else cells.query("area == 'testdata_big'")
    )
    cells = cells.iloc[:18] if area == "1976" else cells
    weights = np.array(standard_population("esp_1976").weights) if area == "1976" else cells.esp2013
    for level, lower, upper in ((0.95, "lower95_0cl", "upper95_0cl"), (0.998, "lower99_8cl", "upper99_8cl")):
        result = directly_standardised_rate(
            cells["count"].fillna(0), cells["pop"], weights, multiplier=multiplier, level=level,
            least_events=UK_LEAST_EVENTS,
        )  # fmt: skip
        if area == "tiny":
            assert result.flag == "x"
            assert np.isnan(result.value)
            continue
        # The agency's sheet holds the 99.8 % limits of this one area times ten.
        slip = 10 if area == "1976" and level == 0.998 else 1
        assert result.value == pytest.approx(expected.value.item(), rel=1e-12)
        assert slip * result.lower == pytest.approx(expected[lower].item(), rel=1e-12)
        assert slip * result.upper == pytest.approx(expected[upper].item(), rel=1e-12)


def test_tiwari_lies_between_gamma_and_fay_feuer() -> None:
    counts, population, _ = us_cells()
    x, n = counts[:, :4] // 200, population[:, :4] / 200
    weights = standard_population("us_2000").weights[:4]
    tiwari = directly_standardised_rate(x, n, weights, method="tiwari")
    fay = directly_standardised_rate(x, n, weights, method="fay-feuer")
    assert (tiwari.lower == fay.lower).all()
    assert ((tiwari.value < tiwari.upper) & (tiwari.upper < fay.upper)).all()


def test_one_age_group_gives_the_interval_of_the_count() -> None:
    for method, plain in (("dobson-exact", "exact"), ("dobson-byar", "byar"), ("fay-feuer", "exact")):
        one = directly_standardised_rate([7.0], [5e4], [3.0], method=method)  # type: ignore[arg-type]
        cell = rate(7.0, 5e4, method=plain)  # type: ignore[arg-type]
        assert one.value == pytest.approx(float(cell.value))
        assert one.lower == pytest.approx(float(cell.lower), rel=1e-9)
        assert one.upper == pytest.approx(float(cell.upper), rel=1e-9)


@pytest.mark.parametrize("method", [*INTERVALS, "tiwari"])
@pytest.mark.parametrize("events", [30, 200])
def test_coverage_with_noise(method: str, events: int) -> None:
    seed = 1999 + events
    print("seed", seed)
    rng = np.random.default_rng(seed)
    counts, population, _ = us_cells()
    share = events / counts[11, :4].sum()
    means, n = counts[11, :4] * share, population[11, :4] * share
    weights = np.array(standard_population("us_2000").weights[:4])
    truth = (weights * means / n).sum() / weights.sum() * 100_000
    x = rng.poisson(means, (10_000, 4))
    for epsilon in (1.0, 0.5):
        p = 1 - np.exp(-epsilon)
        noisy = x + rng.geometric(p, x.shape) - rng.geometric(p, x.shape)
        result = directly_standardised_rate(
            noisy, n, weights, method=method, noise_variance=2 * (1 - p) / p**2  # type: ignore[arg-type]
        )  # fmt: skip
        assert 0.92 <= np.mean((result.lower <= truth) & (truth <= result.upper)) <= 0.98


@given(
    counts=st.lists(st.integers(0, 500), min_size=3, max_size=3),
    variance=st.floats(0.01, 1e4),
    method=st.sampled_from([*INTERVALS, "tiwari"]),
)
def test_noise_only_widens(counts: list[int], variance: float, method: str) -> None:
    args = (counts, [1e4, 3e4, 2e4], [5, 3, 2])
    plain = directly_standardised_rate(*args, method=method)  # type: ignore[arg-type]
    noisy = directly_standardised_rate(*args, method=method, noise_variance=variance)  # type: ignore[arg-type]
    slack = 1e-9 * (1 + float(plain.upper))
    assert 0 <= noisy.lower <= plain.lower + slack
    assert plain.upper <= noisy.upper + slack
    spread = (
        np.sqrt(sum((w / n) ** 2 * variance for w, n in zip((5, 3, 2), (1e4, 3e4, 2e4), strict=True))) / 10
    )
    assert noisy.se_noise == pytest.approx(100_000 * spread)


def test_cumulative_rate_and_risk() -> None:
    groups = AgeGroups((0, 1, 5, 10, 15), open_ended=True)
    x, n = np.array([4.0, 10, 8, 9, 30]), np.array([1e3, 4e3, 5e3, 5e3, 1e4])
    by_hand = sum(w * c / m for w, c, m in zip((1, 4, 5, 5), x, n, strict=False))
    variance = sum(w**2 * c / m**2 for w, c, m in zip((1, 4, 5, 5), x, n, strict=False))
    for to_age in (15, None):
        result = cumulative_rate(x, n, groups, to_age=to_age)
        assert result.value == pytest.approx(100 * by_hand)
        assert result.se_sampling == pytest.approx(100 * variance**0.5)
        assert result.upper == pytest.approx(100 * (by_hand + 1.959963984540054 * variance**0.5))
    risk = cumulative_risk(cumulative_rate(x, n, groups, to_age=15))
    assert risk.value == pytest.approx(100 * (1 - np.exp(-by_hand)))
    assert risk.lower < risk.value < risk.upper
    noisy = cumulative_rate(x, n, groups, to_age=5, noise_variance=2.0)
    assert noisy.se_noise == pytest.approx(100 * np.sqrt(2 / 1e3**2 + 16 * 2 / 4e3**2))
    with pytest.raises(DocumentError):
        cumulative_rate(x, n, groups, to_age=14)
    with pytest.raises(DocumentError):
        cumulative_rate([1.0], [1.0], AgeGroups((0,), open_ended=True))


def test_edges_are_flagged() -> None:
    cells = rate([3.0, 3.0, np.nan, -2.0], [100.0, 0.0, 100.0, 100.0], noise_variance=[0, 0, 0, 4.0])
    assert list(cells.flag) == ["ok", "z", "c", "ok"]
    assert cells.value[3] == -2000
    assert cells.lower[3] == 0 < cells.upper[3]
    standardised = directly_standardised_rate(
        [[1.0, 2], [1, np.nan], [0, 0], [-4, -1]],
        [[10.0, 0], [10, 10], [1e3, 1e3], [1e3, 1e3]],
        [1, 1],
        noise_variance=[[0.0], [0], [0], [3]],
    )
    assert list(standardised.flag) == ["z", "c", "ok", "ok"]
    assert np.isnan(standardised.value[:2]).all()
    # No event: Byar's upper limit of 0 times the greatest weight per person.
    assert standardised.upper[2] == pytest.approx((1 - 1 / 9 + 1.959963984540054 / 3) ** 3 * 0.5 / 1e3 * 1e5)
    assert standardised.value[3] < 0 == standardised.lower[3] < standardised.upper[3]
    unweighted = directly_standardised_rate([5.0, 1.0], [100.0, 0.0], [1, 0])
    assert unweighted.value == pytest.approx(5000)


@pytest.mark.parametrize("method", [*INTERVALS, "tiwari"])
def test_negative_noisy_cells_have_finite_limits(method: str) -> None:
    result = directly_standardised_rate(
        [[-9.0, 20], [9, -20], [-1, 2], [0, 0]], [1e3, 5e5], [1, 9], method=method, noise_variance=8.0  # type: ignore[arg-type]
    )  # fmt: skip
    assert np.isfinite(result.lower).all()
    assert np.isfinite(result.upper).all()
    assert (result.lower <= np.maximum(result.value, 0)).all()
    assert (np.maximum(result.value, 0) <= result.upper).all()


def test_bad_input_is_refused() -> None:
    bad = [
        lambda: rate(1, -1),
        lambda: rate(1, 1, multiplier=0),
        lambda: directly_standardised_rate([1.0, 2], [1.0, 2], [1.0]),
        lambda: directly_standardised_rate([1.0, 2], [1.0, 2], [0.0, 0]),
        lambda: directly_standardised_rate([1.0], [1.0], [1.0], method="gamma"),  # type: ignore[arg-type]
        lambda: directly_standardised_rate(1.0, 1.0, 1.0),
        lambda: directly_standardised_rate([-1.0], [1.0], [1.0]),
    ]
    for call in bad:
        with pytest.raises(DocumentError):
            call()
