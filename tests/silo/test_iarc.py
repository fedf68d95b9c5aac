"""Multiple primaries: known pairs, and a tumour-by-tumour reading of the rules as the reference."""

from __future__ import annotations

import csv
import random
from functools import cache
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mpc_engine.silo.iarc as iarc

Record = tuple[str, str]
LINES = (Path(iarc.__file__).parent / "iarc_groups.csv").read_text(encoding="utf-8").splitlines()
TABLE = list(csv.DictReader(line for line in LINES if not line.startswith("#")))


def groups(site: str, morphology: str) -> tuple[str, int] | None:
    """The groups of one record, read from the table one range after the other."""
    if len(site) < 3 or not morphology[:4].isdigit():
        return None
    found = (site[:3], int(morphology[:4]))
    for row in TABLE:
        for part in f"{row['codes']},{row['added']}".replace("C", "").split(","):
            if not part:
                continue
            low, high = int(part.split("-")[0]), int(part.split("-")[-1])
            if row["kind"] == "site" and low <= int(site[1:3]) <= high:
                found = (row["group"], found[1])
            if row["kind"] == "histology" and low <= int(morphology[:4]) <= high:
                return found[0], int(row["group"])
    return found


def same(one: tuple[str, int], other: tuple[str, int]) -> bool:
    """Whether two records may be of one primary: the rules for a pair."""
    (here, left), (there, right) = one, other
    low, high = sorted((left, right))
    if low == high and 8 <= low <= 15:
        return True
    if high == 14 and low >= 8:
        return True
    if here != there:
        return False
    if high == 17 or low == 17:
        return not 8 <= (left if right == 17 else right) <= 14
    return low == high or (high == 5 and low <= 4)


def sequential(records: list[tuple[str, int] | None]) -> list[int]:
    """The primary of each record by going through them in order, as a registrar does.

    The first record that has no primary yet opens one and takes every later record that may be the same. Once
    an unspecified primary takes a specific record it is that specific one.
    """
    primaries = [0] * len(records)
    for index, record in enumerate(records):
        if primaries[index]:
            continue
        primaries[index] = max(primaries) + 1
        if record is None:
            continue
        kind = record
        for later in range(index + 1, len(records)):
            other = records[later]
            if other is None or primaries[later] or not same(kind, other):
                continue
            primaries[later] = primaries[index]
            less = (17, 5) if other[1] == 5 else (17, 5, 14)
            if kind[1] in less and other[1] != 17 and kind[1] != other[1]:
                kind = other
    return primaries


@cache
def engine() -> Any:
    return ibis.duckdb.connect()


def number(patients: list[list[Record]]) -> tuple[list[list[int]], list[list[int]]]:
    """Primaries and repeats of each patient's records, as worked out in the database."""
    rows = [
        (patient, place, *record)
        for patient, records in enumerate(patients)
        for place, record in enumerate(records)
    ]
    random.Random(1).shuffle(rows)
    frame = pd.DataFrame(rows, columns=["patient", "place", "site", "hist"])
    types = {"patient": "int64", "place": "int64", "site": "string", "hist": "string"}
    table: Any = ibis.memtable(frame, schema=types)
    keyed = table.mutate(key=iarc.iarc_key(table["site"], table["hist"]))
    done = iarc.iarc_primary(keyed, "key", "patient", ["place"])
    found = engine().to_pyarrow(done.order_by("patient", "place")).to_pydict()
    primary: list[list[int]] = [[] for _ in patients]
    repeat: list[list[int]] = [[] for _ in patients]
    for patient, one, other in zip(found["patient"], found[iarc.PRIMARY], found[iarc.REPEAT], strict=True):
        primary[patient].append(one)
        repeat[patient].append(other)
    return primary, repeat


KEYS: list[tuple[str | None, str | None, str | None]] = [
    ("C02.1", "8070/3", "C02/1"),
    ("C01.9", "8070/3", "C02/1"),
    ("C00.1", "8140/3", "C06/3"),
    ("C13.9", "8010/3", "C14/5"),
    ("C20", "8240/3", "C20/4"),
    ("C24.0", "8140/3", "C24/3"),
    ("C33.9", "8041/3", "C34/4"),
    ("C40.2", "9180/3", "C41/6"),
    ("C65.9", "8120/3", "C68/1"),
    ("C64.9", "8960/3", "C64/16"),
    ("C38.4", "9050/3", "C38/7"),
    ("C42.1", "9861/3", "C42/8"),
    ("C42.1", "9836/3", "C42/9"),
    ("C77.9", "9700/3", "C77/10"),
    ("C77.9", "9650/3", "C77/11"),
    ("C42.1", "9741/3", "C42/12"),
    ("C41.0", "9751/3", "C41/13"),
    ("C42.1", "9800/3", "C42/14"),
    ("C44.9", "9140/3", "C44/15"),
    ("C80.9", "8000/3", "C80/17"),
    ("C07.9", "8999/3", "C07/8999"),
    ("C64", "89603", "C64/16"),
    ("C43.9", "8720/3", None),
    ("C64.9", "96/3", None),
    ("", "8960/3", None),
    (None, "8960/3", None),
    ("C64.9", None, None),
]


