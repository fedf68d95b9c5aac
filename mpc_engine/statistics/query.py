"""Queries: declarative documents with a closed vocabulary, one model per preset.

:class:`Query` holds what all presets share – filters and privacy parameters. A preset adds its own keys,
says which groups of cells it lays out and how the opened cells become statistics. A query is valid on its
own when it has been read; it meets the codebook in :meth:`Query.layout`.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from functools import reduce
from math import prod
from typing import Annotated, Any, ClassVar, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from mpc_engine.codebook import MAX_VALUE, BandVariable, Codebook, IntegerVariable
from mpc_engine.documents import (
    AfterValidator,
    Document,
    Field,
    StringConstraints,
    broken,
    digest,
    model_validator,
    refuse,
)
from mpc_engine.dp.accounting import Rule, guarantee_for
from mpc_engine.dp.rationals import decimal_text
from mpc_engine.errors import DocumentError
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally, parts_of
from mpc_engine.release.opened import Floats, Opened
from mpc_engine.release.smallcells import check
from mpc_engine.statistics.layout import AxisRule, FollowUp, Kind, Layout, Primaries, Recipe, Selection
from mpc_engine.statistics.tidy import Tidy
from mpc_engine.statistics.where import Problems, Where, known

LARGEST_DELTA: Final = Fraction(1, 1000)
"""Largest δ a query may ask for; a party's policy usually allows far less."""
MAX_CELLS: Final = 4_000_000
"""Most cells of one release."""
_DECIMAL: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,40})?([eE][+-]?[0-9]{1,2})?")

_TOO_MANY: Final = f"asks for more than {MAX_CELLS} cells; use fewer variables or wider bands"

_BY: Final = 'must be a list of variables, such as by = ["sex"]'
_WHERE: Final = (
    'names a variable and what of it is wanted: where = [{ variable = "tumour", in = ["leukaemia"] }], '
    'or where = [{ variable = "age", between = [0, 14] }]'
)


def _decimal(text: str) -> str:
    if not _DECIMAL.fullmatch(text):
        raise ValueError('must be a decimal number in quotes, such as "1", "0.5" or "1e-6"')
    if Fraction(text) <= 0:
        raise ValueError("must be greater than 0")
    return text


def _small(text: str) -> str:
    if Fraction(text) > LARGEST_DELTA:
        raise ValueError("must be at most 0.001: δ is a chance of failure, far below one over the population")
    return text


def _filters(value: Any) -> Any:
    """Return the filters as a list, given one or several."""
    listed = (value,) if isinstance(value, dict) else value
    if not isinstance(listed, list | tuple):
        raise broken("where", _WHERE)
    for index, each in enumerate(listed):
        if not (
            isinstance(each, Where) or (isinstance(each, dict) and {"variable", "in", "between"} & {*each})
        ):
            raise broken("where" if isinstance(value, dict) else f"where[{index}]", _WHERE)
    return listed


Decimal = Annotated[str, AfterValidator(_decimal)]
"""A positive decimal number as text; exact, unlike a float."""
Weight = Annotated[int, Field(ge=1, le=1_000_000)]
"""A part's share of ε relative to the others'."""
Possible = dict[str, NDArray[np.bool_]]
"""Which categories of an axis can hold a record, by the variable of the axis."""
Picture = Literal["bars", "heat", "curve", "funnel", "points"]


class Privacy(Document):
    """The privacy parameters that a query asks for; each party's policy may refuse them."""

    epsilon: Decimal
    rule: Literal["noisy", "strict", "exact"] = "noisy"
    threshold: Annotated[int, Field(ge=1, le=1_000_000)] = 5
    delta: Annotated[Decimal, AfterValidator(_small)] | None = None
    max_records_per_patient: Annotated[int, Field(ge=1, le=1_000)] = 1
    weights: Annotated[dict[str, Weight], Field(max_length=16)] | None = None

    @model_validator(mode="after")
    def _delta_goes_with_strict(self) -> Privacy:
        if self.rule == "strict" and self.delta is None:
            raise broken("delta", 'is required with rule = "strict", for example "1e-6"')
        if self.rule != "strict" and self.delta is not None:
            raise broken("delta", f'belongs to rule = "strict"; rule = "{self.rule}" has none')
        return self

    @property
    def epsilon_exact(self) -> Fraction:
        """Return ε as an exact fraction."""
        return Fraction(self.epsilon)

    @property
    def delta_exact(self) -> Fraction | None:
        """Return δ as an exact fraction, None where the rule has none."""
        return None if self.delta is None else Fraction(self.delta)


