"""What every test may use."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """A folder of a short name, gone after the test, in place of pytest's own fixture of that name.

    Messages name files, and tests see where they break at 80 columns; how long pytest's own path is
    depends on the user's name and on how many processes run the tests.
    """
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option of the fault matrix; see `tests/faults/conftest.py`."""
    parser.addoption("--whole-matrix", action="store_true", help="every case of the fault matrix")
