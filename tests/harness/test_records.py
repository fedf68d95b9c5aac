"""Made-up records: what they are for, they do; and what they cannot be made for, they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from mpc_engine.codebook import load_codebook
from mpc_engine.errors import DocumentError
from mpc_engine.harness.records import asked_query, cell_counts, generate
from mpc_engine.scenario.document import Scenario, load_scenario
from mpc_engine.silo.register import load_registration, register
from mpc_engine.silo.tabulate import tabulate

CODEBOOK = """
name = "c"
version = "1"
[variables.sex]
kind = "category"
categories = ["female", "male"]
unknown = "unknown"
[variables.age]
kind = "integer"
unit = "years"
lower = 10
upper = 19
unknown = "n/k"
[variables.band]
kind = "band"
of = "age"
cuts = [12, 15]
labels = ["10-11", "12-14", "15-19"]
[variables.diagnosed]
kind = "date"
lower = 2000-01-01
upper = 2009-12-31
"""
MAPPING = """
codebook = "codebook.toml"
patient = "id"
one_row_per_patient = true
[source]
file = "none.csv"
[variables.sex]
column = "s"
codes = { f = "female", w = "female", m = "male", x = "unknown" }
[variables.age]
column = "a"
[variables.diagnosed]
date = { column = "d", formats = ["%d.%m.%Y"] }
"""
QUERY = 'preset = "crosstab"\nby = ["band", "sex"]\n[privacy]\nepsilon = "1"\nthreshold = 3\n'
HEAD = """
codebook = "codebook.toml"
query = "query.toml"
[policy]
greatest_epsilon = "1"
least_threshold = 4
"""
PARTY = '[[party]]\nname = "{name}"\nmapping = "mapping.toml"\nrecords = {records}\n'


def scenario_of(
    folder: Path, *records: str, query: str = QUERY, mapping: str = MAPPING, codebook: str = CODEBOOK
) -> Scenario:
    parties = "".join(PARTY.format(name=f"p{i}", records=each) for i, each in enumerate(records))
    parties += "".join(f'[[party]]\nname = "helper{i}"\n' for i in range(3 - len(records)))
    texts = {"codebook": codebook, "mapping": mapping, "query": query, "scenario": HEAD + parties}
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return load_scenario(folder / "scenario.toml")


CELLS = '{ kind = "cells", seed = 5 }'


def counted(scenario: Scenario, folder: Path) -> list[np.ndarray]:
    """Generate, register and count every silo's records."""
    codebook = load_codebook(scenario.path(scenario.codebook))
    found = []
    for party in (each for each in scenario.party if each.mapping is not None):
        out = folder / f"out-{party.name}"
        out.mkdir()
        register(generate(scenario, party, out), out / "data")
        sums = tabulate(asked_query(scenario, scenario.asks[0]), codebook, load_registration(out / "data"))
        found.append(sums.take()[0][0])
    return found


def test_every_cell_holds_the_threshold_or_one_more(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, CELLS, CELLS, CELLS)
    sums = counted(scenario, tmp_path)
    whole = sum(sums)
    assert whole.shape == (12,)  # three bands and unknown, two sexes and unknown
    assert set(whole.tolist()) == {4, 5}  # of the policy, which is stricter than the query
    least, split = cell_counts(scenario, load_codebook(tmp_path / "codebook.toml"))
    assert least == 4
    for name, mine in zip(("p0", "p1", "p2"), sums, strict=True):
        assert (split[name] == mine).all()
    assert not (sums[0] == sums[1]).all()


def test_coins_are_fair_and_patients_evenly_spread(tmp_path: Path) -> None:
    wide = CODEBOOK.replace("upper = 19", "upper = 20009")
    query = QUERY.replace('"band"', '"age"')
    scenario = scenario_of(tmp_path, CELLS, CELLS, query=query, codebook=wide)
    least, split = cell_counts(scenario, load_codebook(tmp_path / "codebook.toml"))
    whole = split["p0"] + split["p1"]
    assert abs((whole == least + 1).mean() - 0.5) < 0.01
    assert abs(split["p0"].sum() / whole.sum() - 0.5) < 0.005
    assert abs(np.corrcoef(whole[:-1], whole[1:])[0, 1]) < 0.02


def test_the_same_seeds_make_the_same_records(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for records in (CELLS, '{ kind = "dummy", rows = 50, seed = 3 }'):
        for folder in (one, two):
            folder.mkdir(exist_ok=True)
        scenario = scenario_of(tmp_path, records, records)
        made = [
            [
                generate(scenario, party, folder).with_suffix("").with_suffix(".parquet").read_bytes()
                for party in scenario.party[:2]
            ]
            for folder in (one, two)
        ]
        assert made[0] == made[1]
        assert made[0][0] != made[0][1]
        for folder in (one, two):
            for file in folder.iterdir():
                file.unlink()


def test_dummy_records_go_through_the_partys_own_columns(tmp_path: Path) -> None:
    scenario = scenario_of(tmp_path, '{ kind = "dummy", rows = 80 }', '{ kind = "dummy", rows = 30 }')
    assert [int(each.sum()) for each in counted(scenario, tmp_path)] == [80, 30]


def test_nobody_can_be_made_up_for_some_documents(tmp_path: Path) -> None:
    refused = [
        ({"query": QUERY.replace("by =", "totals = true\nby =")}, "one table of counts"),
        ({"query": QUERY + '[[where]]\nvariable = "sex"\nin = ["male"]\n'}, "one table of counts"),
        ({"mapping": MAPPING.replace('m = "male", ', "")}, "no code says 'male'"),
        ({"mapping": MAPPING.replace('column = "a"', 'column = "a"\nunit = "months"')}, "own unit"),
        ({"query": QUERY.replace('"sex"]', '"age"]')}, "read from one column"),
        (
            {
                "mapping": MAPPING.replace(
                    'column = "a"', 'year_of = { column = "d", formats = ["%d.%m.%Y"] }'
                )
            },
            "a column of its own",
        ),
    ]
    for change, words in refused:
        scenario = scenario_of(tmp_path, CELLS, CELLS, **change)
        with pytest.raises(DocumentError, match=words):
            generate(scenario, scenario.party[0], tmp_path)
    scenario = scenario_of(tmp_path, '{ kind = "dummy" }')
    with pytest.raises(DocumentError, match="at least 1"):
        generate(scenario, scenario.party[0], tmp_path)
    bare = scenario.party[0].model_copy(update={"records": None})
    with pytest.raises(DocumentError, match="no made-up records"):
        generate(scenario, bare, tmp_path)
