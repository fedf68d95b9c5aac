"""Writing coded numbers and days as a source would, so that its mapping reads them back.

Numbers come in other units than the codebook's, with decimals or not; dates in any of the mapping's formats.
"""

from __future__ import annotations

from datetime import date
from fractions import Fraction
from math import gcd
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from mpc_engine.codebook import EPOCH, day
from mpc_engine.silo.dates import DateColumn
from mpc_engine.silo.dummy.values import LARGEST, Values

Texts = npt.NDArray[Any]
"""Texts as an array of objects."""
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_MOST_PLACES: Final = 6


def number_texts(
    values: Values,
    bounds: tuple[int, int],
    factor: Fraction,
    rounding: str,
    comma: bool,
    generator: np.random.Generator,
) -> Texts:
    """Return numbers that, times ``factor`` and rounded, are ``values``; these lie within ``bounds``.

    Where only some values can be written exactly, the nearest of those stands in for each other one.
    """
    above, below = factor.numerator, factor.denominator
    if rounding == "exact":
        places, step = _exact(above, below)
        lowest, highest = -(-bounds[0] // step), bounds[1] // step
        values = np.clip(np.round(values / step).astype(np.int64), lowest, max(lowest, highest)) * step
        return decimal_texts(values * (below * 10**places) // above, places, comma)
    places = 1 if above >= below else 0
    while 10**places * below < above:
        places += 1
    # The grid of 10^-places has a point in every half-open interval of length 1/factor.
    first, last = (2 * values - 1, 2 * values + 1) if rounding == "nearest" else (2 * values, 2 * values + 2)
    scale = 10**places * below
    low, high = -(-first * scale // (2 * above)), -(-last * scale // (2 * above)) - 1
    most = LARGEST * 10**places
    low = np.maximum(low, 0 if bounds[0] >= 0 else -most)
    high = np.maximum(np.minimum(high, most), low)
    return decimal_texts(generator.integers(low, high, endpoint=True), places, comma)


def _exact(above: int, below: int) -> tuple[int, int]:
    """Return the fewest places with which the values that can be written are densest, and their step."""
    steps = [above // gcd(above, below * 10**places) for places in range(_MOST_PLACES + 1)]
    return steps.index(min(steps)), min(steps)


def decimal_texts(scaled: Values, places: int, comma: bool = False) -> Texts:
    """Return whole numbers of 10^-places as decimal texts."""
    if not places:
        return scaled.astype(str).astype(object)
    whole, rest = np.divmod(np.abs(scaled), 10**places)
    sign = np.where(scaled < 0, "-", "").astype(object)
    digits = np.char.zfill(rest.astype(str), places).astype(object)
    return np.asarray(sign + whole.astype(str).astype(object) + ("," if comma else ".") + digits)


def formats_of(sources: list[DateColumn]) -> DateColumn:
    """Return one description of a column that all of its readers can read, as far as there is one."""
    first = sources[0]
    common = [
        form
        for form in first.formats or ("%Y-%m-%d",)
        if all(form in (other.formats or ("%Y-%m-%d",)) for other in sources)
    ]
    if first.days_since is not None or not common or first.formats is None:
        return first
    return first.model_copy(update={"formats": tuple(common)})


def date_texts(days: Values, source: DateColumn, generator: np.random.Generator) -> tuple[Values, Texts]:
    """Return days since 1970-01-01 as ``source`` has them, and as it writes them.

    The days change where a format leaves out the day or month and another is assumed.
    """
    if source.days_since is not None:
        return days, decimal_texts(days - day(source.days_since), 0)
    forms = source.formats or ("%Y-%m-%d",)
    chosen = generator.integers(0, len(forms), days.size)
    unique, where = np.unique(days, return_inverse=True)
    kept, texts = days.copy(), np.empty(days.size, dtype=object)
    for index, form in enumerate(forms):
        dates = [_assumed(date.fromordinal(int(one) + EPOCH.toordinal()), form, source) for one in unique]
        written = np.array([_written(one, form) for one in dates], dtype=object)
        read = np.array([day(one) for one in dates], dtype=np.int64)
        mine = chosen == index
        kept[mine], texts[mine] = read[where[mine]], written[where[mine]]
    return kept, texts


def _assumed(found: date, form: str, source: DateColumn) -> date:
    assumed = source.assumed(form)
    if "%m" in assumed:
        found = found.replace(month=source.assumed_month or 1, day=1)
    return found.replace(day=source.assumed_day or 1) if "%d" in assumed else found


def _written(found: date, form: str) -> str:
    # Not strftime, which names months in the language of the machine and has three-digit years.
    for mark, text in (
        ("%Y", f"{found.year:04}"),
        ("%m", f"{found.month:02}"),
        ("%d", f"{found.day:02}"),
        ("%b", _MONTHS[found.month - 1]),
        ("%j", f"{found.timetuple().tm_yday:03}"),
    ):
        form = form.replace(mark, text)
    return form


def later(start: Values, amount: Values, unit: str, generator: np.random.Generator) -> Values:
    """Return days that lie ``amount`` completed units (days, months or years) after ``start``."""
    if unit == "days":
        return start + amount
    months, place, _ = _calendar(start)
    months = months + _months(amount, unit, generator)
    length = _length(months)
    # Where the month is too short for the day, the next unit is not complete before that day of the next.
    over = place > length
    first = np.where(over, 1, place)
    last = np.where(over, np.maximum(place - 1, 1), length)
    return _first_day(months + over) + generator.integers(first, last, endpoint=True) - 1


def earlier(end: Values, amount: Values, unit: str, generator: np.random.Generator) -> Values:
    """Return days from which on ``amount`` completed units have passed at ``end``."""
    if unit == "days":
        return end - amount
    months, place, _ = _calendar(end)
    months = months - _months(amount, unit, generator)
    return _first_day(months) + generator.integers(1, np.minimum(place, _length(months)), endpoint=True) - 1


def _months(amount: Values, unit: str, generator: np.random.Generator) -> Values:
    return amount if unit == "months" else 12 * amount + generator.integers(0, 12, amount.size)


def _calendar(days: Values) -> tuple[Values, Values, Values]:
    """Return months since January 1970, the day of the month, and the day that begins it."""
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    first = _first_day(months)
    return months, days - first + 1, first


def _first_day(months: Values) -> Values:
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def _length(months: Values) -> Values:
    return _first_day(months + 1) - _first_day(months)
