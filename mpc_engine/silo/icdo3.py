"""ICD-O-3 codes as registries write them, and the childhood cancer groups (ICCC-3) that follow from them.

The groups are those of the International Classification of Childhood Cancer, third edition [SSLK05], in its
version for ICD-O-3.1 [SCRRS17]; the table is ``iccc3.csv`` beside this module, whose head names its sources.
A tumour belongs to the row of the table that fits its topography, morphology and behaviour; rows of different
subgroups have no tumour in common.

How codes may be written (outer spaces and case do not count):

* topography ``C64.9``, ``C649`` or, without the fourth character, ``C64``. A code that ICD-O-3 does not have
  (``C43.9`` is of ICD-10) is none. Without the fourth character a tumour has a group only if every code that
  begins so leads to the same one.
* morphology ``8960/3``, ``89603`` or ``8960``, each also with ``M`` or ``M-`` before it.
* behaviour ``3`` or ``/3``, from a column of its own or from the morphology; where both have it they agree.

What is no code, has no behaviour, or is a tumour outside the classification (in situ, or not malignant and
not intracranial or intraspinal) gives null.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, Final

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

GROUPS: Final = ("I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII")
"""The main groups of ICCC-3, in order."""
VERSION: Final = "ICCC-3 for ICD-O-3.1 (IARC 2017)"
"""The version of the classification that this module applies."""

FIRST_MORPHOLOGY: Final = 8000
MORPHOLOGIES: Final = 2000
"""How many numbers there are from :data:`FIRST_MORPHOLOGY` to 9999, the last one."""
SITES: Final = 100
_FORMS: Final = 11
"""Ways to go on after a three-character site: ten fourth characters, or none of them."""
_NO_SUBSITE: Final = 10

_TOPOGRAPHY: Final = r"^C(?P<site>[0-9]{2})(?:[.]?(?P<subsite>[0-9]))?$"
_MORPHOLOGY: Final = r"^(?:M-?)?(?P<code>[89][0-9]{3})(?:/?(?P<behaviour>[0-9]))?$"
_BEHAVIOUR: Final = r"^/?(?P<behaviour>[0-9])$"

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Row:
    """One row of the classification: which tumours it takes, as inclusive ranges of numbers.

    Topographies are numbers from 0 (C00.0) to 809 (C80.9).
    """

    group: str
    subgroup: str
    recode: str
    extended: str
    division: str
    topography: tuple[tuple[int, int], ...]
    morphology: tuple[tuple[int, int], ...]
    behaviour: tuple[int, ...]
    note: str


@dataclass(frozen=True)
class Codes:
    """Codes as numbers, one entry for each tumour; -1 is what could not be read.

    ``form`` is site times 11 plus the fourth character, where 10 means that there is none.
    """

    form: Numbers
    morphology: Numbers
    behaviour: Numbers


def iccc3_subgroup(topography: Any, morphology: Any, behaviour: Any = None) -> Any:
    """Return the ICCC-3 subgroup, such as ``"VI(a)"``; retinoblastoma is ``"V"``.

    The arguments are text columns of one table of the embedded DuckDB; without ``behaviour`` it is taken
    from the morphology. The result is a text column, null where there is no group.
    """
    given = ibis.literal("") if behaviour is None else behaviour.fill_null("")
    return _subgroup(topography.fill_null(""), morphology.fill_null(""), given).nullif("")


def iccc3_group(topography: Any, morphology: Any, behaviour: Any = None) -> Any:
    """Return the main group of ICCC-3, one of :data:`GROUPS`; otherwise like :func:`iccc3_subgroup`."""
    return iccc3_subgroup(topography, morphology, behaviour).split("(")[0]


@cache
def iccc3_rows() -> tuple[Row, ...]:
    """Return the classification's table, in the order in which its rows are tried."""
    return tuple(
        Row(
            row["group"],
            row["subgroup"],
            row["recode"],
            row["extended"],
            row["division"],
            tuple(ranges(row["topography"])),
            tuple(ranges(row["morphology"])),
            tuple(int(code) for code in row["behaviour"].split(",")),
            row["note"],
        )
        for row in read_table("iccc3.csv")
    )


@cache
def subgroups() -> tuple[str, ...]:
    """Return the lowest groups of the main classification in order: 47 subgroups, and V, which has none."""
    return tuple(dict.fromkeys(row.subgroup for row in iccc3_rows()))


def read_table(name: str) -> list[dict[str, str]]:
    """Return the rows of a table that lies beside this module; lines with a ``#`` in front are its notice."""
    text = files(__package__).joinpath(name).read_text(encoding="utf-8")
    return list(csv.DictReader(line for line in text.splitlines() if not line.startswith("#")))


