"""A party's published policy in an analyst's hands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mpc_engine.party.published import summary


@dataclass(frozen=True)
class Rules:
    """What a party accepts, whatever anybody asks; printed, it is in plain words.

    Attributes:
        fields: the published policy.
        signed: whether the signature of a card that the profile trusts is under it.
    """

    fields: Mapping[str, Any]
    signed: bool

    def __str__(self) -> str:
        by = "signed by a card that you trust" if self.signed else "not signed by any card that you trust"
        return "\n".join([f"{self.fields['party']}: {by}", *(f"{a}: {b}" for a, b in summary(self.fields))])
