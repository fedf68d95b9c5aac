"""The codebook: the variables and categories that all silos of a study agree on.

A public document, the same at every party; its digest is part of every plan. It says what a variable
means and which values it may take, never how one registry writes them down; that is a mapping.

Kinds of variable: ``category`` (ordered labels), ``integer`` (a whole number with inclusive bounds),
``date`` (a day with inclusive bounds; for filters and never an axis) and ``band`` (an integer variable cut
into half-open intervals; derived, so never mapped). One that declares ``unknown`` has a last category of that
label. ``missing`` says what an absent value is: that category, or a fault which keeps the file from being
registered.

A codebook may also name public files that statistics need, such as life tables and populations. They are
held to the SHA-256 that the codebook states, so parties with the same codebook have the same files.
"""

from __future__ import annotations

from mpc_engine.codebook.book import MAX_FILE_BYTES, RESERVED, Codebook, PublicFile, load_codebook
from mpc_engine.codebook.variables import (
    EPOCH,
    MAX_VALUE,
    NAME,
    BandVariable,
    CategoryVariable,
    DateVariable,
    Day,
    IntegerVariable,
    Label,
    MappedVariable,
    Name,
    Variable,
    day,
)

__all__ = [
    "EPOCH",
    "MAX_FILE_BYTES",
    "MAX_VALUE",
    "NAME",
    "RESERVED",
    "BandVariable",
    "CategoryVariable",
    "Codebook",
    "DateVariable",
    "Day",
    "IntegerVariable",
    "Label",
    "MappedVariable",
    "Name",
    "PublicFile",
    "Variable",
    "day",
    "load_codebook",
]
