"""Tables of a registry's own database server: what is told of failures, and that they tell nothing more."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ibis
import pytest

from mpc_engine.errors import DataError, DocumentError
from mpc_engine.silo.register import load_registration, register
from tests.silo import studies
from tests.silo.test_awkward_sources import _counts

SECRET = "se[cret"


class DriverError(Exception):
    """A failure of no known kind, which quotes what it must not."""


def mapping(folder: Path, address: str, table: str = "tumours") -> Path:
    """Write a study whose records lie at an address."""
    source = f'database = "{address}"\ntable = "{table}"'
    return studies.write(folder, "", studies.MAPPING.replace('file = "rows.csv"', source))


def refused(folder: Path, address: str, words: str, kind: type[Exception] = DataError) -> None:
    """Check that registering fails in words that hold nothing of an address but its kind."""
    with pytest.raises(kind, match=words) as failure:
        register(mapping(folder, address), folder / "state")
    assert "cret" not in str(failure.value) and "host" not in str(failure.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_a_driver_that_is_not_there_is_named(tmp_path: Path, scheme: str) -> None:
    refused(tmp_path, f"{scheme}://u:{SECRET}@host/x", r"for postgres(ql)?://.*ibis-framework\[postgres\]")


@pytest.mark.parametrize(
    ("address", "words"),
    [
        (f"nosuch://u:{SECRET}@host/x", "no databases of the kind nosuch://"),
        (f"u:{SECRET}@host/x?proxy=http://p", "does not begin with a kind of database"),
        (f"://u:{SECRET}@host/x", "does not begin with a kind of database"),
    ],
)
def test_what_is_no_address(tmp_path: Path, address: str, words: str) -> None:
    refused(tmp_path, address, words)


def fail(error: Exception) -> Callable[..., Any]:
    """Return a function that fails."""

    def failing(*_: object) -> Any:
        raise error

    return failing


def tumours(columns: str) -> Any:
    """Return a connection with a table of one row."""
    connection = ibis.sqlite.connect()
    connection.con.execute(f"create table tumours as select {columns}")
    return connection


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A driver with one table, made of SQLite's, whose parts a test may replace."""
    connection = tumours("'a' id, 'F' sex, '1' stage, '5' age")
    made = SimpleNamespace(table=connection.table, disconnect=connection.disconnect)
    made.connect = lambda _: made
    monkeypatch.setattr(ibis, "fake", object(), raising=False)
    monkeypatch.setattr(ibis, "connect", lambda address: made.connect(address))
    return made


def test_a_servers_table_is_registered(tmp_path: Path, driver: SimpleNamespace) -> None:
    driver.disconnect = fail(DriverError("the server is gone"))
    path = mapping(tmp_path, f"fake://u:{SECRET}@host/x")
    assert sum(_counts(path, tmp_path / "state")) == 1
    assert load_registration(tmp_path / "state").source is None


@pytest.mark.parametrize("part", ["connect", "table"])
def test_a_drivers_own_failure_is_told_by_its_kind(
    tmp_path: Path, driver: SimpleNamespace, part: str
) -> None:
    setattr(driver, part, fail(DriverError(f"password {SECRET} at host")))
    refused(tmp_path, f"fake://u:{SECRET}@host/x", "DriverError")


def test_an_address_that_cannot_be_read(tmp_path: Path, driver: SimpleNamespace) -> None:
    driver.connect = fail(ValueError(f"invalid port {SECRET}"))
    refused(tmp_path, f"fake://u:{SECRET}@host/x", "special characters of a password")


def test_a_column_that_is_not_there_is_still_a_fault_of_the_mapping(
    tmp_path: Path, driver: SimpleNamespace
) -> None:
    driver.table = tumours("'a' id, 'F' sex, '5' age").table
    refused(tmp_path, f"fake://u:{SECRET}@host/x", "there is no column 'stage'", DocumentError)
