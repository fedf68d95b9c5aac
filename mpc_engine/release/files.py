"""Writing a release: whole files or none."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mpc_engine.errors import DocumentError, PublicationError
from mpc_engine.release.table import Release


def write_release(release: Release, receipt: Mapping[str, Any], directory: Path) -> list[Path]:
    """Write release.json, cells.csv, openings.json and receipt.json into a directory; return their paths.

    Each file appears complete or not at all. Raises PublicationError when they cannot be written: the
    release exists all the same.
    """
    return write_published(
        directory,
        {
            "release.json": json.dumps(release.as_fields(), indent=1, ensure_ascii=False) + "\n",
            "cells.csv": release.as_csv(),
            "openings.json": json.dumps(release.openings(), indent=1, ensure_ascii=False) + "\n",
            "receipt.json": json.dumps(receipt, indent=1, ensure_ascii=False) + "\n",
        },
    )


def write_published(directory: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write the files of a release that has been published; see `write_release`."""
    try:
        return write_files(directory, contents)
    except DocumentError as error:
        raise PublicationError(f"the release was made, but {error}") from error


def write_files(directory: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """Write files into a directory, text as UTF-8: all are complete before the first one appears."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        waiting = []
        for name, content in contents.items():
            path = directory / f".{name}.{os.getpid()}.part"
            path.write_bytes(content.encode() if isinstance(content, str) else content)
            waiting.append((path, directory / name))
        for part, final in waiting:
            part.replace(final)
    except OSError as error:
        for part in directory.glob(f".*.{os.getpid()}.part"):
            part.unlink(missing_ok=True)
        raise DocumentError(f"{directory}: cannot be written: {error.strerror}") from None
    return [final for _, final in waiting]


def check_free(directory: Path, release: Mapping[str, Any] | None = None) -> None:
    """Raise DocumentError if a directory holds another release than the one with these fields.

    Without ``release`` any is another one; some fields of it are enough to tell.
    """
    file = directory / "release.json"
    if not os.path.lexists(file):
        return
    try:
        held = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        held = None
    if (
        release is not None
        and isinstance(held, dict)
        and all(held.get(key) == release[key] for key in release)
    ):
        return
    raise DocumentError(
        f"{directory}: holds another release, which would be lost. Give another folder, or move the files "
        "that are there"
    )


def check_writable(directory: Path) -> None:
    """Raise DocumentError unless files can be put into the directory; made if it does not exist."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DocumentError(f"{directory}: cannot be made: {error.strerror}") from None
    if not os.access(directory, os.W_OK | os.X_OK):
        raise DocumentError(f"{directory}: cannot be written")
