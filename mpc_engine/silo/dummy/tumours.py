"""Made-up tumours: valid ICD-O-3 codes for the groups that a mapping has worked out from them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final

import numpy as np

from mpc_engine.codebook import CategoryVariable, Codebook
from mpc_engine.silo.dummy.numbers import Texts
from mpc_engine.silo.dummy.values import skewed
from mpc_engine.silo.icdo3 import iccc3_rows, read_table
from mpc_engine.silo.mapping import Mapping, TumourCodes, VariableMapping

_CARCINOMAS: Final = (8140, 8070, 8010)
_LYMPHOMAS: Final = 9590
_LEUKAEMIAS: Final = 9800
_IN_SITU: Final = 2
_IN_SITU_SHARE: Final = 0.02


@dataclass(frozen=True)
class Tumour:
    """One tumour: topography (``C64.9``), morphology, behaviour, and its ICCC-3 subgroup or else its site."""

    topography: str
    morphology: int
    behaviour: int
    subgroup: str

    def group(self, scheme: str | None) -> str:
        """Return the tumour's ``group`` or ``subgroup`` of ICCC-3."""
        return self.subgroup.partition("(")[0] if scheme == "group" else self.subgroup


class Tumours:
    """The tumours that a silo may have, such that every grouping of its mapping has a label for them."""

    def __init__(self, mapping: Mapping, codebook: Codebook) -> None:
        self._codes: TumourCodes | None = mapping.icdo3
        schemes: list[tuple[str, set[str], bool]] = []
        for name, mapped in mapping.variables.items():
            variable = codebook.mapped[name]
            if mapped.iccc3 is not None and isinstance(variable, CategoryVariable):
                known = set(mapped.codes or variable.known)
                schemes.append((mapped.iccc3, known, variable.missing_is_unknown))
        every = _childhood() if schemes else _carcinomas()
        self._fitting = [
            tumour for tumour in every if all(tumour.group(scheme) in known for scheme, known, _ in schemes)
        ]
        # A tumour in situ has no place in the childhood groups: it is unknown there, if anything may be.
        self._in_situ = bool(schemes) and all(unknown for *_, unknown in schemes)
        by_group: dict[str, list[int]] = {}
        for index, tumour in enumerate(self._fitting):
            by_group.setdefault(tumour.group(schemes[0][0] if schemes else None), []).append(index)
        self._groups = [np.array(members) for members in by_group.values()]

    def labels(self, mapped: VariableMapping, variable: CategoryVariable) -> set[str]:
        """Return the labels that the variable can have."""
        codes = mapped.codes or {label: label for label in variable.known}
        return {codes[tumour.group(mapped.iccc3)] for tumour in self._fitting}

    def write(self, rows: int, generator: np.random.Generator) -> dict[str, Texts]:
        """Return the texts of the columns with topography, morphology and, where there is one, behaviour."""
        if self._codes is None or not self._fitting:
            return {}
        group = skewed(np.arange(len(self._groups)), rows, generator)
        chosen = np.zeros(rows, dtype=np.int64)
        for place, members in enumerate(self._groups):
            mine = group == place
            chosen[mine] = members[generator.integers(0, members.size, int(mine.sum()))]
        topography = np.array([tumour.topography for tumour in self._fitting], dtype=object)[chosen]
        morphology = np.array([str(tumour.morphology) for tumour in self._fitting], dtype=object)[chosen]
        behaviour = np.array([tumour.behaviour for tumour in self._fitting])[chosen]
        if self._in_situ:
            behaviour = np.where(generator.random(rows) < _IN_SITU_SHARE, _IN_SITU, behaviour)
        digits = behaviour.astype(str).astype(object)
        if self._codes.behaviour is None:
            morphology = morphology + "/" + digits
        texts = {self._codes.topography: topography, self._codes.morphology: morphology}
        return texts if self._codes.behaviour is None else texts | {self._codes.behaviour: digits}


@cache
def _childhood() -> tuple[Tumour, ...]:
    """Return tumours of every subgroup of ICCC-3."""
    subsites = _subsites()
    found: dict[Tumour, None] = {}
    for row in iccc3_rows():
        behaviour = 3 if 3 in row.behaviour else row.behaviour[0]
        places = [
            f"C{place // 10:02}.{place % 10}"
            for first, last in row.topography
            for place in range(first, last + 1)
            if place % 10 in subsites.get(place // 10, ())
        ]
        # The ends of a range are codes that there are; what is between them need not be.
        for morphology in dict.fromkeys(code for both in row.morphology for code in both):
            usual = [place for place in places if place.startswith(_usual_site(morphology))]
            found |= dict.fromkeys(
                Tumour(place, morphology, behaviour, row.subgroup) for place in usual or places
            )
    return tuple(found)


def _usual_site(morphology: int) -> str:
    """Return how the topographies of nearly all tumours with this morphology begin."""
    if morphology < _LYMPHOMAS:
        return "C"
    return "C42.1" if morphology >= _LEUKAEMIAS else "C77"


@cache
def _carcinomas() -> tuple[Tumour, ...]:
    """Return carcinomas of every site."""
    return tuple(
        Tumour(f"C{site:02}.{digits[-1]}", morphology, 3, f"C{site:02}")
        for site, digits in _subsites().items()
        for morphology in _CARCINOMAS
    )


@cache
def _subsites() -> dict[int, tuple[int, ...]]:
    """Return the fourth characters that each three-character site can have."""
    rows = read_table("icdo3_topography.csv")
    return {int(row["site"][1:]): tuple(int(digit) for digit in row["subsites"]) for row in rows}