class Query(Document):
    """What all presets share. A preset gives ``preset`` one literal value and fills in the abstract methods.

    Class variables that a preset may set: ``picture``, how its result is drawn, and ``headlines``, the
    statistics that a summary of its expected error names.
    """

    picture: ClassVar[Picture] = "bars"
    headlines: ClassVar[tuple[str, ...]] = ()

    preset: str
    title: Annotated[str, StringConstraints(max_length=200)] = ""
    where: Annotated[tuple[Where, ...], Field(max_length=32)] = ()
    multiple_primaries: Primaries = "all"
    privacy: Privacy

    @model_validator(mode="before")
    @classmethod
    def _lists(cls, data: Any) -> Any:
        """Take a single name or filter for a list of one, which is what it becomes in the digest too."""
        if not isinstance(data, dict):
            return data
        found = dict(data)
        for name, value in data.items():
            info = cls.model_fields.get(str(name))
            if info is None or Ellipsis not in get_args(info.annotation):
                continue
            if name == "where":
                found[name] = _filters(value)
            elif isinstance(value, str):
                found[name] = (value,)
            elif name == "by" and not isinstance(value, list | tuple):
                raise broken(name, _BY)
        return found

    @abstractmethod
    def kinds(self, codebook: Codebook, problems: Problems) -> list[Kind]:
        """Return the groups that the query lays out, with their recipes.

        Faults go to ``problems`` with their key path; what is returned beside a fault is not used.
        """

    @abstractmethod
    def finish(self, codebook: Codebook, opened: Opened) -> Tidy:
        """Return the statistics of opened cells, in the clear.

        Without noise (a variance of zero) and with nothing suppressed they are the textbook ones.
        """

    @abstractmethod
    def question(self) -> str:
        """Return what is asked in plain words, as the middle of a sentence: "how many patients …"."""

    def follow_up(self, codebook: Codebook, problems: Problems) -> FollowUp | None:
        """Return the follow-up in whose window records must be at risk; None where there is no window."""
        return None

    def selections(self, codebook: Codebook, problems: Problems) -> tuple[Selection, ...]:
        """Return the filters on records. A preset may add to those of ``where``."""
        found = [
            where.selection(codebook, f"where[{index}]", problems) for index, where in enumerate(self.where)
        ]
        return tuple(selection for selection in found if selection is not None)

    def possible(self, codebook: Codebook, axes: Sequence[tuple[Axis, AxisRule]]) -> Possible:
        """Return for each axis, by its variable, which categories the query's filters allow at all."""
        return possible(axes, codebook, self.selections(codebook, []))

    def typical(self, codebook: Codebook, layout: Layout, cases: int) -> list[Floats]:
        """Return a made-up cohort's sums for every tally, for stating errors before anything is spent.

        Without better knowledge ``cases`` patients are spread evenly over the cells of each tally.
        """
        return [
            np.full(tally.grid.cells, cases / tally.grid.cells)
            for groups in layout.groups
            for tally in groups.tallies
        ]

    def coarser(self) -> Query | None:
        """Return the same question on the next coarser grid, where noise weighs less, if there is one."""
        return None

    def layout(self, codebook: Codebook) -> Layout:
        """Return the groups of cells and what a silo evaluates to fill them.

        Raises :class:`~mpc_engine.errors.DocumentError` naming every key that does not fit the codebook,
        or if the release has more than :data:`MAX_CELLS` cells.
        """
        problems: Problems = []
        kinds = self.kinds(codebook, problems)
        follow_up = self.follow_up(codebook, problems)
        found = self.selections(codebook, problems)
        groups: tuple[Groups, ...] = ()
        if not problems:
            groups = self._weighted(tuple(kind.groups for kind in kinds), problems)
            if sum(tally.grid.cells for each in groups for tally in each.tallies) > MAX_CELLS:
                problems.append(("", _TOO_MANY))
        if problems:
            raise refuse(self.origin, problems)
        return Layout(
            groups,
            tuple(recipe for kind in kinds for recipe in kind.recipes),
            found,
            self.privacy.max_records_per_patient,
            self.multiple_primaries,
            follow_up,
        )

    def _weighted(self, groups: tuple[Groups, ...], problems: Problems) -> tuple[Groups, ...]:
        """Return the groups with the weights that the query asks for in place of the preset's."""
        asked = self.privacy.weights or {}
        parts = [part.name for part in parts_of(groups)]
        for name in asked:
            if name not in parts:
                problems.append((f"privacy.weights.{name}", f"is no part; parts: {', '.join(parts)}"))
        names = iter(parts)

        def weighted(tally: Tally) -> Tally:
            return replace(tally, weight=asked.get(next(names), tally.weight))

        return tuple(
            Groups(each.name, weighted(each.guard), tuple(weighted(member) for member in each.members))
            for each in groups
        )

    def validate_on(self, codebook: Codebook) -> None:
        """Find out before anything is asked whether the query fits the codebook and its noise can be had.

        Raises :class:`~mpc_engine.errors.DocumentError` as :meth:`layout`, and for an ε so small that the
        noise is out of bounds or the small-cell test too wide; a party's larger k may make it too wide later.
        """
        parts, given = parts_of(self.layout(codebook).groups), self.privacy
        rule, cap = Rule(given.rule), given.max_records_per_patient
        try:
            check(guarantee_for(given.epsilon_exact, parts, rule, given.threshold, cap, given.delta_exact))
        except DocumentError as error:
            raise refuse(self.origin, [("privacy", str(error))]) from None

    def digest_fields(self) -> dict[str, object]:
        """Return the query as plain fields, equal for documents that ask the same with the same keys.

        They can be read as a query again.

        Nothing depends on the order of keys, of the filters and of the items of ``in``, on the notation of
        ε and δ, or on whether a default is written out. The title and the order of the axes do count, and
        ``edges`` are not the same as the ``bins`` between them.
        """
        fields: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_none=True)
        for where in fields["where"]:
            if "in" in where:
                where["in"] = sorted(where["in"], key=lambda item: (isinstance(item, str), item))
        fields["where"] = sorted(fields["where"], key=repr)
        fields["privacy"] = {
            **self.privacy.model_dump(mode="json", exclude_none=True, exclude={"epsilon", "delta"}),
            "epsilon": decimal_text(self.privacy.epsilon_exact),
            **({} if self.privacy.delta_exact is None else {"delta": decimal_text(self.privacy.delta_exact)}),
        }
        return fields

    def digest(self) -> str:
        """Return the SHA-256 of :meth:`digest_fields`, in hexadecimal."""
        return digest({"query": self.digest_fields()})


