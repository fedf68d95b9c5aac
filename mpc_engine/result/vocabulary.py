"""What things are called: statistics and methods in words, variables and categories as the codebook has them.

Tables keep the names of variables, which are short; axes of pictures have their descriptions. Categories
show their description beside the label where it is short.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import pandas as pd

from mpc_engine.codebook import BandVariable, Codebook, IntegerVariable
from mpc_engine.statistics.tidy import ALL
from mpc_engine.statistics.wording import descriptions, short, unit_of

NAMES: Final = {
    "sir": "SIR",
    "age_specific_rate": "Age-specific rate",
    "chi_squared": "χ²",
    "p_value": "p",
    "median_follow_up": "Median follow-up",
    "log_rank_observed": "Log-rank observed",
    "log_rank_expected": "Log-rank expected",
    "log_rank_chi_squared": "Log-rank χ²",
    "log_rank_textbook_chi_squared": "Log-rank χ² (noise left out)",
    "log_rank_degrees_of_freedom": "Log-rank degrees of freedom",
    "log_rank_p": "Log-rank p",
    "percent": "% of the total",
    "row_percent": "% of the row",
    "column_percent": "% of the column",
}
"""Statistics whose name in words is not just theirs without underscores."""
METHODS: Final = {
    "kaplan-meier": "Kaplan–Meier",
    "pohar-perme": "Pohar Perme",
    "ederer-2": "Ederer II",
    "brookmeyer-crowley": "Brookmeyer–Crowley",
    "byar": "Byar",
    "byar-exact": "Byar, exact for few cases",
    "dobson-byar": "Dobson–Byar",
    "dobson-exact": "Dobson, exact",
    "fay-feuer": "Fay–Feuer",
    "tiwari": "Tiwari",
    "wilson": "Wilson",
    "clopper-pearson": "Clopper–Pearson",
    "woodruff": "Woodruff",
    "t": "Student’s t",
    "normal": "normal approximation",
}
"""Methods whose name is not as the table has it."""
_CONDITIONAL: Final = re.compile(r"conditional_survival_([0-9]+)y")


def words(statistic: str) -> str:
    """Return a statistic's name in words."""
    later = _CONDITIONAL.fullmatch(statistic)
    if later:
        return f"Survival given survival to {later[1]} year{'' if later[1] == '1' else 's'}"
    plain = statistic.replace("_", " ")
    return NAMES.get(statistic, plain[:1].upper() + plain[1:])


def method_words(method: str) -> str:
    """Return the name of a method – estimator and interval, joined by commas – in words."""
    return ", ".join(METHODS.get(part, part) for part in method.split(", "))


def methods(rows: pd.DataFrame) -> str:
    """Return the methods of a table's rows in words, each once; "" if none is named."""
    named = rows.loc[rows["flag"].astype(str).isin(("ok", "t", "u")), "ci_method"].astype(str)
    found = named if (named != "").any() else rows["ci_method"].astype(str)
    return "; ".join(dict.fromkeys(method_words(each) for each in found.unique() if each))


def axis_title(codebook: Codebook, name: str) -> str:
    """Return what an axis of this variable is called: its description, with its unit unless that is said."""
    if name not in codebook.variables:
        return name
    base = codebook.variables[codebook.base(name)]
    described = short(codebook.variables[name].description or base.description, 72) or name
    unit = unit_of(codebook, name)
    return described if not unit or unit in described else f"{described}, {unit}"


def category(codebook: Codebook, name: str, label: str) -> str:
    """Return a category with its description beside the label, where it has a short one."""
    return _categories(codebook, name).get(label, label)


def readable(table: pd.DataFrame, variables: Iterable[str], codebook: Codebook) -> pd.DataFrame:
    """Return the table with described categories in place of labels; all else stays."""
    changed = {}
    for name in variables:
        found = _categories(codebook, name)
        if found:
            renamed = [found.get(label, label) for label in table[name].cat.categories]
            if len(set(renamed)) == len(renamed):
                changed[name] = table[name].cat.rename_categories(renamed)
    return table.assign(**changed) if changed else table


def _categories(codebook: Codebook, name: str) -> dict[str, str]:
    return {label: f"{label} {text}" for label, text in descriptions(codebook, name).items() if label != ALL}


def ordered_places(codebook: Codebook, name: str) -> tuple[str, ...] | None:
    """Return the known labels of an integer variable or of a band of one, in order; None for others."""
    variable = codebook.variables.get(name)
    if not isinstance(variable, IntegerVariable | BandVariable):
        return None
    labels = codebook.labels(name)
    return labels if codebook.unknown(name) is None else labels[:-1]
