"""Multiple primary cancers by the international rules of IARC and IACR, ICD-O third edition [IARC04].

Which records of one patient tell of the same primary cancer does not depend on time. Two records do

* if their sites are of one group and their morphologies of one group (``iarc_groups.csv``, beside this file);
* at whatever sites, if both are Kaposi sarcoma, or haematopoietic neoplasms of one group;
* if one morphology is unspecified and the other may be what it stands for: an unspecified carcinoma (group 5)
  for a specific one (1–4) at the same site, an unspecified haematopoietic neoplasm (14) for a specific one
  (8–13) anywhere, an unspecified cancer (17) for any that is not haematopoietic at the same site.

The third rule makes no equivalence: an unspecified carcinoma of the lung is the same as an adenocarcinoma and
the same as a squamous carcinoma there, which are two. The rules say to ignore the unspecified record then, so
here primaries are what the first two rules make of all specific records, and an unspecified record joins the
earliest primary that it fits; those that fit none make primaries by the first two rules. How many primaries a
patient has therefore does not depend on the order of the records. Going through the records in order, as
SEER's program for these rules does, makes the same primaries, save where an unspecified cancer lies at the
site of a Kaposi sarcoma that has another site as well. What the rules leave open:

* which of two fitting primaries an unspecified record belongs to, where the earliest is taken;
* an unknown primary site (C80), which counts as a site of its own. CanReg5 asks a person there; it also lets
  group 17 stand for haematopoietic neoplasms, and counts mesothelioma once at whatever sites;
* a morphology that no group lists, which is a group of its own and specific.

A record with unreadable codes is a primary by itself. The rules are for malignant tumours (of the bladder
also others): records that a study leaves out, such as in situ ones, are to be left out before.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, Final

import ibis
import ibis.expr.datatypes as dt
import numpy as np
import numpy.typing as npt
import pyarrow
import pyarrow.compute as pc

from mpc_engine.silo.icdo3 import FIRST_MORPHOLOGY, MORPHOLOGIES, SITES, parse, ranges, read_table, site_of

PRIMARY: Final = "primary\x1f"
"""Name of the column with the number of a record's primary among its patient's, from 1 in order of diagnosis.

No column of a source can have a name with this control character.
"""
REPEAT: Final = "repeat\x1f"
"""Name of the column with a record's place among those of its primary; 0 is the record to keep.

