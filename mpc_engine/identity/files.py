"""Writing keys and cards so that neither a crash nor another account of the machine gets half of one."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mpc_engine.errors import DocumentError


def read_secret(path: Path) -> bytes:
    """Return the content of a file that only its owner may read; raises DocumentError otherwise."""
    try:
        with path.open("rb") as file:
            if os.name == "posix" and os.fstat(file.fileno()).st_mode & 0o077:
                raise DocumentError(f"{path}: others may read this key; set its mode to 0600")
            return file.read()
    except OSError as error:
        raise DocumentError(f"{path}: cannot be read: {error.strerror}") from None


def write_new(path: Path, content: bytes, mode: int) -> None:
    """Write a file that must not exist and bring it to the disk; its mode is set before it has any content.

    Raises FileExistsError or another OSError, and leaves no part of the file behind.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def replace(path: Path, content: bytes, mode: int = 0o644) -> None:
    """Write a file whole, in place of an old one if any, and bring it to the disk. Raises OSError."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new(beside, content, mode)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Bring the names in a folder to the disk. Raises OSError."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
