"""Tabulation against pandas on random tables, the cap, and what cells do not reveal."""

from __future__ import annotations

import copy
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import studies
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mpc_engine.errors import DataError
from mpc_engine.silo.mapping import load_mapping
from mpc_engine.silo.register import Registration, load_registration, register
from mpc_engine.silo.tabulate import Cells, tabulate
from mpc_engine.statistics.presets import parse_query

LABELS = {
    "sex": ["female", "male"],
    "stage": ["I", "II", "III", "unknown"],
    "age_group": ["0-14", "15-64", "65+", "unknown"],
}
ROWS = st.lists(
    st.tuples(
        st.integers(1, 8),
        st.sampled_from(["F", "M"]),
        st.sampled_from(["1", "2", "3", ""]),
        st.one_of(st.integers(0, 99).map(str), st.just("")),
    ),
    max_size=40,
)


def _oracle(
    rows: list[tuple[int, str, str, str]], by: list[str], cap: int, stages: list[str]
) -> pd.DataFrame:
    frame = pd.DataFrame(rows, columns=["id", "sex", "stage", "age"])
    frame["sex"] = frame["sex"].map({"F": "female", "M": "male"})
    frame["stage"] = frame["stage"].map({"1": "I", "2": "II", "3": "III", "": "unknown"})
    ages = pd.to_numeric(frame["age"])
    bands = pd.cut(ages, [-1, 14, 64, 99], labels=["0-14", "15-64", "65+"]).astype(object)
    frame["age_group"] = bands.where(ages.notna(), "unknown")
    frame = frame[frame["stage"].isin(stages)]
    frame = frame.groupby("id", sort=False).head(cap)
    index = pd.MultiIndex.from_product([LABELS[name] for name in by])
    grouped = frame.groupby(by)["id"].agg(["size", "nunique"])
    grouped.index = pd.MultiIndex.from_tuples(
        [k if isinstance(k, tuple) else (k,) for k in grouped.index], names=by
    )
    return grouped.reindex(index, fill_value=0)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    rows=ROWS,
    by=st.permutations(sorted(LABELS)).flatmap(lambda names: st.integers(1, 3).map(lambda n: names[:n])),
    cap=st.integers(1, 3),
    stages=st.lists(st.sampled_from(LABELS["stage"]), min_size=1, unique=True),
)
def test_counts_equal_those_of_pandas(
    rows: list[tuple[int, str, str, str]], by: list[str], cap: int, stages: list[str]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = studies.write(Path(folder), pd.DataFrame(rows, columns=["id", "sex", "stage", "age"]))
        register(path, Path(folder) / "state")
        query = parse_query(
            {
                "preset": "crosstab",
                "by": by,
                "where": [{"variable": "stage", "in": stages}],
                "privacy": {"epsilon": "1", "max_records_per_patient": cap},
            }
        )
        cells = tabulate(query, load_mapping(path)[1], load_registration(Path(folder) / "state"))
    ((records, patients),) = cells.take()
    if rows:
        expected = _oracle(rows, by, cap, stages)
        assert records.tolist() == expected["size"].tolist()
        assert patients.tolist() == expected["nunique"].tolist()
    else:
        size = np.prod([len(LABELS[name]) for name in by])
        assert records.tolist() == patients.tolist() == [0] * size


def load_codebook():  # type: ignore[no-untyped-def]
    import tomllib

    from mpc_engine.codebook import Codebook
    from mpc_engine.documents import parse

    return parse(tomllib.loads(studies.CODEBOOK), Codebook)


def _registered(folder: Path, rows: str, mapping: str = studies.MAPPING) -> Registration:
    register(studies.write(folder, rows, mapping), folder / "state")
    return load_registration(folder / "state")


def _count(registered: Registration, cap: int, **keys: object) -> np.ndarray:
    """Return the records and the patients in each stage."""
    query = parse_query(
        {
            "preset": "crosstab",
            "by": ["stage"],
            "privacy": {"epsilon": "1", "max_records_per_patient": cap},
            **keys,
        }
    )
    (found,) = tabulate(query, load_codebook(), registered).take()
    return found


def test_the_cap_keeps_the_first_records_that_match(tmp_path: Path) -> None:
    rows = "id,sex,stage,age\na,F,1,1\na,F,1,1\na,F,2,1\na,F,3,1\nb,M,3,1\n"
    registered = _registered(tmp_path, rows)
    assert _count(registered, 1)[0].tolist() == [1, 0, 1, 0]
    two = _count(registered, 2)
    assert two[0].tolist() == [2, 0, 1, 0]
    assert two[1].tolist() == [1, 0, 1, 0]
    assert _count(registered, 9)[0].tolist() == [2, 1, 2, 0]
    where = [{"variable": "stage", "in": ["II", "III"]}]
    assert _count(registered, 1, where=where)[0].tolist() == [0, 1, 1, 0]


def test_order_by_decides_which_records_are_first(tmp_path: Path) -> None:
    order = 'order_by = { column = "seen", formats = ["%d/%m/%Y"] }\n'
    rows = "id,sex,stage,age,seen\na,F,1,1,02/01/2001\na,F,2,1,01/12/2000\na,F,3,1,\n"
    registered = _registered(tmp_path, rows, order + studies.MAPPING)
    assert _count(registered, 1)[0].tolist() == [0, 1, 0, 0]
    assert _count(registered, 2)[0].tolist() == [1, 1, 0, 0]


def test_adding_a_patient_changes_at_most_cap_records(tmp_path: Path) -> None:
    rows = "id,sex,stage,age\n" + "b,M,3,1\n" * 5
    before = _count(_registered(tmp_path, rows), 2)[0]
    after = _count(_registered(tmp_path, rows + "a,F,1,1\na,F,2,1\na,F,3,1\n"), 2)[0]
    assert int(np.abs(after - before).sum()) == 2


def test_a_count_above_the_public_bound_is_refused(tmp_path: Path) -> None:
    rows = "id,sex,stage,age\na,F,1,1\nb,F,1,1\nc,F,1,1\n"
    with pytest.raises(DataError, match="more rows than the public bound of 2"):
        _registered(tmp_path, rows, "count_bound = 2\n" + studies.MAPPING)
    bounded = _registered(tmp_path, rows).model_copy(update={"count_bound": 2})
    bounded._origin = str(tmp_path / "state" / "registration.json")
    with pytest.raises(DataError, match="public bound"):
        _count(bounded, 1)


def test_cells_show_and_store_nothing() -> None:
    held = (np.array([[4321, 7]]), np.array([[8765]]))
    cells = Cells(held)
    assert "4321" not in repr(cells) + str(cells) and "8765" not in repr(cells)
    for spill in (pickle.dumps, copy.copy, copy.deepcopy, hash):
        with pytest.raises(TypeError):
            spill(cells)
    with pytest.raises(TypeError):
        assert cells == cells
    with pytest.raises(TypeError):
        assert cells != cells
    assert cells.take() == held
    assert cells.take() == ()


def test_half_a_million_rows_stream_through(tmp_path: Path) -> None:
    seed = 20
    print(f"seed {seed}")
    draw = np.random.default_rng(seed)
    size = 500_000
    frame = pd.DataFrame(
        {
            "id": draw.integers(1, 450_000, size),
            "sex": np.array(["F", "M"])[draw.integers(0, 2, size)],
            "stage": draw.integers(1, 4, size),
            "age": draw.integers(0, 100, size),
        }
    )
    frame.to_parquet(tmp_path / "rows.parquet")
    path = studies.write(tmp_path, "", studies.MAPPING.replace("rows.csv", "rows.parquet"))
    register(path, tmp_path / "state")
    cells = _count(load_registration(tmp_path / "state"), 1000)
    assert cells[0].tolist() == [*frame["stage"].value_counts().sort_index().tolist(), 0]
