"""The engine's source as this party runs it: what it declares to its peers and in receipts."""

from __future__ import annotations

from functools import cache
from hashlib import sha256
from pathlib import Path

_PACKAGE = Path(__file__).parent.parent
_LEFT_OUT = ("__pycache__",)


@cache
def source_digest() -> bytes:
    """Return SHA-256 over names and contents of all files of the installed package, 32 bytes.

    Compiled files are left out: they depend on the interpreter. A party can say anything here; the digest
    finds out differing versions among parties that say the truth.
    """
    whole = sha256(b"mpc-engine/source/1\0")
    for path in sorted(_PACKAGE.rglob("*")):
        if path.is_file() and not set(path.parts) & set(_LEFT_OUT) and path.suffix != ".pyc":
            name = path.relative_to(_PACKAGE).as_posix().encode()
            whole.update(len(name).to_bytes(4) + name + sha256(path.read_bytes()).digest())
    return whole.digest()
