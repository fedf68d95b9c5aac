"""Registries made for a test: their rows are registered and tabulated for real, and added up in the clear."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.release.opened import Opened, arrange, true_groups
from mpc_engine.silo.register import Registration, load_registration, register
from mpc_engine.silo.tabulate import tabulate
from mpc_engine.statistics.layout import Layout
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

ROOT = Path(__file__).parents[3]
REFERENCES = ROOT / "data" / "references"
PRIVACY = {"epsilon": "1"}

Array = npt.NDArray[Any]

CODEBOOK = """
name = "made-up"
version = "1"
[variables]
sex = { kind = "category", categories = ["F", "M"] }
stage = { kind = "category", categories = ["I", "II", "III"], unknown = "unknown" }
age = { kind = "integer", unit = "years", lower = 0, upper = 99, unknown = "unknown" }
age_group = { kind = "band", of = "age", cuts = [15, 65], labels = ["0-14", "15-64", "65+"] }
status = { kind = "category", categories = ["alive", "dead"], unknown = "lost" }
code = { kind = "integer", unit = "code", lower = 0, upper = 2, unknown = "none" }
days = { kind = "integer", unit = "days", lower = 0, upper = 7000, unknown = "unknown" }
months = { kind = "integer", unit = "months", lower = 0, upper = 240, unknown = "unknown" }
diagnosed = { kind = "date", lower = 1990-01-01, upper = 2015-12-31, unknown = "unknown" }
one_value = { kind = "integer", unit = "things", lower = 3, upper = 3, unknown = "unknown" }
signed = { kind = "integer", unit = "days", lower = -5, upper = 500, unknown = "unknown" }
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
code = { column = "status" }
days = { column = "days", unit = "days" }
months = { not_collected = true }
diagnosed = { date = { column = "diagnosed", formats = ["%Y-%m-%d"] } }
one_value = { not_collected = true }
signed = { not_collected = true }
"""

COLUMNS = ("id", "sex", "stage", "age", "status", "days", "diagnosed")
"""Columns of a made-up registry; a row may leave out any, which is then taken from `DEFAULTS`."""
DEFAULTS: Mapping[str, object] = {
    "sex": "F",
    "stage": 1,
    "age": 50,
    "status": 0,
    "days": 1000,
    "diagnosed": "2000-01-01",
}


@dataclass(frozen=True)
class Study:
    """A codebook and the registries that registered for it."""

    codebook: Codebook
    silos: tuple[Registration, ...]
    known: dict[Layout, list[Array]] = field(default_factory=dict)

    def sums(self, query: Query) -> list[Array]:
        """Return the sums over all registries, one row of cells per tally; the same cells only once."""
        layout = query.layout(self.codebook)
        if layout in self.known:
            return self.known[layout]
        sums: list[Array] = []
        for silo in self.silos:
            rows = [each[0] for each in tabulate(query, self.codebook, silo).take()]
            sums = [one + other for one, other in zip(sums, rows, strict=True)] if sums else rows
        self.known[layout] = sums
        return sums

    def opened(self, query: Query) -> Opened:
        """Return the true sums as if opened."""
        return true_groups(query.layout(self.codebook).groups, self.sums(query))

    def ask(self, **document: Any) -> pd.DataFrame:
        """Return the tidy table of a query, from true sums."""
        query = parse_query({"privacy": PRIVACY, **document})
        return table(query, self.codebook, self.opened(query))


def table(query: Query, codebook: Codebook, opened: Opened) -> pd.DataFrame:
    """Return the tidy table of opened values, and make sure that it keeps its promises."""
    frame = pd.DataFrame(query.finish(codebook, opened).columns())
    assert not np.isin(frame["value"].isna() & np.isin(frame["flag"], ["ok", "u"]), True).any()
    hidden = frame[~frame["flag"].isin(["ok", "t", "u"])]
    numbers = hidden[["value", "lcl", "ucl", "se_sampling", "se_noise", "n_shown"]]
    assert numbers.isna().all(axis=None) and (hidden["display"] == "[" + hidden["flag"] + "]").all()
    return frame


def pick(frame: pd.DataFrame, statistic: str, **labels: str) -> pd.DataFrame:
    """Return the rows of one statistic for the given categories, the others taken as a whole if there."""
    found = frame[frame["statistic"] == statistic]
    for name, label in labels.items():
        found = found[found[name] == label]
    return found


def value(frame: pd.DataFrame, statistic: str, **labels: str) -> float:
    """Return the only value of a statistic."""
    (found,) = pick(frame, statistic, **labels)["value"]
    return float(found)


def study(folder: Path, *silos: Sequence[Mapping[str, object]]) -> Study:
    """Return registered registries with the given rows; a patient without ``id`` has one record."""
    found = []
    for number, rows in enumerate(silos):
        here = folder / str(number)
        here.mkdir()
        (here / "codebook.toml").write_text(CODEBOOK, encoding="utf-8")
        (here / "mapping.toml").write_text(MAPPING, encoding="utf-8")
        whole = [{"id": f"p{i}", **DEFAULTS, **row} for i, row in enumerate(rows)]
        pd.DataFrame(whole, columns=list(COLUMNS)).astype(object).to_csv(here / "rows.csv", index=False)
        register(here / "mapping.toml", here / "state")
        found.append(load_registration(here / "state"))
    return Study(load_codebook(folder / "0" / "codebook.toml"), tuple(found))


def scenario(folder: Path, name: str, silos: Mapping[str, str], extra: str = "") -> Study:
    """Return the registered silos of a scenario; ``extra`` is added to the codebook, and to the mapping of
    each silo what ``silos`` holds for it."""
    source = ROOT / "scenarios" / name
    found = []
    (folder / "codebook.toml").write_text((source / "codebook.toml").read_text("utf-8") + extra, "utf-8")
    for silo, more in silos.items():
        text = (source / f"{silo}.mapping.toml").read_text("utf-8").replace("../../data", f"{ROOT}/data")
        (folder / f"{silo}.mapping.toml").write_text(text + more, "utf-8")
        register(folder / f"{silo}.mapping.toml", folder / silo)
        found.append(load_registration(folder / silo))
    return Study(load_codebook(folder / "codebook.toml"), tuple(found))


def with_noise(
    query: Query,
    codebook: Codebook,
    sums: Sequence[Array],
    variances: Sequence[float],
    noise: Sequence[Array],
    hidden: Array | None = None,
) -> Opened:
    """Return sums with noise as if opened; ``hidden`` says which groups of the first kind are suppressed."""
    groups = query.layout(codebook).groups
    pattern = [np.ones(each.guard.grid.cells, np.bool_) for each in groups]
    if hidden is not None:
        pattern[0] = ~hidden.reshape(-1)
    rows = [np.asarray(one, np.float64) + other for one, other in zip(sums, noise, strict=True)]
    return arrange(groups, pattern, rows, variances, query.privacy.threshold)


def laplace(generator: np.random.Generator, epsilon: float, shape: tuple[int, ...]) -> Array:
    """Draw discrete Laplace noise with P(x) in proportion to exp(-ε|x|)."""
    p = 1 - np.exp(-epsilon)
    return np.asarray(generator.geometric(p, shape) - generator.geometric(p, shape))