Specific records come before unspecified ones, which the rules ignore beside them; then the order counts.
"""
_RANK: Final = "iarc_rank\x1f"
_SITE: Final = "iarc_site\x1f"
_GROUP: Final = "iarc_group\x1f"
_OWN: Final = "iarc_own\x1f"
_JOINED: Final = "iarc_joined\x1f"
_FIRST: Final = "iarc_first\x1f"


def iarc_key(topography: Any, morphology: Any) -> Any:
    """Return site group and histology group, such as ``"C34/3"``; null where either code cannot be read.

    The arguments are text columns of one table of the embedded DuckDB, written as
    :mod:`~mpc_engine.silo.icdo3` says. A histology that no group lists stands for itself (``"C34/8999"``).
    Records with equal keys are of one primary; that others may be too is what :func:`iarc_primary` settles.
    """
    return _key(topography.fill_null(""), morphology.fill_null("")).nullif("")


def iarc_primary(table: Any, key: str, patient: str, order: Sequence[Any]) -> Any:
    """Return ``table`` with the columns :data:`PRIMARY` and :data:`REPEAT`, both 64-bit integers.

    ``key`` and ``patient`` name the columns with :func:`iarc_key` and with the patient; ``order`` are names
    of columns, or expressions on the table, that put a patient's records in the order of diagnosis and leave
    no ties. Lazy; to count each cancer once, keep the rows with :data:`REPEAT` 0.
    """
    ranked = table.mutate(
        **{
            _RANK: ibis.row_number().over(ibis.window(group_by=table[patient], order_by=list(order))),
            _SITE: table[key].re_extract("^([^/]*)/", 1),
            _GROUP: table[key].re_extract("/([0-9]+)$", 1).try_cast("int64"),
        }
    )
    rank, group = ranked[_RANK], ranked[_GROUP]
    systemic = group.between(8, 15)
    own = ibis.cases(
        (group.isnull(), "?" + rank.cast("string")),
        (systemic, "*/" + group.cast("string")),
        else_=ranked[key],
    )
    owned = ranked.mutate(**{_OWN: own})
    group, site = owned[_GROUP], owned[_SITE]
    joined = ibis.cases(
        (group == 5, _earliest(owned, _OWN, group.between(1, 4), [owned[patient], site])),
        (group == 14, _earliest(owned, _OWN, group.between(8, 13), [owned[patient]])),
    )
    half = owned.mutate(**{_JOINED: ibis.coalesce(joined, owned[_OWN])})
    group, site = half[_GROUP], half[_SITE]
    fits = group.between(1, 7) | (group == 15) | (group == 16) | group.between(8000, 9589)
    unspecified = (group == 17).ifelse(
        _earliest(half, _JOINED, fits, [half[patient], site]), ibis.null("string")
    )
    whole = half.mutate(**{_JOINED: ibis.coalesce(unspecified, half[_JOINED])})
    primary = [whole[patient], whole[_JOINED]]
    dated = whole.mutate(**{_FIRST: whole[_RANK].min().over(ibis.window(group_by=primary))})
    stands_in = (dated[_OWN] != dated[_JOINED]).cast("int64")
    members = ibis.window(group_by=[dated[patient], dated[_JOINED]], order_by=[stands_in, dated[_RANK]])
    return dated.mutate(
        **{
            PRIMARY: ibis.dense_rank().over(group_by=dated[patient], order_by=dated[_FIRST]).cast("int64")
            + 1,
            REPEAT: ibis.row_number().over(members).cast("int64"),
        }
    ).drop(_RANK, _SITE, _GROUP, _OWN, _JOINED, _FIRST)


def _earliest(table: Any, column: str, fits: Any, within: list[Any]) -> Any:
    """Return ``column`` of the earliest record that ``fits`` among those alike in ``within``, or null."""
    # DuckDB has no filtered arg_min over a window; texts with the rank in front have the same least one.
    ranked = table[_RANK].cast("string").lpad(12, "0") + table[column]
    least = fits.ifelse(ranked, ibis.null("string")).min()
    return least.over(ibis.window(group_by=within)).substr(12)


def _keys(topography: dt.string, morphology: dt.string) -> dt.string:
    """Return the keys of a batch of tumours, empty where a code cannot be read."""
    codes = parse(topography, morphology)
    known = (codes.form >= 0) & (codes.morphology >= 0)
    sites, histologies = _groups()
    site = pyarrow.array(sites).take(pyarrow.array(np.where(known, site_of(codes.form), 0)))
    offset = np.where(known, codes.morphology - FIRST_MORPHOLOGY, 0)
    histology = pc.cast(pyarrow.array(histologies[offset]), pyarrow.string())
    return pc.if_else(pyarrow.array(known), pc.binary_join_element_wise(site, histology, "/"), "")


_key = ibis.udf.scalar.pyarrow(_keys, name="iarc_key")


@cache
def _groups() -> tuple[list[str], npt.NDArray[np.int64]]:
    """Return the site group of each three-character site and the histology group of each morphology."""
    sites = [f"C{site:02d}" for site in range(SITES)]
    histologies = np.arange(FIRST_MORPHOLOGY, FIRST_MORPHOLOGY + MORPHOLOGIES)
    for row in read_table("iarc_groups.csv"):
        for first, last in (*ranges(row["codes"]), *ranges(row["added"])):
            if row["kind"] == "site":
                sites[first : last + 1] = [row["group"]] * (last + 1 - first)
            else:
                histologies[first - FIRST_MORPHOLOGY : last + 1 - FIRST_MORPHOLOGY] = int(row["group"])
    return sites, histologies