def variable_axis(
    name: str, path: str, codebook: Codebook, problems: Problems
) -> list[tuple[Axis, AxisRule]]:
    """Return the axis of a variable's own categories, as a list of one; empty after a fault at ``path``."""
    if not known(name, path, codebook, problems):
        return []
    if not codebook.countable(name):
        problems.append((path, f"{name} is a date, which has no categories; use a variable of its year"))
        return []
    variable = codebook.variables[name]
    labels = codebook.labels(name)
    unknown = None if codebook.unknown(name) is None else len(labels) - 1
    if isinstance(variable, BandVariable):
        rule = AxisRule(variable.of, cuts=variable.cuts, unknown=unknown)
    else:
        offset = variable.lower if isinstance(variable, IntegerVariable) else 0
        rule = AxisRule(name, offset=offset, unknown=unknown)
    return [(Axis(name, labels), rule)]


def counted(name: str, axes: list[tuple[Axis, AxisRule]], weight: int = 1) -> Kind:
    """Return groups of count cells over axes, each cell its own guard."""
    tally = Tally("records", Grid(tuple(axis for axis, _ in axes)), weight)
    return Kind(Groups(name, tally), (Recipe(tuple(rule for _, rule in axes)),))


def variable_axes(
    names: tuple[str, ...], path: str, codebook: Codebook, problems: Problems
) -> list[tuple[Axis, AxisRule]]:
    """Return the axes of several variables in order; a repeated or unknown name is a fault at ``path``.

    More than :data:`MAX_CELLS` cells are a fault too, found before any axis is laid out.
    """
    axes: list[tuple[Axis, AxisRule]] = []
    sizes = [
        codebook.size(name) if name in codebook.variables and codebook.countable(name) else 1
        for name in names
    ]
    if prod(sizes) > MAX_CELLS:
        wide = [(index, name) for index, name in enumerate(names) if sizes[index] > MAX_CELLS]
        advice = "has too many values for an axis; use a band or a histogram of it"
        problems.extend((f"{path}[{index}]", f"{name} {advice}") for index, name in wide)
        problems.extend([] if wide else [("", _TOO_MANY)])
        return axes
    for index, name in enumerate(names):
        if name in names[:index]:
            problems.append((f"{path}[{index}]", f"{name!r} occurs twice"))
        else:
            axes.extend(variable_axis(name, f"{path}[{index}]", codebook, problems))
    return axes


