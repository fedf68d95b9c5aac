"""A table of a registry's own database server, read with a driver of Ibis installed beside the engine.

Every driver fails in its own way, in words that may quote the address with its password, or a row: only the
kinds of its failures are told.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

import ibis
from ibis.common.exceptions import IbisError

from mpc_engine.errors import DataError, EngineError

_KIND: Final = re.compile(r"[a-z][a-z0-9+.-]{0,30}")
_ALSO_CALLED: Final = {"postgresql": "postgres"}


@contextmanager
def server_table(address: str, table: str, what: str) -> Iterator[Any]:
    """Yield a table of the server at an address, such as ``postgres://user:password@host/database``.

    ``what`` is what messages call it. Raises DataError, for whatever the driver raises while the table is in
    use too; failures of the engine, of Ibis and of the operating system are left as they are.
    """
    connection = _connected(address, what)
    try:
        yield connection.table(table)
    except (EngineError, IbisError, OSError):
        raise
    except Exception as error:
        raise DataError(f"{what}: cannot be read from the server ({type(error).__name__})") from None
    finally:
        with suppress(Exception):  # what was read is complete by then, and what was not has failed
            connection.disconnect()


def _connected(address: str, what: str) -> Any:
    scheme = address.partition("://")[0]
    kind = _ALSO_CALLED.get(scheme, scheme)
    if not _KIND.fullmatch(scheme):
        raise DataError(f"{what}: its address does not begin with a kind of database, as postgres:// does")
    try:
        getattr(ibis, kind)
    except ImportError:
        raise DataError(
            f"{what}: the driver for {scheme}:// is not installed; install ibis-framework[{kind}] beside the "
            "engine"
        ) from None
    except AttributeError:
        raise DataError(f"{what}: Ibis knows no databases of the kind {scheme}://") from None
    try:
        return ibis.connect(address)
    except ValueError:
        raise DataError(
            f"{what}: its address cannot be read; special characters of a password are written with % and "
            "two digits"
        ) from None
    except Exception as error:
        raise DataError(f"{what}: no connection with the server ({type(error).__name__})") from None
