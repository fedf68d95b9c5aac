"""Distinctive values to be planted, and the search for them wherever they must not be."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from pathlib import Path

CODEBOOK = """\
name = "trial"
version = "1"
description = "CanaryOfTheBook"
[variables.tumour]
kind = "category"
description = "CanaryOfTheVariable"
categories = ["CanaryLabelOne", "CanaryLabelTwo"]
[variables.sex]
kind = "category"
categories = ["female", "male"]
[variables.dose]
kind = "integer"
description = "Dose"
unit = "number"
lower = 0
upper = 90000000
"""
MAPPING = """\
codebook = "../codebook.toml"
one_row_per_patient = true
[source]
file = "canary-file-name.csv"
[variables.tumour]
column = "CanaryColumn"
codes = { CanaryCodeOne = "CanaryLabelOne", CanaryCodeTwo = "CanaryLabelTwo" }
[variables.sex]
column = "sex"
codes = { f = "female", m = "male" }
[variables.dose]
column = "dose"
"""
DOSES = (70_032_191, 81_417_263, 60_558_427)
"""Numbers in the records."""
RECORDS = ("CanaryCodeOne", "CanaryCodeTwo", "CanaryPatient", "CanaryAddress", *map(str, DOSES))
"""What is in the records only (and, of the codes, in the mapping)."""
NAMES = (
    "CanaryLabelOne",
    "CanaryLabelTwo",
    "CanaryOfTheBook",
    "CanaryOfTheVariable",
    "CanaryColumn",
    "canary-file-name",
    "canary-folder",
    "CanaryTitle",
    "CanaryKey",
)
"""What is in names of files and folders, in labels, and in what an analyst wrote."""


def rows(count: int = 400) -> str:
    """Return records with canaries in each."""
    lines = ["patient,address,CanaryColumn,sex,dose"]
    for number in range(count):
        code, sex = ("CanaryCodeOne", "CanaryCodeTwo")[number % 3 == 0], "fm"[number % 2]
        lines.append(f"CanaryPatient{number},CanaryAddress{number},{code},{sex},{DOSES[number % 3]}")
    return "\n".join(lines) + "\n"


def forms(canaries: Iterable[str]) -> dict[str, tuple[bytes, ...]]:
    """Return the bytes in which each canary could show: text, UTF-16, and a number as machines store it."""
    found = {}
    for canary in canaries:
        ways = [canary.encode(), canary.encode("utf-16-le")]
        if canary.isdigit():
            ways += [struct.pack(form, int(canary)) for form in ("<q", ">q", "<d", "<i", ">i")]
            ways.append(f"{int(canary):_}".replace("_", ",").encode())
        found[canary] = tuple(ways)
    return found


def search(places: Mapping[str, bytes], canaries: Iterable[str]) -> list[tuple[str, str]]:
    """Return every pair of a place and a canary that is found there."""
    ways = forms(canaries)
    return [
        (place, canary)
        for place, content in places.items()
        for canary, patterns in ways.items()
        if any(pattern in content for pattern in patterns)
    ]


def files(folder: Path, leave_out: Iterable[str] = ()) -> dict[str, bytes]:
    """Return all files below a folder by their path in it, but for those whose path begins so."""
    skipped = tuple(leave_out)
    paths = {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path.read_bytes() for name, path in paths.items() if not name.startswith(skipped)}
