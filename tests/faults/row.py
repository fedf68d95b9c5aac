"""One row of the fault matrix."""

from __future__ import annotations

from typing import NamedTuple


class Row(NamedTuple):
    """One fault. A test is named in short: `area/file::name` is `tests/area/test_file.py::test_name`.

    `scenarios/name` is the scenario of that name.
    """

    name: str
    fault: str
    outcome: str
    short: tuple[str, ...]
    where: str

    @property
    def tests(self) -> tuple[str, ...]:
        """Its tests' names in full."""
        return tuple(full(name) for name in self.short)


def full(short: str) -> str:
    """Return a test's name in full, see `Row`; that of a file if there is no `::`."""
    file, _, name = short.partition("::")
    if file.startswith("scenarios/"):
        return f"{file}.toml"
    area, _, module = file.rpartition("/")
    return f"tests/{area}/test_{module}.py" + (f"::test_{name}" if name else "")
