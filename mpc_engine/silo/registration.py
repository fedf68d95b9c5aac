"""A registration as it lies on the disk: the snapshot that sessions count, and what it was made from.

Only the snapshot itself must be as it was registered. The source file and the mapping are not needed any
more: where they have changed, or are gone, the snapshot is older than they are, which an operator is told.

Nothing here needs the table libraries, for a running party looks at its registration every few seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from mpc_engine.documents import Document, Field, load, load_json
from mpc_engine.errors import DataError, EngineError

FILE: Final = "registration.json"
"""The file of a registration, in the folder of the registered records."""


class SourceIdentity(Document):
    """What tells that a source file was changed. Never leaves this machine."""

    size: int
    mtime_ns: int
    sha256: str


class Registration(Document):
    """One registered snapshot. Only ``snapshot_id``, the codebook's digest and ``count_bound`` are public.

    ``registered`` is the day, ``source_file`` where the source is, ``mapping_sha256`` of the mapping's file;
    all three are "" in registrations that an older version made.
    """

    snapshot_id: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    codebook_digest: str
    count_bound: int
    mapping: str
    mapping_digest: str
    mapping_sha256: str = ""
    source: SourceIdentity | None
    source_file: str = ""
    snapshot: str
    snapshot_sha256: str
    rows: int
    max_records_per_patient: int
    has_primaries: bool = False
    registered: str = ""

    def __repr__(self) -> str:
        """Show the id alone; the number of rows is not public."""
        return f"Registration({self.snapshot_id})"

    __str__ = __repr__

    @property
    def words(self) -> str:
        """Say when it was made and of how many rows; for this machine only."""
        day = f" {self.registered}" if self.registered else ""
        return f"registered{day}, {self.rows:,} {'row' if self.rows == 1 else 'rows'}"


@dataclass(frozen=True)
class Newer:
    """A document that is not any more what the snapshot was made from; ``words`` say so."""

    document: Literal["source", "mapping"]
    words: str


def load_registration(state_dir: str | Path) -> Registration:
    """Return the registration in ``state_dir`` after making sure that its snapshot is whole.

    Raises :class:`~mpc_engine.errors.DataError` if there is none, or if the snapshot is missing or was
    altered; the next step is to register again.
    """
    registration = read_registration(state_dir)
    check_snapshot(registration)
    return registration


def read_registration(state_dir: str | Path) -> Registration:
    """Return the registration in ``state_dir`` without a look at its snapshot.

    Raises :class:`~mpc_engine.errors.DataError` if there is none, and
    :class:`~mpc_engine.errors.DocumentError` if it cannot be read.
    """
    path = Path(state_dir) / FILE
    if not path.is_file():
        raise DataError(f"{state_dir}: no data are registered here; run `mpc-engine data register` first")
    return load_json(path, Registration)


def check_snapshot(registration: Registration, digest: str | None = None) -> None:
    """Raise :class:`~mpc_engine.errors.DataError` unless the snapshot is whole and as it was registered.

    ``digest`` is what :func:`snapshot_digest` returned; without it the snapshot is read.
    """
    found = snapshot_digest(registration) if digest is None else digest
    if found not in {registration.snapshot_sha256} - {""}:
        raise DataError(f"{snapshot_path(registration)}: is missing or was altered; register again")


def snapshot_digest(registration: Registration) -> str:
    """Return the SHA-256 of the registration's snapshot as it lies there, "" if it cannot be read."""
    return sha256(snapshot_path(registration))


def check_use(registration: Registration, codebook: str, count_bound: int) -> None:
    """Raise :class:`~mpc_engine.errors.DataError` unless a party may count the registered records.

    ``codebook`` is the digest of the party's codebook, ``count_bound`` the greatest that its roster allows.
    """
    if registration.codebook_digest != codebook:
        raise DataError("the data were registered with another codebook; register again")
    if registration.count_bound > count_bound:
        raise DataError(
            f"the data were registered with a bound of {registration.count_bound} on counts, "
            f"the roster allows {count_bound}"
        )


def snapshot_path(registration: Registration) -> Path:
    """Return where the registration's snapshot lies: beside the file that it was read from."""
    return Path(registration.origin).parent / registration.snapshot


def source_files(registration: Registration) -> tuple[Path, ...]:
    """Return the files on which :func:`source_newer` depends; none for a table of a database server."""
    source = registration.source_file
    return (Path(source), *change_logs(Path(source))) if source else ()


def change_logs(database: Path) -> tuple[Path, Path]:
    """Return where DuckDB and SQLite keep changes that are not in the database's file yet."""
    return Path(f"{database}.wal"), Path(f"{database}-wal")


def newer(registration: Registration, most_bytes: int | None = None) -> tuple[Newer, ...]:
    """Return what has changed, or gone, since the snapshot was made: the source, the mapping, or both."""
    return source_newer(registration, most_bytes) + mapping_newer(registration)


def source_newer(registration: Registration, most_bytes: int | None = None) -> tuple[Newer, ...]:
    """Return whether the source has changed, or gone, since the snapshot was made; () if not.

    It is read only if its size is as registered and its time is not; if it then is longer than
    ``most_bytes`` its time alone decides. Of a table of a database server nothing is said.
    """
    return tuple(_source_newer(registration, most_bytes))


def mapping_newer(registration: Registration) -> tuple[Newer, ...]:
    """Return whether what the mapping says has changed, or its file gone; () if not."""
    return tuple(_mapping_newer(registration))


def _source_newer(registration: Registration, most_bytes: int | None) -> Iterator[Newer]:
    was, path = registration.source, Path(registration.source_file)
    if was is None or not registration.source_file:
        return
    try:
        found = path.stat()
    except OSError:
        yield Newer("source", f"{path.name} is no longer there")
        return
    same = found.st_size == was.size
    if same and found.st_mtime_ns != was.mtime_ns:
        same = (most_bytes is None or found.st_size <= most_bytes) and sha256(path) == was.sha256
    if not same or any(_holds_changes(log) for log in change_logs(path)):
        yield Newer("source", f"{path.name} has changed since")


def _mapping_newer(registration: Registration) -> Iterator[Newer]:
    path = Path(registration.mapping)
    if not path.is_file():
        yield Newer("mapping", f"{path.name} is no longer there")
    elif sha256(path) != registration.mapping_sha256 and _content(path) != registration.mapping_digest:
        yield Newer("mapping", f"{path.name} has changed since")


def _content(path: Path) -> str:
    """Return the digest of what a mapping says, which notes and spaces do not change; "" if it is none."""
    # Imported here, for it needs the table libraries, and few mappings change.
    from mpc_engine.silo.mapping import Mapping

    try:
        return load(path, Mapping).digest()
    except EngineError:
        return ""


def _holds_changes(log: Path) -> bool:
    try:
        return log.stat().st_size > 0
    except OSError:
        return False


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal, "" if it cannot be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
