"""The preset incidence on made-up registries: edges, what is refused, and noise."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.errors import DocumentError
from mpc_engine.silo.register import load_registration, register
from mpc_engine.statistics.presets import parse_query
from tests.statistics.edge.registries import (
    PRIVACY,
    Study,
    pick,
    table,
    value,
    with_noise,
)
from tests.statistics.public_files import ask, codebook, probabilities

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

EXACT: dict[str, Any] = {"rtol": 1e-9, "atol": 1e-12}

SMALL = """
[variables]
sex = { kind = "category", categories = ["F", "M"], unknown = "?" }
site = { kind = "category", categories = ["brain", "bone"] }
year = { kind = "integer", unit = "year", lower = 2000, upper = 2003 }
period = { kind = "band", of = "year", cuts = [2002], labels = ["2000-2001", "2002-2003"] }
age = { kind = "category", categories = ["0-4", "5-9", "10-14"], unknown = "unknown" }
"""
PEOPLE = "sex,year,age,population\n" + "".join(
    f"{sex},{year},{age},{1000 * (1 + i) + 100 * j + year - 2000}\n"
    for i, sex in enumerate("FM")
    for year in range(2000, 2004)
    for j, age in enumerate(("0-4", "5-9", "10-14"))
)


def small(folder: Path, **files: tuple[str, str]) -> Codebook:
    return codebook(folder, SMALL, **({"people": ("population", PEOPLE)} | files))


def number(sex: str, year: int, age: int) -> int:
    return 1000 * ("FM".index(sex) + 1) + 100 * age + year - 2000


def test_cases_of_unknown_age_are_counted_and_in_no_rate(tmp_path: Path) -> None:
    frame = ask(small(tmp_path), [[[3, 4, 5, 2], [6, 7, 8, 1], [1, 1, 1, 1]]][0], by=["sex"], age="age")
    assert value(frame, "cases", sex="F", age="(all)") == 14
    assert value(frame, "cases", sex="F", age="unknown") == 2
    assert pick(frame, "age_specific_rate", age="unknown").empty
    people = sum(number("F", year, age) for year in range(2000, 2004) for age in range(3))
    assert value(frame, "crude_rate", sex="F") == pytest.approx(12 / people * 1e5, rel=1e-12)
    assert pick(frame, "crude_rate")["note"].str.endswith("without cases of unknown age").all()
    # Nobody is of unknown sex: cases are counted, rates do not apply.
    assert pick(frame, "crude_rate", sex="?")["flag"].item() == "z"
    assert value(frame, "cases", sex="?", age="(all)") == 4


def test_bands_of_years_have_the_people_of_all_their_years(tmp_path: Path) -> None:
    frame = ask(small(tmp_path), [[5, 5, 5, 0], [6, 6, 6, 0]], by=["period"], age="age")
    people = [
        sum(number(s, y, a) for s in "FM" for y in years for a in range(3))
        for years in ((2000, 2001), (2002, 2003))
    ]
    rates = [*(np.array([15, 18]) / people), 33 / sum(people)]  # the periods, then both together
    np.testing.assert_allclose(pick(frame, "crude_rate")["value"], np.array(rates) * 1e5, **EXACT)


def test_sites_share_the_population(tmp_path: Path) -> None:
    book = small(tmp_path)
    with pytest.raises(DocumentError, match="no column for 'site'"):
        ask(book, np.ones((2, 4)), by=["site"], age="age")
    frame = ask(book, [[5, 5, 5, 0], [6, 6, 6, 0]], by=["site"], age="age", tumour=["site"])
    people = sum(number(s, y, a) for s in "FM" for y in range(2000, 2004) for a in range(3))
    np.testing.assert_allclose(pick(frame, "crude_rate")["value"], np.array([15, 18]) / people * 1e5, **EXACT)
    where = [{"variable": "site", "in": ["bone"]}]
    with pytest.raises(DocumentError, match="by which the query filters"):
        ask(book, [5, 5, 5, 0], by=[], age="age", where=where)
    found = ask(book, [5, 5, 5, 0], by=[], age="age", where=where, tumour=["site"])
    assert value(found, "crude_rate") == pytest.approx(15 / people * 1e5, rel=1e-12)
    # Each site is compared with itself: the ratio is by sex, within sites.
    cells = np.array([[[5, 5, 5, 0], [6, 6, 6, 0], [0, 0, 0, 0]], [[9, 9, 9, 0], [1, 2, 3, 0], [0, 0, 0, 0]]])
    frame = ask(book, cells, by=["site", "sex"], age="age", tumour=["site"], ratio="internal")
    by_age = np.array([[[sum(number(s, y, a) for y in range(2000, 2004)) for a in range(3)] for s in "FM"]])
    known = cells[:, :2, :3]
    rates = known.sum(axis=1, keepdims=True) / by_age.sum(axis=1, keepdims=True)
    wanted = known.sum(axis=-1) / (rates * by_age).sum(axis=-1)
    # All sexes together are given for each site: cases of two sites are not of twice the people.
    both = pick(frame, "crude_rate", sex="(all)").set_index("site")
    assert both.index.tolist() == ["brain", "bone"]
    wanted_rates = known.sum(axis=(1, 2)) / by_age.sum()
    np.testing.assert_allclose(both["value"], wanted_rates * 1e5, **EXACT)
    assert both["note"].str.startswith("all strata together; without cases of unknown sex; per 100,000").all()
    found = pick(frame, "sir")
    np.testing.assert_allclose(found[found["sex"] != "?"]["value"], wanted.reshape(-1), **EXACT)
    assert (found[found["sex"] == "?"]["flag"] == "z").all()


def test_ratios_against_a_file_of_finer_rates(tmp_path: Path) -> None:
    rates = {(s, a): 0.001 * (i + 1) + 0.0001 * a for i, s in enumerate("FM") for a in range(3)}
    text = "".join(f"{s},{('0-4', '5-9', '10-14')[a]},{rate!r}\n" for (s, a), rate in rates.items())
    book = small(tmp_path, norm=("rates", f"sex,age,rate\n{text}"))
    frame = ask(book, [[8, 5, 5, 0], [6, 6, 6, 0]], by=["period"], age="age", ratio="norm")
    for label, years, observed in (("2000-2001", (2000, 2001), 18), ("2002-2003", (2002, 2003), 18)):
        expected = sum(rates[s, a] * number(s, y, a) for s in "FM" for y in years for a in range(3))
        found = pick(frame, "sir", period=label)
        assert found["value"].item() == pytest.approx(observed / expected, rel=1e-12)
        assert found["note"].item().endswith("against the rates of norm")
        low, high = stats.chi2.ppf(0.025, 2 * observed) / 2, stats.chi2.isf(0.025, 2 * observed + 2) / 2
        assert low / expected == pytest.approx(found["lcl"].item(), rel=0.01)  # Byar's, near the exact one
        assert high / expected == pytest.approx(found["ucl"].item(), rel=0.01)
    incomplete = small(tmp_path, norm=("rates", "sex,age,rate\nF,0-4,0.1\n"))
    with pytest.raises(DocumentError, match="norm: has no row for"):
        ask(incomplete, np.ones((2, 4)), by=["period"], age="age", ratio="norm")
    ageless = small(tmp_path, norm=("rates", "sex,rate\nF,0.1\nM,0.1\n"))
    with pytest.raises(DocumentError, match="norm: has no column for 'age'"):
        ask(ageless, np.ones((2, 4)), by=["period"], age="age", ratio="norm")


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"population": "nobody"}, "'nobody' is not a file of kind population"),
        ({"ratio": "people"}, "'people' is not a file of kind rates"),
        ({"standards": ["mars"]}, r"standards\[0\]: unknown standard population"),
        ({"standards": ["who_2000", "who_2000"]}, "names a standard population twice"),
        ({"standards": []}, "needs at least one standard"),
        ({"weights": [1, 2]}, "has 2 weights for 3 age groups"),
        ({"weights": [0, 0, 0]}, "gives no weight"),
        ({"weights": [0, 0, 5], "where": [{"variable": "age", "in": ["0-4"]}]}, "gives no weight"),
        ({"weights": [1.5, 1, 1]}, "weights"),
        ({"cumulative_to": 7}, "no limit between"),
        ({"cumulative_to": 15, "where": [{"variable": "age", "in": ["0-4"]}]}, "no limit between"),
        ({"where": [{"variable": "age", "in": ["0-4", "10-14"]}]}, "leave a gap between age groups"),
        ({"where": [{"variable": "age", "in": ["unknown"]}]}, "leave no age group"),
        ({"age": "sex", "by": []}, "age group 'F'"),
        ({"by": ["sex", "age"]}, "laid out by age in any case"),
        ({"tumour": ["age"]}, "tells people apart"),
        ({"tumour": ["grade"]}, "no variable 'grade'"),
        ({"by": [], "ratio": "internal"}, "tells people apart, to compare"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_spent(
    tmp_path: Path, keys: dict[str, Any], message: str
) -> None:
    fields = {"preset": "incidence", "by": ["sex"], "age": "age", "population": "people", "privacy": PRIVACY}
    with pytest.raises(DocumentError, match=message):
        parse_query({**fields, **keys}).layout(small(tmp_path))


def test_a_population_with_a_hole_is_refused_before_anything_is_spent(tmp_path: Path) -> None:
    lines = PEOPLE.splitlines(keepends=True)
    book = small(
        tmp_path, people=("population", "".join(line for line in lines if not line.startswith("M,2002")))
    )
    fields = {"preset": "incidence", "age": "age", "population": "people", "privacy": PRIVACY}
    with pytest.raises(DocumentError, match="people: has no row for M, 2002, 0-4"):
        parse_query({**fields, "by": ["sex", "year"]}).layout(book)


def test_a_query_with_weights_has_a_digest() -> None:
    fields = {"preset": "incidence", "age": "age", "population": "people", "privacy": PRIVACY}
    asked = parse_query({**fields, "weights": [1, 2, 3]})
    again = parse_query(asked.digest_fields())
    assert again.digest() == asked.digest() != parse_query({**fields, "weights": [1, 2, 4]}).digest()


# --- edges --------------------------------------------------------------------------------------------

MAPPING = """
codebook = "codebook.toml"
patient = "id"
[source]
file = "rows.csv"
[variables]
sex = { column = "sex", codes = { F = "F", M = "M" } }
site = { column = "site", codes = { a = "brain", b = "bone" } }
year = { column = "year" }
age = { column = "age", codes = { 0 = "0-4", 5 = "5-9", 10 = "10-14" } }
"""


def registered(folder: Path, *silos: Sequence[tuple[Any, ...]]) -> Study:
    """Return registries with rows of id, sex, site, year and age."""
    found = []
    for index, rows in enumerate(silos):
        here = folder / str(index)
        here.mkdir()
        small(here)
        (here / "mapping.toml").write_text(MAPPING, encoding="utf-8")
        rows = [(*row[:-1], "" if row[-1] is None else str(row[-1])) for row in rows]
        frame = pd.DataFrame(rows, columns=["id", "sex", "site", "year", "age"], dtype=str)
        frame.to_csv(here / "rows.csv", index=False)
        register(here / "mapping.toml", here / "state")
        found.append(load_registration(here / "state"))
    return Study(load_codebook(folder / "0" / "codebook.toml"), tuple(found))


ASKED: dict[str, Any] = {
    "preset": "incidence",
    "by": ["sex"],
    "age": "age",
    "population": "people",
    "cumulative_to": 15,
    "ratio": "internal",
    "least_events": 2,
}


def test_a_stratum_in_one_registry_an_empty_one_and_a_second_tumour(tmp_path: Path) -> None:
    one = [(f"f{i}", "F", "a", 2000 + i % 4, (0, 5, 10)[i % 3]) for i in range(12)]
    one.append(("f0", "F", "b", 2003, 10))  # a second record of the same patient
    one.append(("f99", "F", "a", 2003, None))  # age missing
    both = registered(tmp_path, one, [("m1", "M", "a", 2001, 5)], [])
    frame = both.ask(**ASKED)
    assert value(frame, "cases", sex="F", age="(all)") == 13
    assert value(frame, "cases", sex="F", age="unknown") == 1
    assert value(frame, "cases", sex="M", age="(all)") == 1
    assert pick(frame, "standardised_rate", sex="M")["flag"].item() == "x"
    capped = both.ask(**(ASKED | {"privacy": PRIVACY | {"max_records_per_patient": 2}}))
    assert value(capped, "cases", sex="F", age="(all)") == 14
    first = both.ask(
        **(ASKED | {"privacy": PRIVACY | {"max_records_per_patient": 2}, "multiple_primaries": "first"})
    )
    assert value(first, "cases", sex="F", age="(all)") == 13


def test_no_cases_at_all(tmp_path: Path) -> None:
    frame = registered(tmp_path, [], []).ask(**ASKED)
    rates = pick(frame, "crude_rate")
    assert rates[rates["sex"] != "?"]["value"].tolist() == [0, 0, 0]
    assert (rates[rates["sex"] != "?"]["ucl"] > 0).all()
    assert set(pick(frame, "sir")["flag"]) == {"z"}  # no rate to compare with
    assert set(pick(frame, "standardised_rate")["flag"]) == {"x", "z"}


def test_nobody_under_observation(tmp_path: Path) -> None:
    empty = "sex,year,age,population\n" + "".join(
        f"{sex},{year},{age},0\n"
        for sex in "FM"
        for year in range(2000, 2004)
        for age in ("0-4", "5-9", "10-14")
    )
    book = small(tmp_path, people=("population", empty))
    frame = ask(
        book, [[1, 2, 3, 0], [4, 5, 6, 0], [0, 0, 0, 0]], **{k: v for k, v in ASKED.items() if k != "preset"}
    )
    assert pick(frame, "cases", sex="(all)")["flag"].item() == "z"
    others = frame[~frame["statistic"].isin(["cases"])]
    assert (others["flag"] == "z").all() and len(others) > 20


def noisy(book: Codebook, cells: Any, noise: float, hidden: Any = None, **keys: Any) -> pd.DataFrame:
    """Return the table of given noisy cells."""
    asked = parse_query({**ASKED, "privacy": PRIVACY, **keys})
    sums = [np.asarray(cells).sum(axis=-1), np.asarray(cells).reshape(-1)]
    zero = [np.zeros_like(each, dtype=float) for each in sums]
    return table(asked, book, with_noise(asked, book, sums, [noise, noise], zero, hidden))


def test_suppressed_strata_are_flagged_everywhere_and_in_no_reference(tmp_path: Path) -> None:
    book = small(tmp_path)
    cells = [[3, 4, 5, 0], [60, 70, 80, 0], [1, 1, 1, 0]]
    frame = noisy(book, cells, 2.0, np.array([True, False, False]))
    women = frame[(frame["sex"] == "F") & (frame["statistic"] != "population")]
    assert (women["flag"] == "c").all() and women["value"].isna().all()
    assert value(frame, "sir", sex="M") == pytest.approx(1)  # only the men make the reference
    # All together are those shown, the men, and their people alone.
    together = pick(frame, "crude_rate", sex="(all)")
    assert together["value"].item() == pytest.approx(value(frame, "crude_rate", sex="M"))
    assert together["note"].item().startswith("1 shown of 2 strata together; ")
    assert value(frame, "population", sex="(all)") == value(frame, "population", sex="M")
    assert value(frame, "population", sex="F") == sum(
        number("F", year, age) for year in range(2000, 2004) for age in range(3)
    )
    gone = noisy(book, cells, 2.0, np.ones(3, np.bool_))
    hidden = gone[gone["statistic"] != "population"]
    assert set(hidden["flag"]) == {"c"} and len(gone) == len(frame)


def test_all_together_are_the_sums_of_cases_people_and_noise(tmp_path: Path) -> None:
    frame = noisy(small(tmp_path), [[3, 4, 5, 9], [60, 70, 80, 9], [1, 1, 1, 9]], 2.0)
    people = sum(number(s, year, age) for s in "FM" for year in range(2000, 2004) for age in range(3))
    (cases,) = pick(frame, "cases", sex="(all)", age="(all)").itertuples()
    assert cases.value == 222 and cases.se_noise == pytest.approx((2 * 3 * 2.0) ** 0.5)
    (crude,) = pick(frame, "crude_rate", sex="(all)").itertuples()
    assert crude.value == pytest.approx(222 / people * 1e5)
    assert crude.se_noise == pytest.approx(12**0.5 / people * 1e5)
    assert value(frame, "population", sex="(all)") == people
    found = pick(frame, "standardised_rate", sex="(all)")["note"].item()
    for words in ("ages 0-14, weights of these ages", "at most 1 record of a person", "unknown sex"):
        assert words in found
    notes = pick(frame, "cases", age="(all)")["note"].tolist()
    assert notes[0].startswith("with noise of its own") and "sum of the cases by age" in notes[-1]


def test_what_the_filters_leave_out_is_no_data(tmp_path: Path) -> None:
    where = [{"variable": "sex", "in": ["F"]}, {"variable": "age", "in": ["0-4", "5-9"]}]
    cells = [[30, 40, -5, 7], [60, 70, 80, 3], [9, 9, 9, 9]]
    frame = noisy(small(tmp_path), cells, 2.0, np.array([False, True, False]), where=where, cumulative_to=10)
    for labels in ({"sex": "M"}, {"sex": "?"}, {"age": "10-14"}, {"age": "unknown"}):
        ((name, label),) = labels.items()
        rows = frame[frame[name] == label]
        assert len(rows) and set(rows["flag"]) == {"z"} and rows["value"].isna().all()
        assert set(rows["note"]) == {"outside the filters"}
    (crude,) = pick(frame, "crude_rate", sex="(all)").itertuples()
    assert crude.value == value(frame, "crude_rate", sex="F") and crude.note.startswith("all strata together")
    assert value(frame, "cases", sex="(all)", age="(all)") == 70


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.2, 3.0, 80.0]))
def test_negative_noisy_cells_give_numbers_and_no_warning(
    tmp_path_factory: pytest.TempPathFactory, seed: int, scale: float
) -> None:
    rng = np.random.default_rng(seed)
    cells = np.rint(rng.laplace(0, scale, (3, 4))).astype(int)
    book = small(tmp_path_factory.mktemp("noisy"))
    for method in ("dobson-byar", "dobson-exact", "fay-feuer", "tiwari", "normal"):
        frame = noisy(book, cells, 2 * scale**2, standard_interval=method)
        shown = frame[frame["flag"] == "ok"]
        assert np.isfinite(shown[["value"]]).all(axis=None)
        limits = shown.dropna(subset=["lcl"])
        assert (limits["lcl"] >= 0).all() and (limits["lcl"] <= limits["ucl"]).all()
        assert not shown["display"].str.startswith("-").any()


# --- noise --------------------------------------------------------------------------------------------


def test_stated_noise_is_that_of_repeated_draws(tmp_path: Path) -> None:
    repeats = 3000
    labels = [f"r{i}" for i in range(repeats)]
    book = codebook(
        tmp_path,
        f'[variables]\nrun = {{ kind = "category", categories = {labels} }}\n'
        'age = { kind = "category", categories = ["<1", "1-4", "5-9", "10-14"] }\n',
        people=("population", "age,population\n<1,40000\n1-4,160000\n5-9,200000\n10-14,190000\n"),
        norm=("rates", "age,rate\n<1,2e-4\n1-4,1e-4\n5-9,1e-4\n10-14,1e-4\n"),
    )
    fields = {"preset": "incidence", "by": ["run"], "tumour": ["run"], "age": "age", "population": "people"}
    asked = parse_query(
        {
            **fields,
            "standards": ["who_2000", "us_2000"],
            "cumulative_to": 15,
            "ratio": "norm",
            "privacy": PRIVACY,
            "per": 1_000_000,
        }
    )
    rng = np.random.default_rng(4)
    guard, members = probabilities(asked, book)
    cells = np.tile([8, 20, 15, 18], (repeats, 1))
    noise = [
        rng.choice(guard[0], repeats, p=guard[1]).astype(float),
        rng.choice(members[0], cells.size, p=members[1]).astype(float),
    ]
    opened = with_noise(asked, book, [cells.sum(axis=-1), cells.reshape(-1)], [guard[2], members[2]], noise)
    frame = table(asked, book, opened)
    wanted = ask(book, cells, by=["run"], tumour=["run"], age="age", standards=["who_2000", "us_2000"],
                 cumulative_to=15, ratio="norm", per=1_000_000)  # fmt: skip
    for statistic, standard in (
        ("age_specific_rate", ""),
        ("crude_rate", ""),
        ("standardised_rate", "who_2000"),
        ("standardised_rate", "us_2000"),
        ("cumulative_rate", ""),
        ("sir", ""),
    ):
        found = pick(frame, statistic, standard=standard)
        true = pick(wanted, statistic, standard=standard)["value"].iloc[0]
        if statistic == "age_specific_rate":
            found = found[found["age"] == "<1"]
        spread = float(found["value"].std())
        assert found["se_noise"].iloc[0] == pytest.approx(spread, rel=0.07), statistic
        # Four standard errors of the mean: without bias, though the guard took part in the choice.
        assert abs(found["value"].mean() - true) < 4 * spread / repeats**0.5
