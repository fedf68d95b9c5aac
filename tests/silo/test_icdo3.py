"""ICD-O-3 codes and the childhood cancer groups, against known cases and a plain reading of the table."""

from __future__ import annotations

import csv
import itertools
import random
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import ibis
import pandas as pd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import mpc_engine.silo.icdo3 as icdo3
from mpc_engine.codebook import CategoryVariable, load_codebook

HERE = Path(icdo3.__file__).parent
Tumour = tuple[str | None, str | None, str | None]


def table(name: str) -> list[dict[str, str]]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return list(csv.DictReader(line for line in lines if not line.startswith("#")))


def expanded(ranges: str) -> frozenset[int]:
    """All codes of a list of ranges of the table's own text."""
    ends = [[int(end) for end in part.split("-")] for part in ranges.replace("C", "").split(",")]
    return frozenset(code for each in ends for code in range(each[0], each[-1] + 1))


ROWS = table("iccc3.csv")
SUBSITES = {row["site"]: row["subsites"] for row in table("icdo3_topography.csv")}
TOPOGRAPHIES = [site + digit for site, digits in SUBSITES.items() for digit in digits]
TAKEN = [(expanded(row["topography"]), expanded(row["morphology"])) for row in ROWS]


def fitting(topography: str, morphology: str, behaviour: str) -> list[str]:
    """The subgroups of all rows that fit one tumour, tried one after the other."""
    return [
        row["subgroup"]
        for row, (sites, morphologies) in zip(ROWS, TAKEN, strict=True)
        if int(topography[1:]) in sites
        and int(morphology) in morphologies
        and behaviour in row["behaviour"].split(",")
    ]


def reference(topography: str | None, morphology: str | None, behaviour: str | None) -> str | None:
    """The subgroup of one tumour, by one regular expression for each code and the table."""
    place = re.fullmatch(r"(C[0-9]{2})(?:\.?([0-9]))?", (topography or "").strip().upper())
    kind = re.fullmatch(r"(M-?)?([89][0-9]{3})/?([0-9]?)", (morphology or "").strip().upper())
    given = (behaviour or "").strip()
    if place is None or kind is None or place[1] not in SUBSITES:
        return None
    if (place[2] and place[2] not in SUBSITES[place[1]]) or (morphology or "").strip().endswith("/"):
        return None
    if given and not re.fullmatch(r"/?\d", given):
        return None
    stated = {code for code in (given[-1:], kind[3]) if code}
    if len(stated) != 1:
        return None
    codes = [place[1] + digit for digit in place[2] or SUBSITES[place[1]]]
    found = {(*fitting(code, kind[2], *stated), None)[0] for code in codes}
    return found.pop() if len(found) == 1 else None


@cache
def engine() -> Any:
    return ibis.duckdb.connect()


def classify(tumours: Iterable[Tumour], group: bool = False) -> list[str | None]:
    frame = pd.DataFrame(list(tumours), columns=["site", "hist", "beh"], dtype="object")
    rows = ibis.memtable(frame.assign(row=range(len(frame))), schema={**TEXTS, "row": "int64"})
    rule = icdo3.iccc3_group if group else icdo3.iccc3_subgroup
    expression: Any = rows.select("row", found=rule(rows["site"], rows["hist"], rows["beh"]))
    found = engine().to_pyarrow(expression.order_by("row"))
    labels: list[str | None] = found["found"].to_pylist()
    return labels


TEXTS = {"site": "string", "hist": "string", "beh": "string"}

