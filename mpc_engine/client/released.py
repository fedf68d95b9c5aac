"""A result as it comes from the parties, with the receipt that they signed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mpc_engine.codebook import Codebook
from mpc_engine.errors import DocumentError
from mpc_engine.identity import Card
from mpc_engine.party.receipt import LIMITS, Finding, check_receipt, proves
from mpc_engine.result import Result

_HINT: Final = (
    "compare its fingerprint with them, and put it into the folder that the profile's `trust` names."
)


@dataclass(frozen=True)
class Verified:
    """What came of checking a receipt: true if everything holds; printed, it says what that proves."""

    ok: bool
    findings: tuple[Finding, ...]
    proves: tuple[str, ...]
    limits: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.ok

    @property
    def words(self) -> tuple[str, ...]:
        """Everything that was found, then what it proves and what it does not, one sentence each."""
        found = tuple(f"{'ok' if each.ok else 'FAILS'}: {each.words}" for each in self.findings)
        return (*found, *self.proves, *self.limits)

    def __str__(self) -> str:
        return "\n".join(self.words)


class Receipt:
    """The record of a release that every party signed.

    Attributes:
        fields: the document; None where there is none, as in a simulation or until all have signed.
    """

    def __init__(
        self,
        fields: Mapping[str, Any] | None,
        release: Mapping[str, Any],
        cards: Mapping[str, Sequence[Card]] | None = None,
    ) -> None:
        self.fields = fields
        self._release, self._cards = release, cards

    def __bool__(self) -> bool:
        return self.fields is not None

    def __repr__(self) -> str:
        return "Receipt(none)" if self.fields is None else f"Receipt({self.fields.get('session_id', '')})"

    def verify(self, cards: Mapping[str, Sequence[Card]] | None = None) -> Verified:
        """Return whether the receipt is of this release and signed with the keys of trusted cards.

        ``cards`` are trusted, by party; by default those of the profile. A party of which no card is trusted
        fails. Raises DocumentError for a document that is no receipt.
        """
        if self.fields is None:
            missing = Finding(False, "there is no receipt: nobody signed this release")
            return Verified(False, (missing,), (), LIMITS)
        trusted = self._cards if cards is None else cards
        findings = tuple(check_receipt(self.fields, self._release, trusted))
        ok = all(each.ok for each in findings)
        unknown = [name for name in self.parties if trusted is not None and not trusted.get(name)]
        hint = (f"No card of {', '.join(unknown)} is trusted: {_HINT}",) if unknown else ()
        return Verified(ok, findings, proves(self.fields) if ok else (), (*LIMITS, *hint))

    @property
    def parties(self) -> tuple[str, ...]:
        """The names of the parties that the receipt lists. Raises DocumentError where it is no receipt."""
        try:
            return tuple(str(party["name"]) for party in (self.fields or {"parties": ()})["parties"])
        except (KeyError, TypeError):
            raise DocumentError("this is not a receipt of this engine") from None

    def save(self, path: str | Path) -> None:
        """Write the receipt as JSON. Raises DocumentError if there is none or it cannot be written."""
        if self.fields is None:
            raise DocumentError("there is no receipt to be written")
        try:
            Path(path).write_text(self.text(), encoding="utf-8")
        except OSError as error:
            raise DocumentError(f"{path}: cannot be written: {error.strerror}") from None

    def text(self) -> str:
        """Return the receipt as its file holds it."""
        return json.dumps(self.fields, indent=1, ensure_ascii=False) + "\n"


class Released(Result):
    """A result with its ``receipt`` and the ``request`` that it answers; all else as `Result`."""

    def __init__(
        self, release: Mapping[str, Any], codebook: Codebook, receipt: Receipt, request: str
    ) -> None:
        super().__init__(release, codebook)
        self.receipt = receipt
        self.request = request