def test_keys() -> None:
    types = {"site": "string", "hist": "string", "row": "int64"}
    rows = [(site, hist, row) for row, (site, hist, _) in enumerate(KEYS)]
    table: Any = ibis.memtable(pd.DataFrame(rows, columns=list(types), dtype="object"), schema=types)
    keyed = table.select("row", key=iarc.iarc_key(table["site"], table["hist"])).order_by("row")
    found = engine().to_pyarrow(keyed)["key"].to_pylist()
    assert list(zip(KEYS, found, strict=True)) == [(case, case[2]) for case in KEYS]


CASES: list[tuple[str, list[Record], list[int], list[int]]] = [
    ("one tumour", [("C64.9", "8960/3")], [1], [0]),
    ("both kidneys", [("C64.9", "8960/3"), ("C64.9", "8960/3")], [1, 1], [0, 1]),
    ("kidney and liver", [("C64.9", "8960/3"), ("C22.0", "8970/3")], [1, 2], [0, 0]),
    ("two groups at one site", [("C34.1", "8070/3"), ("C34.2", "8140/3")], [1, 2], [0, 0]),
    ("two subsites of a group", [("C40.2", "9180/3"), ("C41.4", "9260/3")], [1, 2], [0, 0]),
    ("bones of limb and pelvis", [("C40.2", "9180/3"), ("C41.4", "9220/3")], [1, 1], [0, 1]),
    ("leukaemia twice", [("C42.1", "9836/3"), ("C77.0", "9680/3")], [1, 1], [0, 1]),
    ("myeloid after lymphoid", [("C42.1", "9836/3"), ("C42.1", "9861/3")], [1, 2], [0, 0]),
    ("unspecified leukaemia first", [("C42.1", "9800/3"), ("C42.1", "9836/3")], [1, 1], [1, 0]),
    ("Kaposi sarcoma anywhere", [("C44.1", "9140/3"), ("C18.0", "9140/3")], [1, 1], [0, 1]),
    ("mesothelioma at two sites", [("C38.4", "9050/3"), ("C48.1", "9050/3")], [1, 2], [0, 0]),
    ("unspecified carcinoma first", [("C34.1", "8010/3"), ("C34.1", "8140/3")], [1, 1], [1, 0]),
    (
        "unspecified between two",
        [("C34.1", "8140/3"), ("C34.1", "8010/3"), ("C34.1", "8070/3")],
        [1, 1, 2],
        [0, 1, 0],
    ),
    (
        "unspecified before two",
        [("C34.1", "8010/3"), ("C34.1", "8070/3"), ("C34.1", "8140/3")],
        [1, 1, 2],
        [1, 0, 0],
    ),
    (
        "unspecified cancer, carcinoma, adenocarcinoma",
        [("C18.1", "8000/3"), ("C18.2", "8010/3"), ("C18.3", "8140/3")],
        [1, 1, 1],
        [1, 2, 0],
    ),
    ("unspecified elsewhere", [("C34.1", "8000/3"), ("C22.0", "8970/3")], [1, 2], [0, 0]),
    ("unknown site", [("C80.9", "8140/3"), ("C18.1", "8140/3")], [1, 2], [0, 0]),
    ("unreadable codes", [("?", "8140/3"), ("C18.1", ""), ("?", "8140/3")], [1, 2, 3], [0, 0, 0]),
]


@pytest.mark.parametrize(
    ("records", "primary", "repeat"), [case[1:] for case in CASES], ids=[c[0] for c in CASES]
)
def test_known_patients(records: list[Record], primary: list[int], repeat: list[int]) -> None:
    assert number([records]) == ([primary], [repeat])


SITES = ["C34.1", "C33.9", "C64.9", "C42.1", "C18.0", "C80.9", "C4"]
HISTS = [
    "8070",
    "8090",
    "8140",
    "8240",
    "8010",
    "8800",
    "9050",
    "9861",
    "9836",
    "9700",
    "9800",
    "8960",
    "8000",
]
HISTS += ["8999", "x"]
PATIENTS = st.lists(
    st.lists(st.tuples(st.sampled_from(SITES), st.sampled_from(HISTS)), min_size=1, max_size=7),
    min_size=1,
    max_size=60,
)


def read(records: list[Record]) -> list[tuple[str, int] | None]:
    return [groups(*record) for record in records]


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(PATIENTS)
def test_the_same_as_going_through_the_records_in_order(patients: list[list[Record]]) -> None:
    primary, repeat = number(patients)
    assert primary == [sequential(read(records)) for records in patients]
    for numbers, places in zip(primary, repeat, strict=True):
        for each in set(numbers):
            own = sorted(place for one, place in zip(numbers, places, strict=True) if one == each)
            assert own == list(range(len(own)))


def test_how_many_primaries_there_are_does_not_depend_on_the_order() -> None:
    seed = 20260717
    rng = random.Random(seed)
    patients = [[(rng.choice(SITES), rng.choice([*HISTS, "9140"])) for _ in range(6)] for _ in range(300)]
    shuffled = [rng.sample(records, len(records)) for records in patients]
    counts = [[max(numbers) for numbers in number(each)[0]] for each in (patients, shuffled)]
    assert counts[0] == counts[1], seed
    assert len(set(counts[0])) > 3, seed


def test_two_records_are_one_primary_just_if_the_rules_say_so() -> None:
    records = [(site, hist) for site in SITES[:-1] for hist in [*HISTS[:-1], "9140"]]
    pairs = [[one, other] for one in records for other in records]
    for pair, numbers in zip(pairs, number(pairs)[0], strict=True):
        one, other = (groups(*record) for record in pair)
        assert one is not None and other is not None
        assert (numbers == [1, 1]) == same(one, other), pair
