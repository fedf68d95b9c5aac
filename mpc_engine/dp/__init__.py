"""Differential privacy: the exact noise table, and what a release with it promises.

``calibrate`` is left out on purpose: it needs OpenDP, which no release needs.
"""

from __future__ import annotations

from mpc_engine.dp.accounting import (
    NOT_PRIVATE,
    Allotment,
    Guarantee,
    Part,
    Rule,
    expected_false_cells,
    guarantee_for,
    publication_probability,
    split,
    strict_threshold,
    table_for_counts,
)
from mpc_engine.dp.noise_table import TRUNCATION_LIMIT, Coin, NoiseTable, default_mantissa_bits, generate
from mpc_engine.dp.rationals import parse_delta, parse_epsilon

__all__ = [
    "NOT_PRIVATE",
    "TRUNCATION_LIMIT",
    "Allotment",
    "Coin",
    "Guarantee",
    "NoiseTable",
    "Part",
    "Rule",
    "default_mantissa_bits",
    "expected_false_cells",
    "generate",
    "guarantee_for",
    "parse_delta",
    "parse_epsilon",
    "publication_probability",
    "split",
    "strict_threshold",
    "table_for_counts",
]