def covered(low: NDArray[Any], high: NDArray[Any], ranges: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """Return how many whole numbers from ``low`` to ``high``, ends included, lie in disjoint ``ranges``."""
    inside = np.zeros(low.shape, np.int64)
    for first, last in ranges:
        inside += np.maximum(0, np.minimum(high, last) - np.maximum(low, first) + 1)
    return inside


def possible(
    axes: Sequence[tuple[Axis, AxisRule]], codebook: Codebook, where: Sequence[Selection]
) -> Possible:
    """Return for each axis, by its variable, which categories can hold a record that passes all filters.

    A category that the filters cut through can. The others are zeros that query and codebook already tell.
    """
    found: Possible = {}
    for axis, rule in axes:
        base = codebook.base(rule.variable)
        filters = [each for each in where if codebook.base(each.variable) == base]
        places = np.arange(len(axis.categories), dtype=np.int64)
        low = high = places + rule.offset
        if rule.cuts:
            last = len(rule.cuts)
            edges = np.array([-MAX_VALUE - 1, *rule.cuts, MAX_VALUE + 1], np.int64)
            low, high = edges[np.minimum(places, last)], edges[np.minimum(places, last) + 1] - 1
        ranges: tuple[tuple[int, int], ...] = ((-MAX_VALUE - 1, MAX_VALUE + 1),)
        for each in filters:
            pairs = ((max(a, c), min(b, d)) for a, b in ranges for c, d in each.ranges)
            ranges = tuple((first, end) for first, end in pairs if first <= end)
        inside = covered(low, high, ranges) > 0
        if rule.unknown is not None:
            inside[rule.unknown] = all(each.unknown for each in filters)
        found[axis.variable] = inside
    return found


def open_cells(axes: Sequence[Axis], allowed: Possible) -> NDArray[np.bool_]:
    """Return which cells of the axes' grid the filters allow: those possible along every axis."""
    masks = [allowed.get(axis.variable, np.ones(len(axis.categories), np.bool_)) for axis in axes]
    return np.asarray(reduce(np.logical_and.outer, masks, np.ones((), np.bool_)))


def outside(axes: Sequence[Axis], allowed: Possible) -> dict[str, tuple[str, ...]]:
    """Return by variable the labels of categories that the filters leave out, as `Tidy` takes them."""
    return {
        axis.variable: tuple(
            label for label, inside in zip(axis.categories, allowed[axis.variable], strict=True) if not inside
        )
        for axis in axes
        if axis.variable in allowed
    }