def ranges(text: str) -> Iterator[tuple[int, int]]:
    """Yield the inclusive ranges of a list of codes such as ``8010-8041,8082`` or ``C00,C03-C06``."""
    for part in text.replace("C", "").split(","):
        if part:
            first, _, last = part.partition("-")
            yield int(first), int(last or first)


def parse(topography: Any, morphology: Any, behaviour: Any | None = None) -> Codes:
    """Read Arrow arrays of text as codes; the ways to write them are in this module's description."""
    place = pc.extract_regex(_plain(topography), _TOPOGRAPHY)
    form = _number(pc.struct_field(place, "site")) * _FORMS
    subsite = _number(pc.struct_field(place, "subsite"))
    form = np.where(form < 0, -1, form + np.where(subsite < 0, _NO_SUBSITE, subsite))
    form[~_valid_forms()[form] | (form < 0)] = -1

    kind = pc.extract_regex(_plain(morphology), _MORPHOLOGY)
    number = _number(pc.struct_field(kind, "code"))
    within = _number(pc.struct_field(kind, "behaviour"))
    if behaviour is None:
        return Codes(form, number, within)
    given = _plain(behaviour)
    beside = _number(pc.struct_field(pc.extract_regex(given, _BEHAVIOUR), "behaviour"))
    absent = np.asarray(pc.equal(given, ""))
    agree = absent | ((beside >= 0) & ((within < 0) | (within == beside)))
    return Codes(form, number, np.where(agree, np.maximum(within, beside), -1))


def _classify(topography: dt.string, morphology: dt.string, behaviour: dt.string) -> dt.string:
    """Return the subgroups of a batch of tumours, empty where there is none."""
    codes = parse(topography, morphology, behaviour)
    known = (codes.form >= 0) & (codes.morphology >= 0) & (codes.behaviour >= 0)
    offset = np.where(known, codes.morphology - FIRST_MORPHOLOGY, 0)
    found = np.where(known, _subgroup_of()[codes.behaviour, codes.form, offset], 0)
    return pyarrow.array(["", *subgroups()]).take(pyarrow.array(found))


_subgroup = ibis.udf.scalar.pyarrow(_classify, name="iccc3_subgroup")


@cache
def _subgroup_of() -> npt.NDArray[np.uint8]:
    """Return the subgroup's number, from 1, by behaviour, form of topography and morphology; 0 is none."""
    labels = subgroups()
    whole = np.zeros((10, SITES * 10, MORPHOLOGIES), dtype=np.uint8)
    for row in reversed(iccc3_rows()):  # the first row that fits counts, hence it is written last
        for behaviour in row.behaviour:
            for first, last in row.topography:
                for low, high in row.morphology:
                    cells = np.s_[low - FIRST_MORPHOLOGY : high + 1 - FIRST_MORPHOLOGY]
                    whole[behaviour, first : last + 1, cells] = labels.index(row.subgroup) + 1
    forms = np.zeros((10, SITES * _FORMS, MORPHOLOGIES), dtype=np.uint8)
    for site, subsites in _subsites():
        codes = whole[:, [site * 10 + subsite for subsite in subsites]]
        start = site * _FORMS
        forms[:, [start + subsite for subsite in subsites]] = codes
        forms[:, start + _NO_SUBSITE] = np.where((codes == codes[:, :1]).all(axis=1), codes[:, 0], 0)
    return forms


@cache
def _valid_forms() -> npt.NDArray[np.bool_]:
    valid = np.zeros(SITES * _FORMS, dtype=np.bool_)
    for site, subsites in _subsites():
        valid[[site * _FORMS + form for form in (*subsites, _NO_SUBSITE)]] = True
    return valid


def _subsites() -> Iterator[tuple[int, tuple[int, ...]]]:
    """Yield each three-character site of ICD-O-3 and the fourth characters that it can have."""
    for row in read_table("icdo3_topography.csv"):
        yield int(row["site"][1:]), tuple(int(digit) for digit in row["subsites"])


def site_of(form: Numbers) -> Numbers:
    """Return the numbers of the three-character sites; -1 stays."""
    return np.where(form < 0, -1, form // _FORMS)


def _plain(texts: Any) -> Any:
    return pc.utf8_upper(pc.utf8_trim_whitespace(texts))


def _number(digits: Any) -> Numbers:
    """Return digits as numbers, -1 where there are none."""
    present = pc.if_else(pc.equal(digits, ""), None, digits)
    return np.asarray(pc.fill_null(pc.cast(present, pyarrow.int64()), -1))
