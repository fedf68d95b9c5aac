"""Reading one column of the source, whose values all arrive as text: identifiers, numbers, what is missing.

Arithmetic is exact: numbers are read as decimals with six places and converted in integers. Further places
are cut off downwards, never rounded; a number that has them is not whole.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any, Final

import ibis
import ibis.expr.datatypes as dt
import pyarrow.compute as pc

_MICRO: Final = 1_000_000


def _normalise(texts: dt.string) -> dt.string:
    """Return a batch of texts in Unicode's compatible form, with plain spaces and nothing invisible."""
    visible = pc.utf8_normalize(pc.replace_substring_regex(texts, r"\p{Cf}+", ""), "NFKC")
    return pc.utf8_trim_whitespace(pc.replace_substring_regex(visible, r"[\s\p{Z}\p{Cc}]+", " "))


_normalised = ibis.udf.scalar.pyarrow(_normalise, name="normalised_text")


def text(table: Any, column: str) -> Any:
    """Return the trimmed text of ``column``; null becomes empty."""
    return table[column].fill_null("").strip()


def is_missing(raw: Any, texts: tuple[str, ...]) -> Any:
    """Return whether the trimmed text ``raw`` is empty or one of ``texts``."""
    return raw.isin(["", *(item.strip() for item in texts)])


def identifier(table: Any, column: str) -> Any:
    """Return the patient's id in ``column`` in the form in which ids are compared; null becomes empty.

    Full-width and composed characters are as their plain forms, any white space is one space, and outer
    white space and invisible characters do not count. Case and leading zeros do.
    """
    return _normalised(table[column].fill_null(""))


def alike(identifiers: Any) -> Any:
    """Return what ids have in common that differ only in case, leading zeros or a trailing ``.0``."""
    whole = identifiers.lower().re_replace(r"^([0-9]+)[.]0+$", r"\1")
    return whole.re_replace(r"^0+([0-9])", r"\1")


def number(raw: Any, factor: Fraction = Fraction(1), rounding: str = "exact", *, comma: bool = False) -> Any:
    """Return the whole number that ``raw`` times ``factor`` comes to; null if it is none.

    ``nearest`` rounds halves up, ``down`` towards minus infinity, ``exact`` accepts whole results only.
    """
    # A point beside decimal commas parts thousands: such text is no number, rather than a small one.
    point = "," if comma else "[.]"
    # Nine digits before the point: with six places and the factors there are, 64 bits always suffice.
    whole = "[+-]?[0-9]{1,9}"
    form = f"^(?:({whole}(?:{point}[0-9]{{0,5}})?)|({whole}{point}[0-9]{{6}})[0-9]*)$"
    further = f"{point}[0-9]{{6}}[0-9]*[1-9]"
    plain = raw.re_extract(form, 1) + raw.re_extract(form, 2)
    decimal = plain.replace(",", ".").try_cast("decimal(18, 6)").cast("decimal(38, 6)")
    # Cutting off was towards zero: below zero one millionth more makes it downwards, as the rest is done.
    scaled = (decimal * _MICRO).cast("int64") - raw.re_search(f"^-.*{further}").cast("int64")
    above, below = scaled * factor.numerator, factor.denominator * _MICRO
    if rounding == "nearest":
        return floor(2 * above + below, 2 * below)
    found = floor(above, below)
    return (
        found
        if rounding == "down"
        else ((above % below == 0) & ~raw.re_search(further)).ifelse(found, integer(None))
    )


def floor(above: Any, below: int) -> Any:
    """Return the quotient rounded down. The division is of a multiple, so that a float holds it exactly."""
    rest = ((above % below) + below) % below
    return ((above - rest) / below).round().cast("int64")


def integer(value: int | None) -> Any:
    """Return ``value`` as a 64-bit integer expression; None is null."""
    return ibis.literal(value, type="int64")