KNOWN = [
    ("C42.1", "9836/3", "I(a)"),
    ("C42.1", "9811/3", "I(a)"),
    ("C77.9", "9811/3", "II(b)"),
    ("C80.9", "9811/3", "I(a)"),
    ("C42.1", "9861/3", "I(b)"),
    ("C42.1", "9875/3", "I(c)"),
    ("C42.1", "9946/3", "I(d)"),
    ("C42.1", "9801/3", "I(e)"),
    ("C77.1", "9663/3", "II(a)"),
    ("C77.2", "9680/3", "II(b)"),
    ("C42.4", "9591/3", "I(a)"),
    ("C80.9", "9591/3", "II(b)"),
    ("C77.2", "9687/3", "II(c)"),
    ("C41.0", "9751/3", "II(d)"),
    ("C77.9", "9590/3", "II(e)"),
    ("C71.7", "9391/3", "III(a)"),
    ("C71.5", "9390/0", "III(a)"),
    ("C71.6", "9421/1", "III(b)"),
    ("C72.3", "9380/3", "III(b)"),
    ("C71.7", "9380/3", "III(d)"),
    ("C71.6", "9470/3", "III(c)"),
    ("C75.2", "9350/1", "III(e)"),
    ("C71.9", "8000/1", "III(f)"),
    ("C74.1", "9500/3", "IV(a)"),
    ("C48.0", "8693/3", "IV(b)"),
    ("C71.0", "9501/3", "III(c)"),
    ("C47.9", "9501/3", "IV(b)"),
    ("C69.2", "9510/3", "V"),
    ("C64.9", "8960/3", "VI(a)"),
    ("C64.9", "8963/3", "VI(a)"),
    ("C64.9", "8312/3", "VI(b)"),
    ("C64.9", "8000/3", "VI(c)"),
    ("C22.0", "8970/3", "VII(a)"),
    ("C22.0", "8991/3", "VII(a)"),
    ("C49.9", "8991/3", "IX(a)"),
    ("C22.0", "8170/3", "VII(b)"),
    ("C22.0", "8000/3", "VII(c)"),
    ("C40.2", "9180/3", "VIII(a)"),
    ("C41.4", "9220/3", "VIII(b)"),
    ("C40.2", "9260/3", "VIII(c)"),
    ("C49.2", "9260/3", "IX(d)"),
    ("C40.0", "8830/3", "VIII(d)"),
    ("C49.0", "8830/3", "IX(d)"),
    ("C41.9", "8000/3", "VIII(e)"),
    ("C69.6", "8910/3", "IX(a)"),
    ("C47.1", "9540/3", "IX(b)"),
    ("C44.5", "9140/3", "IX(c)"),
    ("C49.2", "9040/3", "IX(d)"),
    ("C49.9", "8800/3", "IX(e)"),
    ("C75.3", "9064/3", "X(a)"),
    ("C75.3", "9080/0", "X(a)"),
    ("C38.1", "9071/3", "X(b)"),
    ("C62.9", "9071/3", "X(c)"),
    ("C56.9", "8441/3", "X(d)"),
    ("C56.9", "8000/3", "X(e)"),
    ("C74.0", "8370/3", "XI(a)"),
    ("C73.9", "8260/3", "XI(b)"),
    ("C11.9", "8082/3", "XI(c)"),
    ("C44.3", "8720/3", "XI(d)"),
    ("C44.3", "8090/3", "XI(e)"),
    ("C18.1", "8240/3", "XI(f)"),
    ("C34.3", "8973/3", "XII(a)"),
    ("C80.9", "8000/3", "XII(b)"),
]
# Recodes that SEER's own software is tested with, in its numbers.
SEER = [
    ("C182", "8000", "3", "122"),
    ("C239", "8000", "3", "122"),
    ("C239", "9673", "3", "022"),
    ("C239", "9673", "1", None),
    ("C700", "9080", "0", "101"),
    ("C098", "9673", "3", "022"),
    ("C239", "9140", "3", "093"),
    ("C239", "9055", "3", "121"),
    ("C008", "8000", "3", "122"),
    ("C424", "9823", "3", "011"),
    ("C809", "8000", "3", "122"),
]


def test_known_tumours() -> None:
    found = classify((site, morphology, None) for site, morphology, _ in KNOWN)
    assert list(zip(KNOWN, found, strict=True)) == [(case, case[2]) for case in KNOWN]
    groups = classify(((site, morphology, "") for site, morphology, _ in KNOWN), group=True)
    assert groups == [case[2].split("(")[0] for case in KNOWN]


def test_the_cases_that_seer_tests_with() -> None:
    numbers = {row["subgroup"]: row["recode"] for row in ROWS}
    found = classify(case[:3] for case in SEER)
    assert [None if label is None else numbers[label] for label in found] == [case[3] for case in SEER]


def test_twelve_groups_and_forty_seven_subgroups_each_with_a_tumour_of_its_own() -> None:
    labels = icdo3.subgroups()
    assert len(labels) == 48 and sum("(" in label for label in labels) == 47
    assert tuple(dict.fromkeys(label.split("(")[0] for label in labels)) == icdo3.GROUPS
    sample = {}
    for row, (sites, _) in zip(ROWS, TAKEN, strict=True):
        site = next(code for code in TOPOGRAPHIES if int(code[1:]) in sites)
        sample.setdefault(row["subgroup"], (site, row["morphology"][:4], row["behaviour"][-1]))
    assert classify(sample.values()) == list(labels) == list(sample)


