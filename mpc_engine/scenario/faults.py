"""What may befall a scenario's parties."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from mpc_engine.documents import Document, Field, broken, model_validator
from mpc_engine.party.failpoints import FAILPOINTS

Kind = Literal["kill", "stop", "freeze", "partition", "reset", "slow", "tamper", "expire"]
KINDS: tuple[Kind, ...] = get_args(Kind)
OF_THE_NETWORK: tuple[Kind, ...] = ("partition", "reset")
"""Faults between parties: the stage `processes`, which has no network of its own, cannot play them."""
_OWN: dict[str, tuple[Kind, ...]] = {
    "against": OF_THE_NETWORK,
    "bytes": ("reset",),
    "factor": ("slow",),
    "section": ("tamper",),
}
"""Keys that belong to some kinds only."""


class Fault(Document):
    """One fault, befalling `party` while the question `ask` (default: the first) is being answered.

    ===========  =======================================================================================
    kill         its process ends without a word; started again after `for_s` seconds, if that is given
    stop         it is stopped in good order; started again after `for_s` seconds, if that is given
    freeze       its process stands still for `for_s` seconds, or for good
    partition    it and those in `against` (default: all others) hear nothing of each other for `for_s`
    reset        its connections with `against` are reset once, after `bytes` more bytes have come
    slow         all that it sends takes `factor` times as long for `for_s` seconds
    tamper       it changes the shares that it sends in `section` (default VALUES), as a dishonest party might
    expire       its certificate expires `after_s` seconds after the parties are ready, and is renewed `for_s`
                 seconds later, if that is given
    ===========  =======================================================================================

    When: at the failpoint `at`, or else `after_s` seconds after the question was handed in.
    """

    kind: Kind
    party: str
    against: tuple[str, ...] = ()
    ask: str | None = None
    at: str | None = None
    after_s: Annotated[float, Field(ge=0, le=10_000_000)] = 0
    for_s: Annotated[float, Field(gt=0, le=10_000_000)] | None = None
    bytes: Annotated[int, Field(ge=0)] = 0
    factor: Annotated[float, Field(ge=1, le=10_000)] = 10
    section: Literal["PREPARE", "INPUT", "TEST", "PATTERN", "VALUES"] | None = None

    @model_validator(mode="after")
    def _fits_its_kind(self) -> Fault:
        if self.at is not None and self.at not in FAILPOINTS:
            raise broken("at", f"must be one of {', '.join(FAILPOINTS)}")
        for key, kinds in _OWN.items():
            if key in self.model_fields_set and self.kind not in kinds:
                named = " and ".join(f"`{kind}`" for kind in kinds)
                raise broken(key, f"belongs to {named}, not to `{self.kind}`")
        if self.kind == "expire" and self.at is not None:
            raise broken("at", "does not go with `expire`, which comes `after_s` seconds after all are ready")
        if self.kind == "expire" and self.ask is not None:
            raise broken("ask", "does not go with `expire`, which comes whatever is asked by then")
        if self.at is not None and self.after_s:
            raise broken("after_s", "does not go with `at`: a fault comes at a place or at a time")
        if self.kind == "reset" and self.for_s is not None:
            raise broken("for_s", "does not go with `reset`, which is over at once")
        if self.kind in ("partition", "slow") and self.for_s is None:
            raise broken("for_s", f"is required for `{self.kind}`: it ends by itself")
        return self

    @property
    def parties(self) -> tuple[str, ...]:
        """Every party that it names."""
        return (self.party, *self.against)
