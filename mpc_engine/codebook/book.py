"""A study's codebook as one document, the public files that it names, and its digest."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Annotated, Final, Literal

from mpc_engine.codebook.variables import (
    BandVariable,
    CategoryVariable,
    DateVariable,
    IntegerVariable,
    MappedVariable,
    Name,
    Variable,
    day,
    printable,
)
from mpc_engine.documents import (
    AfterValidator,
    Document,
    Field,
    StringConstraints,
    broken,
    digest,
    load,
    model_validator,
    refuse,
)
from mpc_engine.errors import DocumentError

RESERVED: Final = (
    *("value", "flag", "group", "tally", "preset", "statistic", "time", "n_shown", "display"),
    *("lcl", "ucl", "se_sampling", "se_noise", "ci_method", "standard", "note", "outcome", "entry"),
)
"""Names that no variable may have: a release's table has columns of these names."""

MAX_FILE_BYTES: Final = 1 << 26
"""Largest public file that a codebook may name, in bytes."""


class PublicFile(Document):
    """A public file that statistics read: where it lies, what it is and what it must hash to."""

    path: Annotated[str, StringConstraints(min_length=1), AfterValidator(printable)]
    kind: Literal["life-table", "population", "rates"]
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    description: str = ""


class Codebook(Document):
    """All variables of a study, by name."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=120), AfterValidator(printable)]
    version: Annotated[str, StringConstraints(min_length=1, max_length=40), AfterValidator(printable)]
    description: str = ""
    variables: Annotated[dict[Name, Variable], Field(min_length=1, max_length=500)]
    files: Annotated[dict[Name, PublicFile], Field(max_length=100, default_factory=dict)]

    @model_validator(mode="after")
    def _names_are_free(self) -> Codebook:
        for name in RESERVED:
            if name in self.variables:
                raise broken(
                    f"variables.{name}", "is the name of a column of every release; choose another name"
                )
        return self

    @model_validator(mode="after")
    def _bands_fit(self) -> Codebook:
        for name, variable in self.variables.items():
            if not isinstance(variable, BandVariable):
                continue
            whole = self.variables.get(variable.of)
            if not isinstance(whole, IntegerVariable):
                integers = [
                    other for other, kind in self.variables.items() if isinstance(kind, IntegerVariable)
                ]
                allowed = ", ".join(integers) or "there is none"
                raise broken(
                    f"variables.{name}.of", f"must name an integer variable ({allowed}), not {variable.of!r}"
                )
            for index, cut in enumerate(variable.cuts):
                if not whole.lower < cut <= whole.upper:
                    raise broken(
                        f"variables.{name}.cuts[{index}]",
                        f"is {cut}; it must be above {whole.lower} and at most {whole.upper}",
                    )
            if whole.unknown in variable.labels:
                raise broken(f"variables.{name}.labels", f"repeat the unknown label of {variable.of}")
        return self

    @property
    def mapped(self) -> dict[str, MappedVariable]:
        """Return the variables that a silo maps: all but the derived ones."""
        return {name: kind for name, kind in self.variables.items() if not isinstance(kind, BandVariable)}

    def base(self, name: str) -> str:
        """Return the mapped variable that ``name`` is or is derived from."""
        variable = self.variables[name]
        return variable.of if isinstance(variable, BandVariable) else name

    def unknown(self, name: str) -> str | None:
        """Return the label of the variable's unknown category, or None; a band has that of its integer."""
        base = self.variables[self.base(name)]
        return None if isinstance(base, BandVariable) else base.unknown

    def countable(self, name: str) -> bool:
        """Return whether the variable has categories to count by; a date has none, only filters use it."""
        return not isinstance(self.variables[name], DateVariable)

    def labels(self, name: str) -> tuple[str, ...]:
        """Return the variable's categories in order, unknown last where declared.

        An integer variable has one for each whole number in its bounds. Raises
        :class:`~mpc_engine.errors.DocumentError` for a date, which is not :meth:`countable`.
        """
        variable = self.variables[name]
        if isinstance(variable, CategoryVariable):
            known = variable.known
        elif isinstance(variable, IntegerVariable):
            known = tuple(str(value) for value in range(variable.lower, variable.upper + 1))
        elif isinstance(variable, BandVariable):
            known = variable.labels
        else:
            raise self._not_countable(name)
        unknown = self.unknown(name)
        return known if unknown is None else (*known, unknown)

    def size(self, name: str) -> int:
        """Return the number of the variable's categories without making their labels; errors as there."""
        variable = self.variables[name]
        if isinstance(variable, IntegerVariable):
            known = variable.upper - variable.lower + 1
        elif isinstance(variable, DateVariable):
            raise self._not_countable(name)
        else:
            known = len(variable.known if isinstance(variable, CategoryVariable) else variable.labels)
        return known + (self.unknown(name) is not None)

    def bounds(self, name: str) -> tuple[int, int] | None:
        """Return the least and greatest coded value of an integer or date, both allowed; None for others."""
        variable = self.variables[name]
        if isinstance(variable, IntegerVariable):
            return variable.lower, variable.upper
        if isinstance(variable, DateVariable):
            return day(variable.lower), day(variable.upper)
        return None

    def coded(self, name: str, value: int | str) -> int | None:
        """Return the coded value of a number of an integer variable or of a date, ``YYYY-MM-DD``, of a date.

        None if ``value`` is not of the variable's kind or lies outside its bounds.
        """
        bounds = self.bounds(name)
        if bounds is None or isinstance(value, str) != isinstance(self.variables[name], DateVariable):
            return None
        try:
            found = day(value) if isinstance(value, str) else value
        except ValueError:
            return None
        return found if bounds[0] <= found <= bounds[1] else None

    def file(self, name: str) -> Path:
        """Return where the public file ``name`` lies; errors as :meth:`read`, but it is not opened."""
        if name not in self.files:
            known = ", ".join(self.files) or "none"
            raise refuse(self.origin, [(f"files.{name}", f"is not in the codebook; it has: {known}")])
        return Path(self.origin).parent / self.files[name].path

    def read(self, name: str) -> str:
        """Return the text of the public file ``name`` after comparing its SHA-256 with the one stated.

        Raises :class:`~mpc_engine.errors.DocumentError` if the codebook has no such file, or the file is
        missing, too large, altered or not UTF-8.
        """
        path, stated = self.file(name), self.files[name].sha256
        try:
            with path.open("rb") as file:
                content = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            raise refuse(
                self.origin, [(f"files.{name}.path", f"{path} cannot be read ({error.strerror})")]
            ) from None
        if len(content) > MAX_FILE_BYTES:
            raise refuse(
                self.origin, [(f"files.{name}.path", f"{path} is larger than {MAX_FILE_BYTES} bytes")]
            )
        found = hashlib.sha256(content).hexdigest()
        if found != stated:
            raise refuse(
                self.origin,
                [(f"files.{name}.sha256", f"{path} has the SHA-256 {found}, not the one stated here")],
            )
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise refuse(
                self.origin, [(f"files.{name}.path", f"{path} is not UTF-8 text (byte {error.start})")]
            ) from None

    def _not_countable(self, name: str) -> DocumentError:
        message = "is a date, which has no categories; use a variable of its year, or filter by it"
        return refuse(self.origin, [(f"variables.{name}", message)])

    def digest(self) -> str:
        """Return the SHA-256 of the codebook's content, in hexadecimal, whatever its file looks like.

        Of a public file it covers name, kind and SHA-256, hence its content but not where it lies.
        """
        return self._content_digest

    @cached_property
    def _content_digest(self) -> str:
        fields = self.model_dump(mode="json", exclude={"files"})
        if self.files:
            fields["files"] = {
                name: {"kind": file.kind, "sha256": file.sha256} for name, file in self.files.items()
            }
        return digest({"codebook": fields})


def load_codebook(path: str | Path) -> Codebook:
    """Read the codebook at ``path`` and make sure that its public files are there and as stated.

    Raises :class:`~mpc_engine.errors.DocumentError`.
    """
    codebook = load(path, Codebook)
    for name in codebook.files:
        codebook.read(name)
    return codebook
