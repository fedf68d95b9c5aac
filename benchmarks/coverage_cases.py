"""What coverage is measured of: presets, made-up cohorts of known truth, and the rows that come out.

The repetitions are the categories of one variable, so that a single release holds them all as strata, each
with a cohort and noise of its own, and the preset's own `finish` makes a thousand estimates at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cohorts import CHILDHOOD, HEAVY, HIGH, Ages, Floats, FollowUpModel, NetModel
from benchmarks.simulated import promised, release
from mpc_engine.codebook import Codebook
from mpc_engine.documents import parse
from mpc_engine.estimators.population_tables import PopulationTable
from mpc_engine.estimators.standards import parse_age_groups, standard_population
from mpc_engine.release.opened import Opened
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query
from mpc_engine.statistics.tidy import ALL, OK, UNRELIABLE

DATA = Path(__file__).resolve().parent.parent / "data"
LIFE_TABLE = DATA / "population" / "slovenia_life_table.csv"
AGE_GROUPS = ("<1", "1-4", "5-9", "10-14", "15-19")
PERSON_YEARS = (650_000, 2_600_000, 3_300_000, 3_200_000, 3_100_000)
"""Of a country with some 13 million people below 20, in a year."""
RATES = (240.0, 205.0, 115.0, 130.0, 220.0)
"""Cases per million person-years by age group: the shape of childhood cancer as a whole."""

GRIDS: dict[str, dict[str, Any]] = {
    "annual": {"unit": "years", "every": 1, "until": 5},
    "quarterly": {"unit": "months", "every": 3, "until": 60},
    "monthly": {"unit": "months", "every": 1, "until": 60},
    "1, 2, 3, 5, 10": {"unit": "years", "edges": [1, 2, 3, 5, 10]},
    "1, 5, 10": {"unit": "years", "edges": [1, 5, 10]},
}
SIZES = (30, 60, 100, 200, 500, 1000)


@dataclass(frozen=True)
class Row:
    """How the intervals of one statistic did over all repetitions.

    ``shown`` is the share of repetitions with a value flagged ok or unreliable; the rest refers to these
    alone.
    ``coverage`` is the share of 95 % intervals that hold the truth, a missing interval counting as a miss;
    ``bias`` the mean error, ``spread`` its standard deviation and ``half_width`` the mean half-width, in
    ``unit``; ``noise_share`` the noise's part of the stated variance. ``required``: must be within 92–98 %.
    """

    section: str
    case: str
    statistic: str
    size: float
    epsilon: str
    repetitions: int
    shown: float
    coverage: float
    bias: float
    spread: float
    half_width: float
    noise_share: float
    unit: str
    required: bool

    def as_fields(self) -> dict[str, object]:
        """Return the row as plain fields; a missing figure is None."""
        fields = asdict(self)
        return {name: None if isinstance(x, float) and np.isnan(x) else x for name, x in fields.items()}


@dataclass(frozen=True)
class Wanted:
    """A statistic of a release and the truth that its interval is to hold.

    ``scale`` brings values to ``unit``; ``where`` are further columns with the values that they must have.
    """

    label: str
    statistic: str
    truth: float
    unit: str
    scale: float = 1.0
    where: tuple[tuple[str, object], ...] = ()
    required: bool = False


@dataclass(frozen=True)
class Bench:
    """What every case needs: how many repetitions, the generator, and a folder for public files."""

    repetitions: int
    rng: np.random.Generator
    folder: Path

    def codebook(self, **extra: Any) -> Codebook:
        """Return a codebook whose variable ``repetition`` numbers the repetitions; ``extra`` are its keys."""
        labels = [f"r{number}" for number in range(self.repetitions)]
        variables = {
            "repetition": {"kind": "category", "categories": labels},
            "age_group": {"kind": "category", "categories": list(AGE_GROUPS)},
            "age_months": {"kind": "integer", "unit": "months", "lower": 0, "upper": 239},
            "age": {"kind": "integer", "unit": "years", "lower": 0, "upper": 110},
            "age_band": {
                "kind": "band",
                "of": "age",
                "cuts": [45, 55, 65, 75],
                "labels": ["15-44", "45-54", "55-64", "65-74", "75+"],
            },
            "sex": {"kind": "category", "categories": ["male", "female"]},
            "status": {"kind": "category", "categories": ["alive", "dead"]},
            "days": {"kind": "integer", "unit": "days", "lower": 0, "upper": 10_000},
        }
        book = {"name": "coverage", "version": "1", "variables": variables, **extra}
        return parse(book, Codebook, str(self.folder / "codebook.toml"))

    def file(self, name: str, kind: str, text: str) -> dict[str, Any]:
        """Write a public file and return its entry of a codebook."""
        (self.folder / name).write_text(text, encoding="utf-8")
        return {"path": name, "kind": kind, "sha256": hashlib.sha256(text.encode()).hexdigest()}

    def open(self, query: Query, codebook: Codebook, sums: Sequence[Any]) -> Opened:
        """Return one release of the query with the repetitions as strata."""
        return release(*promised(query, codebook), sums, self.rng)

    def rows(
        self, query: Query, codebook: Codebook, opened: Opened, case: tuple[str, str, float], *wanted: Wanted
    ) -> Iterator[Row]:
        """Yield a row for each wanted statistic; ``case`` is section, name and size."""
        columns = query.finish(codebook, opened).columns()
        own = columns["repetition"] != ALL
        for each in wanted:
            taken = own & (columns["statistic"] == each.statistic)
            for name, value in each.where:
                held = columns[name]
                taken &= np.isclose(held, value) if isinstance(value, float) else held == value
            found = {
                name: columns[name][taken] for name in ("value", "lcl", "ucl", "se_sampling", "se_noise")
            }
            shown = np.isin(columns["flag"][taken].astype(str), (OK, UNRELIABLE))
            yield self._row(each, case, query, found, shown)

    def _row(
        self, wanted: Wanted, case: tuple[str, str, float], query: Query, found: dict[str, Any], ok: Any
    ) -> Row:
        if len(ok) != self.repetitions:
            raise RuntimeError(f"{wanted.label}: {len(ok)} rows for {self.repetitions} repetitions")
        value, lower, upper, sampling, noise = (np.asarray(x, np.float64)[ok] for x in found.values())
        error, both = (value - wanted.truth) * wanted.scale, sampling**2 + noise**2
        finite, some = np.isfinite(error), len(value) > 0
        slack = 1e-9 * abs(wanted.truth)
        inside = (lower <= wanted.truth + slack) & (wanted.truth - slack <= upper)
        with np.errstate(invalid="ignore"):  # both limits may be infinite
            width = (upper - lower) / 2 * wanted.scale
        return Row(
            *case[:2],
            wanted.label,
            case[2],
            query.privacy.epsilon,
            self.repetitions,
            float(ok.mean()),
            float(inside.mean()) if some else np.nan,
            float(error[finite].mean()) if finite.any() else np.nan,
            float(error[finite].std()) if finite.any() else np.nan,
            float(width[np.isfinite(width)].mean()) if np.isfinite(width).any() else np.nan,
            float(np.nansum(noise**2) / np.nansum(both)) if np.isfinite(both).any() else np.nan,
            wanted.unit,
            wanted.required and query.privacy.epsilon == "1",
        )


def _query(preset: str, epsilon: str, **keys: Any) -> Query:
    return parse_query({"preset": preset, "by": ["repetition"], "privacy": {"epsilon": epsilon}} | keys)


def counts(bench: Bench, sizes: Sequence[int] = (5, 10, 20, 50, 200), epsilon: str = "1") -> Iterator[Row]:
    """Yield the rows of counts, Poisson with means ``sizes``."""
    book = bench.codebook()
    query = _query("crosstab", epsilon)
    for size in sizes:
        opened = bench.open(query, book, [bench.rng.poisson(size, bench.repetitions)])
        wanted = Wanted("count", "count", size, "records", required=size >= 20)
        yield from bench.rows(query, book, opened, ("counts", "", size), wanted)


def rates(bench: Bench, sizes: Sequence[int] = (20, 50, 200, 1000), epsilon: str = "1") -> Iterator[Row]:
    """Yield the rows of crude and standardised rates, both intervals, and of a rate by age."""
    people, shape = np.array(PERSON_YEARS, np.float64), np.array(RATES)
    lines = [
        f"r{r},{age},{n}"
        for r in range(bench.repetitions)
        for age, n in zip(AGE_GROUPS, PERSON_YEARS, strict=True)
    ]
    text = "\n".join(["repetition,age_group,population", *lines]) + "\n"
    book = bench.codebook(files={"people": bench.file("people.csv", "population", text)})
    weights = np.array(standard_population("us_2000").collapse(parse_age_groups(AGE_GROUPS)).weights)
    for size in sizes:
        expected = people * shape * size / (people @ shape)
        sums = bench.rng.poisson(expected, (bench.repetitions, len(expected)))
        standardised = 1e6 * float(weights @ (expected / people)) / float(weights.sum())
        crude = 1e6 * size / float(people.sum())
        opened = None
        for interval in ("dobson-byar", "tiwari"):
            query = _query(
                "incidence",
                epsilon,
                age="age_group",
                population="people",
                standards=["us_2000"],
                per=1_000_000,
                standard_interval=interval,
            )
            opened = opened or bench.open(query, book, [sums.sum(axis=1), sums])
            wanted = [
                Wanted(
                    f"standardised, {interval}",
                    "standardised_rate",
                    standardised,
                    "% of the rate",
                    100 / standardised,
                    required=True,
                )
            ]
            if interval == "dobson-byar":
                wanted.insert(
                    0, Wanted("crude", "crude_rate", crude, "% of the rate", 100 / crude, required=True)
                )
                own = 1e6 * expected[2] / people[2]
                wanted.append(
                    Wanted(
                        "at ages 5-9",
                        "age_specific_rate",
                        own,
                        "% of the rate",
                        100 / own,
                        (("age_group", "5-9"),),
                        required=bool(expected[2] >= 20),
                    )
                )
            yield from bench.rows(query, book, opened, ("rates", "", size), *wanted)


def means(bench: Bench, sizes: Sequence[int] = (30, 60, 100, 200, 1000), epsilon: str = "1") -> Iterator[Row]:
    """Yield the rows of mean age in months, with and without squares."""
    book, ages = bench.codebook(), Ages()
    for variance in (True, False):
        query = _query("mean", epsilon, variable="age_months", variance=variance)
        centre = (0 + ages.most) // 2
        for size in sizes:
            sums = ages.sums(size, centre, bench.repetitions, bench.rng)
            opened = bench.open(query, book, sums if variance else sums[:2])
            label = "mean, with squares" if variance else "mean, without squares"
            wanted = Wanted(label, "mean", ages.mean, "months", required=variance)
            yield from bench.rows(query, book, opened, ("means", "", size), wanted)


def survival(
    bench: Bench,
    model: FollowUpModel,
    grid: str,
    sizes: Sequence[int] = SIZES,
    epsilon: str = "1",
    methods: Sequence[str] = ("kaplan-meier", "actuarial"),
) -> Iterator[Row]:
    """Yield the rows of survival at 1, 3 and 5 years, all three intervals, and given survival of one year."""
    book = bench.codebook()
    base = _survival_query(epsilon, grid)
    edges = base.years()  # type: ignore[attr-defined]
    chances = model.chances(edges)
    for size in sizes:
        sums = bench.rng.multinomial(size, chances, bench.repetitions)
        opened = bench.open(base, book, [sums.sum(axis=1), sums])
        for method in methods:
            for interval in ("log-log", "log", "plain"):
                query = _survival_query(epsilon, grid, method=method, interval=interval)
                case = ("survival", f"{model.name}, {grid}, {method}", size)
                wanted = _survival_wanted(model, edges, method, grid, size, interval)
                yield from bench.rows(query, book, opened, case, *wanted)


def _survival_query(epsilon: str, grid: str, **keys: Any) -> Query:
    return _query(
        "survival",
        epsilon,
        time="days",
        event={"variable": "status", "in": ["dead"]},
        grid=GRIDS[grid],
        conditional_on=[1],
        **keys,
    )


def _survival_wanted(
    model: FollowUpModel, edges: Floats, method: str, grid: str, size: float, interval: str
) -> list[Wanted]:
    def at(year: int) -> float:
        return float(model.true_survival(np.array(float(year))))

    times = [year for year in (1, 3, 5) if np.isclose(edges, year).any()]
    if interval != "log-log":
        times = [5]
    needed = method == "kaplan-meier" and grid == "annual" and size >= 200 and model is CHILDHOOD
    found = [
        Wanted(
            f"{year}-year, {interval}",
            "survival",
            at(year),
            "points",
            100,
            (("time", float(year)),),
            required=needed and year == 5,
        )
        for year in times
    ]
    if interval == "log-log":
        found.append(
            Wanted(
                "5 years given 1, log-log",
                "conditional_survival_1y",
                at(5) / at(1),
                "points",
                100,
                (("time", 5.0),),
            )
        )
    return found


def median(bench: Bench, sizes: Sequence[int] = SIZES, epsilon: str = "1") -> Iterator[Row]:
    """Yield the rows of median survival; the truth is that of continuous times, between the edges."""
    model = FollowUpModel("median", 0.30, 0.8, (0.0, 10.0))
    book = bench.codebook()
    for grid in ("annual", "quarterly"):
        query = _survival_query(epsilon, grid)
        chances = model.chances(query.years())  # type: ignore[attr-defined]
        for size in sizes:
            sums = bench.rng.multinomial(size, chances, bench.repetitions)
            opened = bench.open(query, book, [sums.sum(axis=1), sums])
            wanted = Wanted("median", "median_survival", model.median(), "years")
            yield from bench.rows(query, book, opened, ("median", f"{grid} grid", size), wanted)


def net_survival(bench: Bench, sizes: Sequence[int] = (500, 2000, 6000), epsilon: str = "1") -> Iterator[Row]:
    """Yield the rows of net survival, Pohar Perme, by age and sex on an annual grid."""
    model, text = NetModel(), LIFE_TABLE.read_text(encoding="utf-8")
    book = bench.codebook(files={"life": bench.file("life.csv", "life-table", text)})
    query = _query(
        "net_survival",
        epsilon,
        time="days",
        event={"variable": "status", "in": ["dead"]},
        grid=GRIDS["annual"],
        age="age_band",
        sex="sex",
        period=list(model.years),
        life_table="life",
    )
    edges = query.years()  # type: ignore[attr-defined]
    chances = model.chances(PopulationTable.from_csv(text), edges)
    for size in sizes:
        sums = bench.rng.multinomial(size, chances.reshape(-1), bench.repetitions)
        opened = bench.open(query, book, [sums.sum(axis=1), sums])
        wanted = [
            Wanted(
                f"{year}-year net, log",
                "net_survival",
                float(model.true_net(np.array([float(year)]))[0]),
                "points",
                100,
                (("time", float(year)), ("age_band", ALL)),
            )
            for year in (1, 3, 5)
        ]
        yield from bench.rows(query, book, opened, ("net survival", "annual grid", size), *wanted)


def everything(bench: Bench) -> Iterator[Row]:
    """Yield all rows of the documented table."""
    for epsilon in ("1", "0.5"):
        yield from counts(bench, epsilon=epsilon)
        yield from rates(bench, epsilon=epsilon)
        yield from means(bench, epsilon=epsilon)
        yield from survival(bench, CHILDHOOD, "annual", epsilon=epsilon)
    for model in (CHILDHOOD, HEAVY):
        for grid in GRIDS:
            if (model, grid) != (CHILDHOOD, "annual"):
                yield from survival(bench, model, grid)
    yield from survival(bench, HIGH, "annual")
    yield from median(bench)
    yield from net_survival(bench)
