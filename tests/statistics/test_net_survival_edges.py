"""The preset net_survival on made-up registries: edges, what is refused, and noise."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.dp.accounting import Rule, guarantee_for
from mpc_engine.errors import DocumentError
from mpc_engine.release.groups import parts_of
from mpc_engine.silo.register import load_registration, register
from mpc_engine.statistics.presets import parse_query
from tests.statistics.edge.registries import PRIVACY, Study, pick, table, with_noise

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")


CODEBOOK = """
name = "made-up"
version = "1"
[variables]
sex = { kind = "category", categories = ["F", "M"], unknown = "?" }
stage = { kind = "category", categories = ["I", "II", "III"], unknown = "unknown" }
age = { kind = "integer", unit = "years", lower = 0, upper = 110, unknown = "unknown" }
ages = { kind = "band", of = "age", cuts = [15, 45, 55, 65, 75], labels = [
  "0-14", "15-44", "45-54", "55-64", "65-74", "75+"
] }
oldest = { kind = "band", of = "age", cuts = [50, 95], labels = ["0-49", "50-94", "95+"] }
months = { kind = "band", of = "age", cuts = [50], labels = ["young", "old"] }
status = { kind = "category", categories = ["alive", "dead"] }
days = { kind = "integer", unit = "days", lower = 0, upper = 7000 }
year = { kind = "integer", unit = "year", lower = 1990, upper = 2009, unknown = "never" }
"""
MAPPING = """
codebook = "codebook.toml"
patient = "id"
[source]
file = "rows.csv"
[variables]
sex = { column = "sex", codes = { F = "F", M = "M" } }
stage = { column = "stage", codes = { 1 = "I", 2 = "II", 3 = "III" } }
age = { column = "age", unit = "years" }
status = { column = "status", codes = { 0 = "alive", 1 = "dead" } }
days = { column = "days", unit = "days" }
year = { column = "year" }
"""
LIVES = "sex,age,year,annual_probability\n" + "".join(
    f"{sex},{age},{year},{0.002 * (1 + i) * 1.04**age:.6f}\n"
    for i, sex in enumerate("FM")
    for age in range(20, 91)
    for year in (1995, 2000)
)
"""A life table for ages 20 to 90 in 1995 and 2000: both ends can be overstepped."""

DEFAULTS = {"sex": "F", "stage": 1, "age": 60, "status": 1, "days": 500, "year": 1997}
SMALL: dict[str, Any] = {
    "preset": "net_survival",
    "time": "days",
    "event": {"variable": "status", "in": ["dead"]},
    "by": ["stage"],
    "age": "ages",
    "sex": "sex",
    "period": [1996, 1999],
    "life_table": "lives",
    "grid": {"every": 1, "until": 3},
}


def book(folder: Path) -> Codebook:
    (folder / "lives.csv").write_text(LIVES, encoding="utf-8")
    stated = hashlib.sha256(LIVES.encode()).hexdigest()
    head = f'\n[files.lives]\npath = "lives.csv"\nkind = "life-table"\nsha256 = "{stated}"\n'
    (folder / "codebook.toml").write_text(CODEBOOK + head, encoding="utf-8")
    return load_codebook(folder / "codebook.toml")


def study(folder: Path, *silos: Sequence[Mapping[str, object]]) -> Study:
    found = []
    for number, rows in enumerate(silos):
        here = folder / str(number)
        here.mkdir()
        codebook = book(here)
        (here / "mapping.toml").write_text(MAPPING, encoding="utf-8")
        whole = [{"id": f"p{i}", **DEFAULTS, **row} for i, row in enumerate(rows)]
        texts = [{name: "" if each is None else str(each) for name, each in row.items()} for row in whole]
        pd.DataFrame(texts, columns=["id", *DEFAULTS], dtype=str).to_csv(here / "rows.csv", index=False)
        register(here / "mapping.toml", here / "state")
        found.append(load_registration(here / "state"))
    return Study(codebook, tuple(found))


def test_a_stratum_in_one_registry_and_an_empty_one(tmp_path: Path) -> None:
    one = [{"stage": 1, "days": 100 + 30 * i, "age": 30 + i} for i in range(40)]
    two = [{"stage": 2, "days": 900, "status": 0}, {"stage": None, "sex": "M"}]
    frame = study(tmp_path, one, two, []).ask(**SMALL, standard="icss_1")
    counts = pick(frame, "patients").set_index("stage")["value"]
    assert counts.to_dict() == {"I": 40, "II": 1, "III": 0, "unknown": 1}
    # One patient, censored in the third year: two years are above what is expected, the third too.
    net = pick(frame, "net_survival", stage="II", ages="(all)")
    assert (net["value"] > 1).all() and (net["flag"] == "ok").all() and (net["se_sampling"] == 0).all()
    nobody = pick(frame, "net_survival", stage="III", ages="(all)")
    assert (nobody["flag"] == "x").all()
    # Of unknown stage there is one too, who dies in the second year: 0 from there on, without an error.
    dead = pick(frame, "net_survival", stage="unknown", ages="(all)")
    assert dead["value"].tolist()[1:] == [0, 0] and dead["se_sampling"].isna().tolist()[1:] == [True, True]
    assert (pick(frame, "standardised_net_survival", stage="II")["flag"] == "x").all()


@pytest.mark.parametrize("estimator", ["pohar-perme", "ederer-2"])
def test_all_censored_all_at_once_and_one_alone(tmp_path: Path, estimator: str) -> None:
    rows = [{"stage": 1, "status": 0, "days": 10 * i} for i in range(20)]  # all censored
    rows += [{"stage": 2, "days": 400} for _ in range(20)]  # all die on one day
    rows += [{"stage": 3, "days": 0}]  # dies on the day of diagnosis
    frame = study(tmp_path, rows).ask(**SMALL, estimator=estimator)
    censored = pick(frame, "net_survival", stage="I", ages="(all)")
    assert (censored["value"].iloc[0] > 1) and censored["flag"].tolist() == ["ok", "x", "x"]
    ties = pick(frame, "net_survival", stage="II", ages="(all)")
    assert ties["value"].iloc[0] > 1 and ties["value"].tolist()[1:] == [0, 0]
    alone = pick(frame, "net_survival", stage="III", ages="(all)")
    assert alone["value"].tolist() == [0, 0, 0]
    observed = pick(frame, "survival", stage="II")
    assert observed["value"].tolist() == [1, 0, 0]


def test_unknown_age_sex_and_year_are_left_out_and_said(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"days": 1000 + i} for i in range(10)]
    rows += [
        {"age": None},
        {"sex": None},
        {"sex": None, "age": None},
        {"year": None},
        {"id": "p0", "days": 3},
    ]
    asked = {key: each for key, each in SMALL.items() if key not in ("by", "period")}
    silo = study(tmp_path, rows)
    frame = silo.ask(**asked, period=[1996, 1999])
    assert pick(frame, "patients")["value"].item() == 11  # an unknown year is no matter here
    net = pick(frame, "net_survival", ages="(all)")
    assert net["note"].str.endswith("; without patients of unknown ages or sex").all()
    assert pick(frame, "at_risk")["value"].iloc[0] == 11
    frame = silo.ask(**asked, year="year")
    assert pick(frame, "patients")["value"].item() == 10
    assert pick(frame, "net_survival", ages="(all)")["note"].iloc[0].endswith("unknown ages or sex or year")


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        ({"age": "oldest"}, "nearest values of the life table for ages above 90"),
        ({"period": [1991, 1992]}, "years before 1995"),
        ({"period": [2000, 2001]}, "nearest values of the life table for ages below 20 and years after 2000"),
    ],
)
def test_beyond_the_life_table_its_nearest_values_hold(
    tmp_path: Path, keys: dict[str, Any], note: str
) -> None:
    rows = [{"age": 20 + 2 * i, "days": 1200 + i} for i in range(40)]
    frame = study(tmp_path, rows).ask(**(SMALL | keys | {"by": []}))
    net = pick(frame, "net_survival", **{str(keys.get("age", "ages")): "(all)"})
    assert net["note"].str.contains(note, regex=False).all() and np.isfinite(net["value"]).all()


def test_ages_below_a_standard_are_left_out_of_it(tmp_path: Path) -> None:
    rows = [{"age": 16 + i % 70, "days": 300 + 7 * i, "status": i % 2} for i in range(200)]
    adults = study(tmp_path, rows)
    asked = SMALL | {"by": []}
    alone = adults.ask(**asked, standard="icss_1")
    (tmp_path / "more").mkdir()
    children = [{"age": i % 15, "days": 30} for i in range(60)]
    both = study(tmp_path / "more", [{"id": f"a{i}", **row} for i, row in enumerate(rows)], children)
    found = both.ask(**asked, standard="icss_1")
    name = "standardised_net_survival"
    np.testing.assert_array_equal(pick(found, name)["value"], pick(alone, name)["value"])
    whole = pick(found, "net_survival", ages="(all)")["value"].to_numpy()
    assert (whole < pick(alone, "net_survival", ages="(all)")["value"].to_numpy()).all()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"life_table": "deaths"}, "'deaths' is not a life table"),
        ({"age": "months"}, "age group 'young'"),
        ({"age": "days"}, "is in days; ages are needed"),
        ({"sex": "stage", "by": []}, "has no sex `I`"),
        ({"period": None, "year": "stage", "by": []}, "holds no calendar years"),
        ({"period": None, "year": "days"}, "is in days; calendar years are needed"),
        ({"period": None}, "or `period` is needed"),
        ({"year": "year"}, "or `period` is needed, and only one"),
        ({"period": [2000, 1999]}, "ends before it begins"),
        ({"age": "oldest", "standard": "icss_1"}, "standard: icss_1 has the age groups 15-44"),
        ({"standard": "icss_1", "where": [{"variable": "age", "between": [50, 60]}]}, "leave none of one"),
        ({"where": [{"variable": "sex", "in": ["?"]}]}, "the filters leave no category of sex"),
        ({"representative_ages": [30, 50]}, "representative_ages: 6 are needed"),
        ({"representative_ages": [7, 30, 50, 60, 70, 130]}, r"representative_ages\[5\]: is 130"),
        ({"age": "sex"}, "occurs twice"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_spent(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    fields = {key: each for key, each in {**SMALL, "privacy": PRIVACY, **keys}.items() if each is not None}
    with pytest.raises(DocumentError, match=message):
        parse_query(fields).layout(book(tmp_path))


def test_representative_ages_are_used_and_part_of_the_digest(tmp_path: Path) -> None:
    rows = [{"age": 74, "days": 1200 + i} for i in range(40)]
    silo = study(tmp_path, rows)
    middle = silo.ask(**(SMALL | {"by": []}))
    given = silo.ask(**(SMALL | {"by": []}), representative_ages=[7, 30, 50, 60, "74.5", "82.5"])
    assert (
        pick(given, "net_survival", ages="(all)")["value"].to_numpy()
        > pick(middle, "net_survival", ages="(all)")["value"].to_numpy()
    ).all()
    fields = {**SMALL, "privacy": PRIVACY, "representative_ages": [7, 30, 50, 60, "74.5", "82.5"]}
    asked = parse_query(fields)
    assert parse_query(asked.digest_fields()).digest() == asked.digest()


def noisy(
    folder: Path, cells: Sequence[Any], variance: float, hidden: Any = None, **keys: Any
) -> pd.DataFrame:
    asked, codebook = parse_query({**SMALL, "privacy": PRIVACY, **keys}), book(folder)
    zero = [np.zeros(np.size(each)) for each in cells]
    flat = [np.reshape(each, -1) for each in cells]
    return table(asked, codebook, with_noise(asked, codebook, flat, [variance] * len(flat), zero, hidden))


def test_suppressed_strata_are_flagged_everywhere(tmp_path: Path) -> None:
    cells = np.full((4, 7, 3, 7), 6.0)
    sizes = [np.full(4, 252.0), cells]
    one = np.array([False, True, False, False])
    frame = noisy(tmp_path, sizes, 1.0, one, standard="icss_1")
    hidden = frame[frame["stage"] == "II"]
    assert (hidden["flag"] == "c").all() and len(hidden) == len(frame[frame["stage"] == "I"])
    together = frame[(frame["stage"] == "(all)")]
    assert together["note"].str.startswith("3 shown of 4 strata together").all()
    none = noisy(tmp_path, sizes, 1.0, np.ones(4, np.bool_), standard="icss_1")
    assert set(none["flag"]) == {"c"} and len(none) == len(frame)


@pytest.mark.parametrize("scale", [0.3, 3.0, 60.0])
@pytest.mark.parametrize("people", [0, 2])
def test_negative_noisy_cells_give_a_number_or_a_flag(tmp_path: Path, scale: float, people: int) -> None:
    for seed in range(4):
        print("seed", seed)
        rng = np.random.default_rng(seed)
        cells = [people + np.rint(rng.laplace(0, scale, shape)) for shape in ((4,), (4, 7, 3, 7))]
        frame = noisy(
            tmp_path, cells, 2 * scale**2, standard="icss_1", estimator=("pohar-perme", "ederer-2")[seed % 2]
        )
        shown = frame[frame["flag"].isin(["ok", "t", "u"])]
        assert np.isfinite(shown["value"]).all()
        assert set(frame["flag"]) <= {"ok", "t", "x", "u"}
        observed = frame[frame["statistic"] == "survival"]
        wide = np.hypot(observed["se_sampling"].astype(float), observed["se_noise"].astype(float)) > 0.10
        assert (wide[observed["flag"] == "u"]).all() and not wide[observed["flag"] == "ok"].any()
        assert set(frame[frame["flag"] == "u"]["statistic"]) <= {"survival"}
        limits = shown.dropna(subset=["lcl", "ucl"])
        assert (limits["lcl"] <= limits["ucl"]).all()


def test_stated_noise_is_that_of_repeated_draws(tmp_path: Path) -> None:
    repeats = 1500
    labels = [f"r{i}" for i in range(repeats)]
    (tmp_path / "lives.csv").write_text(LIVES, encoding="utf-8")
    stated = hashlib.sha256(LIVES.encode()).hexdigest()
    text = f'{CODEBOOK}run = {{ kind = "category", categories = {labels} }}\n'.replace(', unknown = "?"', "")
    text = text.replace('upper = 110, unknown = "unknown"', "upper = 110")
    text += f'\n[files.lives]\npath = "lives.csv"\nkind = "life-table"\nsha256 = "{stated}"\n'
    (tmp_path / "codebook.toml").write_text(text, encoding="utf-8")
    codebook = load_codebook(tmp_path / "codebook.toml")
    asked = parse_query(
        {**SMALL, "by": ["run"], "privacy": {"epsilon": "2"}, "standard": "icss_1", "by_age": True}
    )
    groups = asked.layout(codebook).groups
    made = guarantee_for(Fraction(2), parts_of(groups), Rule.NOISY, 5)
    row = np.array([20, 2, 12, 4, 8, 3, 60])
    cells = np.tile(row, (repeats, 6 * 2, 1))
    rng = np.random.default_rng(9)
    noise, variances = [], []
    for each, size in zip(made.allotments, (repeats, cells.size), strict=True):
        values = np.arange(-each.table.limit, each.table.limit + 1)
        chances = np.array([float(each.table.probability(int(x))) for x in values])
        noise.append(rng.choice(values, size, p=chances / chances.sum()).astype(float))
        variances.append(float(each.table.variance))
    sums = [np.full(repeats, 12 * row.sum()), cells.reshape(-1)]
    frame = table(asked, codebook, with_noise(asked, codebook, sums, variances, noise))
    frame = frame[frame["run"] != "(all)"]
    plain = parse_query({**SMALL, "by": [], "privacy": PRIVACY, "standard": "icss_1", "by_age": True})
    true = with_noise(
        plain, codebook, [sums[0][:1], cells[0].reshape(-1)], [0.0, 0.0], [np.zeros(1), np.zeros(12 * 7)]
    )
    exact = table(plain, codebook, true)
    for statistic, age in (
        ("net_survival", "(all)"),
        ("net_survival", "65-74"),
        ("standardised_net_survival", "(all)"),
        ("survival", "(all)"),
    ):
        found = pick(frame, statistic, ages=age)
        for year in (1.0, 3.0):
            rows = found[np.isclose(found["time"], year)]
            spread = float(rows["value"].std())
            assert rows["se_noise"].median() == pytest.approx(spread, rel=0.1), (statistic, age, year)
            truth = pick(exact, statistic, ages=age)
            away = rows["value"].mean() - truth[np.isclose(truth["time"], year)]["value"].item()
            assert abs(away) < max(5 * spread / repeats**0.5, 0.1 * spread), (statistic, age, year)


def test_noise_on_late_entries_does_not_reach_those_at_risk_before_them(tmp_path: Path) -> None:
    codebook_text = CODEBOOK + 'diagnosed = { kind = "date", lower = 1990-01-01, upper = 2009-12-31 }\n'
    (tmp_path / "lives.csv").write_text(LIVES, encoding="utf-8")
    stated = hashlib.sha256(LIVES.encode()).hexdigest()
    head = f'\n[files.lives]\npath = "lives.csv"\nkind = "life-table"\nsha256 = "{stated}"\n'
    (tmp_path / "codebook.toml").write_text(codebook_text + head, encoding="utf-8")
    codebook = load_codebook(tmp_path / "codebook.toml")
    fields = {key: each for key, each in SMALL.items() if key != "period"}
    fields |= {
        "approach": "period",
        "diagnosed": "diagnosed",
        "window": ["1996-01-01", "1998-12-31"],
        "by": [],
    }
    asked = parse_query({**fields, "grid": {"every": 1, "until": 2}, "privacy": PRIVACY})
    shape = (7, 3)
    outcomes, entries = np.full((*shape, 5), 10.0), np.tile([20.0, 0.0, 0.0], (*shape, 1))
    cells = [np.array([50.0 * 21]), outcomes.reshape(-1), entries.reshape(-1)]
    zero = [np.zeros(len(each)) for each in cells]
    # 600 at risk in twelve cells. Of the late entries only those of the second year are behind the first
    # year's number at risk, so its noise has the variance of twelve cells; nobody enters after the second.
    for variance, flags in ((5_000.0, ["ok", "ok"]), (8_000.0, ["t", "t"])):
        assert (2 * (12 * variance) ** 0.5 < 600) == (flags == ["ok", "ok"])
        opened = with_noise(asked, codebook, cells, [0.0, 0.0, variance], zero)
        net = pick(table(asked, codebook, opened), "net_survival", ages="(all)")
        assert net["flag"].tolist() == flags