def test_no_tumour_fits_rows_of_two_subgroups() -> None:
    """So the order of the rows decides nothing."""
    known = {int(code[1:]) for code in TOPOGRAPHIES}
    for (one, own), (other, others) in itertools.combinations(zip(ROWS, TAKEN, strict=True), 2):
        alike = set(one["behaviour"].split(",")) & set(other["behaviour"].split(","))
        if alike and one["subgroup"] != other["subgroup"] and own[1] & others[1]:
            assert not own[0] & others[0] & known, (one["subgroup"], other["subgroup"])


def test_the_ways_to_write_a_code() -> None:
    ways: list[Tumour] = [
        (site, morphology, behaviour)
        for site in ("C64.9", "C649", "C64", " c64.9 ")
        for morphology, behaviour in (
            ("8960/3", None),
            ("8960/3", "3"),
            ("89603", ""),
            ("8960", "3"),
            ("8960", " /3 "),
            ("M-8960/3", ""),
            ("m8960/3", None),
        )
    ]
    assert set(classify(ways)) == {"VI(a)"}


def test_a_site_without_its_fourth_character_needs_one_answer() -> None:
    assert classify([("C71", "9380", "3"), ("C72", "9380", "3"), ("C22", "8000", "3")]) == [
        "III(d)",
        None,
        "VII(c)",
    ]


OUTSIDE: list[Tumour] = [
    (None, "8960/3", None),
    ("C64.9", None, "3"),
    ("", "", ""),
    ("C64.9", "8960", None),
    ("C64.9", "8960", "malignant"),
    ("C64.9", "8960/3", "1"),
    ("C64.9", "8960/2", None),
    ("C64.9", "8960/0", None),
    ("C64.9", "8960/6", None),
    ("C64.9", "896/3", None),
    ("C64.9", "8960/33", None),
    ("C64.9", "7960/3", None),
    ("C64.9", "8999/3", None),
    ("64.9", "8960/3", None),
    ("C64.5", "8960/3", None),
    ("C43.9", "8720/3", None),
    ("C91.0", "9836/3", None),
    ("C64.99", "8960/3", None),
    ("C64.9; C65.9", "8960/3", None),
    ("C64.9", "8960/\u0663", None),
]


def test_junk_and_tumours_outside_the_classification_have_no_group() -> None:
    assert list(zip(OUTSIDE, classify(OUTSIDE), strict=True)) == [(tumour, None) for tumour in OUTSIDE]
    assert set(classify(OUTSIDE, group=True)) == {None}


SITE = st.one_of(
    st.sampled_from(TOPOGRAPHIES),
    st.sampled_from(sorted(SUBSITES)),
    st.builds("C{:02d}.{}".format, st.integers(0, 99), st.integers(0, 9)),
    st.text(alphabet="Cc0123456789. ", max_size=6),
)
LISTED = sorted({end for row in ROWS for part in row["morphology"].split(",") for end in part.split("-")})
HIST = st.one_of(
    st.builds("{}{}".format, st.sampled_from(LISTED), st.sampled_from(["", "/3", "3", "/1", "/0", "/2"])),
    st.builds("{}/{}".format, st.integers(7990, 10010), st.integers(0, 9)),
    st.text(alphabet="Mm-89603/ ", max_size=8),
)
BEHAVIOUR = st.sampled_from([None, "", "3", "/3", "1", "0", "2", "x"])


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(SITE, HIST, BEHAVIOUR), min_size=1, max_size=200))
def test_random_codes_agree_with_the_plain_reading(tumours: list[Tumour]) -> None:
    assert classify(tumours) == [reference(*tumour) for tumour in tumours]


def test_many_random_tumours_agree_with_the_plain_reading() -> None:
    seed = 20260717
    rng = random.Random(seed)
    tumours = [
        (rng.choice(TOPOGRAPHIES), f"{rng.choice(LISTED)}/{rng.choice('0133')}", None) for _ in range(5_000)
    ]
    found = classify(tumours)
    assert sum(label is not None for label in found) > 1_000, seed
    assert found == [reference(*tumour) for tumour in tumours], seed


def test_the_codebook_names_the_groups_that_are_worked_out() -> None:
    book = load_codebook(Path(__file__).parents[2] / "data" / "codebooks" / "iccc3.toml")
    group, subgroup = book.variables["iccc3_group"], book.variables["iccc3_subgroup"]
    assert isinstance(group, CategoryVariable) and isinstance(subgroup, CategoryVariable)
    assert group.known == icdo3.GROUPS and group.unknown == "unclassified"
    assert subgroup.known == icdo3.subgroups() and subgroup.unknown == "unclassified"
    assert book.labels("age_group") == ("<1", "1-4", "5-9", "10-14", "15-19")
