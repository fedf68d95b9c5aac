"""`python -m tests.harness.references`: references under this engine's names, for `pooled` expectations.

Numbers are those of the other software's files in `data/references`; only sums over studies, bins and
patients are computed here. A test holds the files to what this makes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pandas as pd

REFERENCES = Path(__file__).parents[2] / "data" / "references"
STAGES = dict(zip((1, 2, 3, 4), ("I", "II", "III", "IV"), strict=True))


def read(name: str) -> pd.DataFrame:
    """Return a file of the references, in which no text stands for something missing."""
    return pd.read_csv(REFERENCES / name, keep_default_na=False)


def counts(frame: pd.DataFrame, **columns: str) -> pd.DataFrame:
    """Return the sums of ``n`` by columns, under other names, as the statistic ``count``."""
    found = frame.groupby(list(columns), sort=False)["n"].sum().reset_index()
    found = found.rename(columns={**columns, "n": "value"})
    found.insert(0, "statistic", "count")
    return found


def stage_by_histology() -> pd.DataFrame:
    frame = read("nwtco/crosstab_stage_histol_study.csv").replace({"stage": STAGES})
    return counts(frame, stage="stage", histol="histology")


def age_histogram() -> pd.DataFrame:
    frame = read("nwtco/hist_age_12m_study.csv")
    first = frame["age_months"].str.extract(r"(\d+)")[0].astype(int)
    frame["age_months"] = frame["age_months"].where(first < 120, "≥ 120")
    return counts(frame, age_months="age_months")


def mean_age() -> pd.DataFrame:
    frame = read("nwtco/age_months_moments.csv")
    frame = frame[frame["by"] == "stage"]
    stages = frame["group"].astype(int).map(STAGES)
    named = {"n": "number", "mean": "mean", "sd": "standard_deviation"}
    return pd.concat(
        pd.DataFrame({"statistic": name, "stage": stages, "value": frame[column].astype(object)})
        for column, name in named.items()
    )


def relapse_free_by_quarter() -> pd.DataFrame:
    """Kaplan–Meier of all and by histology, and the log-rank test, both with time in quarters."""
    frame = read("nwtco/km_full_grid_quarter.csv")
    frame = frame[frame["time"] <= 65]
    curve = pd.DataFrame(
        {
            "statistic": "survival",
            "histology": frame["stratum"].str.replace("histol_l=", "").replace("all", "(all)"),
            "time": frame["time"] / 4,
            "value": frame["surv"].astype(object),
        }
    )
    tests = json.loads((REFERENCES / "nwtco" / "logrank.json").read_text())
    (test,) = (each for each in tests if each["test"] == "histol_grid_quarter")
    labels = [group[-2:] for group in test["groups"]]
    rows = [("log_rank_chi_squared", "(all)", test["chisq"])]
    rows += [("log_rank_observed", *each) for each in zip(labels, test["observed"], strict=True)]
    rows += [("log_rank_expected", *each) for each in zip(labels, test["expected"], strict=True)]
    tested = pd.DataFrame(rows, columns=["statistic", "histology", "value"])
    return pd.concat([curve, tested.assign(time="", value=tested["value"].astype(object))])


def rare_cells() -> pd.DataFrame:
    frame = read("rare_cells/truth_crosstab_80.csv").replace({"stage": STAGES})
    frame["study"] = "NWTS-" + frame["study"].astype(str)
    return counts(frame, age_band="age_group", stage="stage", histol="histology", study="study")


def size_grade_nodes() -> pd.DataFrame:
    frame = read("breast/truth_harmonised_pooled.csv").assign(n=1)
    return counts(frame, size="size", grade="grade", nodecat="nodes_group")


def recurrence_free() -> pd.DataFrame:
    frame = read("breast/km.csv")
    frame = frame[frame["a"].isin(["all", "nodes"])]
    return pd.DataFrame(
        {
            "statistic": "survival",
            "nodes_group": frame["stratum"].str.replace("nodecat=", "").replace("all", "(all)"),
            "time": (frame["t"] / 365.25).round(9),
            "value": frame["surv"],
        }
    )


def net_survival() -> pd.DataFrame:
    """Pohar Perme at whole years, of all and by stage."""
    frame = read("netsurv/relsurv_fixed_times.csv")
    chosen = (frame["dataset"] == "colrec") & (frame["method"] == "pohar-perme") & (frame["stratum"] == "all")
    whole = frame[chosen].rename(columns={"time_days": "t", "net_surv": "net"}).assign(stage="(all)")
    by_stage = read("netsurv/relsurv_by_stage.csv")
    codes = by_stage["stratum"].str.extract(r"stage(\d+)=1")[0].fillna("1").replace("99", "unknown")
    rows = pd.concat([whole[["stage", "t", "net"]], by_stage.assign(stage=codes)[["stage", "t", "net"]]])
    rows["time"] = (rows["t"] / 365.241).round(9)
    rows = rows[rows["time"].isin([1, 2, 3, 4, 5])]
    return pd.DataFrame(
        {
            "statistic": "net_survival",
            "stage": rows["stage"],
            "age_10": "(all)",
            "time": rows["time"],
            "value": rows["net"],
        }
    )


def rates(ages: str, standards: dict[str, str], limits: bool) -> pd.DataFrame:
    """Return cases and crude and standardised rates per million by year; limits are Dobson's with Byar's."""
    frame = read("asr/us_uscs_asr_by_year.csv")
    frame = frame[frame["ages"] == ages]
    first = frame[frame["standard"] == "us2000_19"]
    year = {"year": first["year"], "age_group": "(all)", "standard": ""}
    tables = [
        pd.DataFrame({"statistic": "cases", **year, "value": first["count"].astype(object)}),
        pd.DataFrame({"statistic": "crude_rate", **year, "value": first["crude"].astype(object)}),
    ]
    for theirs, ours in standards.items():
        each = frame[frame["standard"] == theirs]
        found = {
            "statistic": "standardised_rate",
            "year": each["year"],
            "age_group": "(all)",
            "standard": ours,
        }
        shown = {"value": each["asr"].astype(object)}
        if limits:
            shown |= {"lcl": each["dobson_byar_lo"], "ucl": each["dobson_byar_hi"], "se_sampling": each["se"]}
        tables.append(pd.DataFrame({**found, **shown}))
    return pd.concat(tables)


TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "nwtco/table_stage_by_histology.csv": stage_by_histology,
    "nwtco/table_age_histogram.csv": age_histogram,
    "nwtco/table_mean_age.csv": mean_age,
    "nwtco/table_relapse_free_by_quarter.csv": relapse_free_by_quarter,
    "rare_cells/table_cells.csv": rare_cells,
    "breast/table_size_grade_nodes.csv": size_grade_nodes,
    "breast/table_recurrence_free.csv": recurrence_free,
    "netsurv/table_net_survival.csv": net_survival,
    "asr/table_rates_0_19.csv": lambda: rates("0-19", {"us2000_19": "us_2000"}, False),
    "asr/table_rates_0_14.csv": lambda: rates(
        "0-14", {"us2000_19": "us_2000", "who2000_18": "who_2000"}, True
    ),
}
"""The files, each with what makes it."""


def text(name: str) -> str:
    """Return what a file is to hold."""
    return TABLES[name]().to_csv(index=False, lineterminator="\n")


if __name__ == "__main__":
    for each in TABLES:
        (REFERENCES / each).write_text(text(each), encoding="utf-8")
