"""Shares that wait to be opened, encrypted under keys that can be destroyed.

The ciphertext lies in the ledger and in every backup of it; the key is a small file of its own, one for
each session, which is never backed up and is destroyed when all parties have the release. From then on
no copy of the ledger gives the shares away.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mpc_engine.errors import DocumentError, LedgerBrokenError, LedgerWriteError, StaleSessionError

KEY_BYTES = 32
NONCE_BYTES = 12
_CONTEXT = b"mpc-engine/sealed-shares/1\0"
_TICKET = re.compile(r"[0-9a-f]{32}")
_SUFFIX = ".key"


class Sealing(ABC):
    """Encrypts what is stored of one session under a key of its own (AES-256-GCM, the ticket bound in)."""

    def seal(self, ticket: str, content: bytes) -> bytes:
        """Make the session's key, store it durably, and return ``content`` encrypted and authenticated.

        Raises :class:`StaleSessionError` if the session has a key already, :class:`LedgerWriteError` if it
        cannot be stored, and :class:`DocumentError` unless ``ticket`` is 32 hexadecimal digits.
        """
        key, nonce = os.urandom(KEY_BYTES), os.urandom(NONCE_BYTES)
        self._put(_checked(ticket), key)
        return nonce + AESGCM(key).encrypt(nonce, content, _CONTEXT + ticket.encode())

    def unseal(self, ticket: str, sealed: bytes) -> bytes:
        """Return what was sealed. Raises :class:`LedgerBrokenError` if the key is gone or does not fit."""
        key = self._get(_checked(ticket))
        if key is None:
            raise LedgerBrokenError(f"the key to the shares of session {ticket} is not on this machine")
        try:
            return AESGCM(key).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], _CONTEXT + ticket.encode())
        except (InvalidTag, ValueError) as error:
            raise LedgerBrokenError(f"the shares of session {ticket} do not open with their key") from error

    def shred(self, ticket: str) -> None:
        """Destroy the session's key, so that what was sealed can never be read again. May be repeated."""
        self._destroy(_checked(ticket))

    @abstractmethod
    def tickets(self) -> frozenset[str]:
        """Return the sessions of which there is a key; those that are not publishing are to be shredded."""

    @abstractmethod
    def _put(self, ticket: str, key: bytes) -> None: ...

    @abstractmethod
    def _get(self, ticket: str) -> bytes | None: ...

    @abstractmethod
    def _destroy(self, ticket: str) -> None: ...


class SealedKeys(Sealing):
    """Keys in files (0600) of a folder (0700) that belongs into no backup.

    A key is overwritten before its file is removed. Journals and flash memory may keep old blocks all the
    same; only an encrypted disk helps against a thief who reads those.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            folder.chmod(0o700)
        except OSError as error:
            raise _failure(error) from error

    def tickets(self) -> frozenset[str]:
        """Return the sessions of which there is a key."""
        return frozenset(
            file.stem for file in self._folder.glob(f"*{_SUFFIX}") if _TICKET.fullmatch(file.stem)
        )

    def _put(self, ticket: str, key: bytes) -> None:
        file = self._file(ticket)
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError:
            raise StaleSessionError("the shares of this session were sealed before") from None
        except OSError as error:
            raise _failure(error) from error
        try:
            _write(handle, key)
            self._sync()
        except OSError as error:
            with suppress(OSError):
                file.unlink()
            raise _failure(error) from error

    def _get(self, ticket: str) -> bytes | None:
        try:
            key = self._file(ticket).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _failure(error) from error
        return key if len(key) == KEY_BYTES else None

    def _destroy(self, ticket: str) -> None:
        file = self._file(ticket)
        try:
            handle = os.open(file, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            # Overwriting takes no space, so that shredding works on a full disk too.
            _write(handle, os.urandom(KEY_BYTES))
            file.unlink()
            self._sync()
        except FileNotFoundError:
            return
        except OSError as error:
            raise _failure(error) from error

    def _file(self, ticket: str) -> Path:
        return self._folder / f"{ticket}{_SUFFIX}"

    def _sync(self) -> None:
        handle = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


class InMemoryKeys(Sealing):
    """Keys in memory, for simulations: the object outlives the crash of a simulated party."""

    def __init__(self) -> None:
        self._keys: dict[str, bytes] = {}

    def tickets(self) -> frozenset[str]:
        """Return the sessions of which there is a key."""
        return frozenset(self._keys)

    def _put(self, ticket: str, key: bytes) -> None:
        if ticket in self._keys:
            raise StaleSessionError("the shares of this session were sealed before")
        self._keys[ticket] = key

    def _get(self, ticket: str) -> bytes | None:
        return self._keys.get(ticket)

    def _destroy(self, ticket: str) -> None:
        self._keys.pop(ticket, None)


def _checked(ticket: str) -> str:
    if not _TICKET.fullmatch(ticket):
        raise DocumentError("a ticket is 32 hexadecimal digits")
    return ticket


def _write(handle: int, content: bytes) -> None:
    try:
        written = os.pwrite(handle, content, 0)
        if written != len(content):
            raise OSError("a short write")
        os.fsync(handle)
    finally:
        os.close(handle)


def _failure(error: OSError) -> LedgerWriteError:
    return LedgerWriteError(f"the keys of the sealed shares cannot be written: {error.strerror or error}")
