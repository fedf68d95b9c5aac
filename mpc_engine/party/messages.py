"""What an analyst's program and a party say to each other: the messages of the analyst port.

Every message is one JSON table, held to a strict model on both sides. What an analyst submits is in
:mod:`mpc_engine.party.submission`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from mpc_engine.documents import (
    AfterValidator,
    Document,
    Field,
    broken,
    canonical,
    digest,
    model_validator,
    parse,
)
from mpc_engine.identity.cards import Card
from mpc_engine.identity.folder import Identity
from mpc_engine.identity.signing import verify
from mpc_engine.ledger.charge import Charge, delta_words, micro_words
from mpc_engine.release.plan import Member, Plan
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

POLICY_PURPOSE: Final = "policy"
"""What the signature of a published policy is for."""
_TIME: Final = "%Y-%m-%dT%H:%M:%SZ"
_MOST_REQUESTS: Final = 10_000

State = Literal[
    "SUBMITTED",
    "PARTIALLY_REVIEWED",
    "REVIEWED",
    "APPROVED",
    "RELEASED",
    "RETURNED",
    "REJECTED",
    "WITHDRAWN",
]
"""States of a request. The last four are final."""
FINAL: Final[frozenset[str]] = frozenset({"RELEASED", "RETURNED", "REJECTED", "WITHDRAWN"})
Decision = Literal["waiting", "approved", "rejected"]
Phase = Literal["queued", "count", "connect", "agree", "reserve", "compute", "commit", "open", "sign"]
"""Where a session stands at the party that is asked."""


def _is_printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


def _harmless(text: str) -> str:
    # Whoever shows it on a terminal shall not be steered by it.
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)


Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
RequestId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Project = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Key = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_is_printable)]
Time = Annotated[str, Field(pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")]
Name = Annotated[str, Field(min_length=1, max_length=63), AfterValidator(_is_printable)]
Words = Annotated[str, Field(max_length=4_000), AfterValidator(_harmless)]
Reason = Annotated[str, Field(pattern=r"^([A-Z][A-Z_]{0,63})?$")]
Signature = Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


# --- questions ------------------------------------------------------------------------------------------


class About(Document):
    """Which request is meant."""

    id: RequestId


class WaitFor(Document):
    """Wait until a request is no longer as ``seen`` says, or for ``timeout_s`` at most."""

    id: RequestId
    timeout_s: Annotated[int, Field(ge=0, le=60)]
    seen: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""


class Nothing(Document):
    """A message that says nothing."""


class CostQuestion(Document):
    """What would this query cost?"""

    query: dict[str, Any]
    codebook: Digest
    project: Project

    def asked(self) -> Query:
        """Return the query. Raises DocumentError naming the key that breaks a rule."""
        return parse_query(self.query, "query")


class PolicyQuestion(Document):
    """Which rules has this party published?"""

    party: Name


# --- answers ------------------------------------------------------------------------------------------


class Decided(Document):
    """What one party decided about a request, and why if it did not approve."""

    decision: Decision
    reason: Words = ""


class Progress(Document):
    """Where the session of a request stands, and since when."""

    phase: Phase
    since: Time


class Amounts(Document):
    """An amount of privacy budget, or what is left of one: ε in millionths, δ in units of 2^-100 as text.

    None stands for no limit. What is left may be negative, after a limit was lowered.
    """

    micro_epsilon: Annotated[int, Field(ge=-(10**15), le=10**15)] | None
    delta: Annotated[str, Field(pattern=r"^-?[0-9]{1,40}$")] | None = "0"

    @classmethod
    def of(cls, charge: Charge) -> Amounts:
        """Return a charge as messages have it."""
        return cls(micro_epsilon=charge.micro_epsilon, delta=str(charge.delta))

    @property
    def words(self) -> str:
        """The amount as people read it, such as ``ε = 0.5`` or ``ε = 1, δ = 2^-64``."""
        delta = None if self.delta is None else int(self.delta)
        if self.micro_epsilon is not None and delta == 0:
            return Charge(self.micro_epsilon).words
        epsilon = "without limit" if self.micro_epsilon is None else f"= {micro_words(self.micro_epsilon)}"
        return f"ε {epsilon}, δ {'without limit' if delta is None else delta_words(delta)}"

    def as_fields(self) -> dict[str, str | None]:
        """Return ε as a decimal and δ in words, for people and for programs that only show them."""
        return {
            "epsilon": None if self.micro_epsilon is None else micro_words(self.micro_epsilon),
            "delta": None if self.delta is None else delta_words(int(self.delta)).removeprefix("= "),
        }


class StoredRelease(Document):
    """A release that was made before and answers the same question again, at no cost.

    ``released`` is when the one who is told got it first, None for an analyst who did not have it before.
    """

    ticket: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    released: Time | None = None

    @property
    def words(self) -> str:
        """The release as people tell it from others."""
        if self.released is None:
            return f"an earlier release, {self.ticket[:8]}"
        return f"the release of {self.ticket[:8]} on {self.released[:10]}"


class Status(Document):
    """What has become of a request.

    ``reason`` is a reason of the catalogue of errors where the request was returned or rejected, ``detail``
    and ``next_step`` say it in words. ``waiting_for`` says in words what must happen next. ``times`` tells by
    state when it was reached. ``served_from`` is the earlier release that answered it at no cost; while it is
    not answered, the one that would if nothing changes, and ``cost`` is what it costs otherwise. Of a request
    that has ended, with or without an answer, ``cost`` is what was debited for it.
    """

    id: RequestId
    state: State
    reason: Reason = ""
    detail: Words = ""
    next_step: Words = ""
    title: Annotated[str, Field(max_length=400), AfterValidator(_harmless)] = ""
    key: Annotated[str, Field(max_length=64), AfterValidator(_harmless)] = ""
    project: Annotated[str, Field(max_length=64), AfterValidator(_harmless)] = ""
    parties: Annotated[dict[Name, Decided], Field(max_length=200)]
    waiting_for: Annotated[tuple[Words, ...], Field(max_length=200)] = ()
    progress: Progress | None = None
    ticket: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")] | None = None
    cost: Amounts
    served_from: StoredRelease | None = None
    release_available: bool
    receipt_complete: bool
    times: Annotated[dict[State, Time], Field(max_length=8)]

    @model_validator(mode="after")
    def _final_states_say_why(self) -> Status:
        if self.state in ("RETURNED", "REJECTED") and not self.reason:
            raise broken("reason", "is required of a request that was returned or rejected")
        return self

    @property
    def final(self) -> bool:
        """Whether nothing will change any more."""
        return self.state in FINAL and (self.state != "RELEASED" or self.receipt_complete)

    @property
    def mark(self) -> str:
        """What :class:`WaitFor` takes as ``seen``: a digest of all that is said here."""
        return digest(self.model_dump())


class Submitted(Document):
    """What has become of a submission, and whether the request was there already."""

    status: Status
    known: bool


class Statuses(Document):
    """An analyst's requests, newest first."""

    requests: Annotated[tuple[Status, ...], Field(max_length=_MOST_REQUESTS)]


class PlanMember(Document):
    """A party in a plan; see `mpc_engine.release.plan.Member`."""

    name: Name
    computing: bool
    silo: bool
    fingerprint: Annotated[str, Field(max_length=80)]
    count_bound: Annotated[int, Field(ge=0)]

    def member(self) -> Member:
        """Return it as plans have it."""
        return Member(self.name, self.computing, self.silo, self.fingerprint, self.count_bound)


class PlanOutline(Document):
    """What an analyst's program needs to make the same plan, and the digest that it must come to."""

    digest: Digest
    threshold: Annotated[int, Field(ge=1)]
    members: Annotated[tuple[PlanMember, ...], Field(min_length=1, max_length=200)]

    @classmethod
    def of(cls, plan: Plan) -> PlanOutline:
        """Return the outline of a plan."""
        members = tuple(PlanMember(**member.as_fields()) for member in plan.members)  # type: ignore[arg-type]
        return cls(digest=plan.digest, threshold=plan.guarantee.threshold, members=members)


class Remaining(Document):
    """What is left of a party's budgets; None where it keeps none, as a helper does, or does not tell."""

    dataset: Amounts | None = None
    project: Amounts | None = None
    analyst: Amounts | None = None


class CostAnswer(Document):
    """The plan of a query, what is left of each budget, and what each party would say, in words.

    ``served_from`` is the release that the analyst has already and would get again, at no cost.
    """

    plan: PlanOutline
    cost: Amounts
    remaining: Annotated[dict[Name, Remaining], Field(max_length=200)]
    verdicts: Annotated[dict[Name, Words], Field(max_length=200)]
    served_from: StoredRelease | None = None


class PolicyAnswer(Document):
    """A party's published policy, as `mpc_engine.party.published` makes it, signed with the key of a card."""

    party: Name
    policy: dict[str, Any]
    card: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    signature: Signature

    def signed_by(self, card: Card) -> bool:
        """Return whether the party with this card published this policy as its own."""
        whose = (card.role, card.name, self.policy.get("party"), card.fingerprint)
        return whose == ("party", self.party, self.party, self.card) and verify(
            card.public_key, POLICY_PURPOSE, _policy(self.policy), bytes.fromhex(self.signature)
        )


def publish_policy(policy: Mapping[str, Any], identity: Identity) -> PolicyAnswer:
    """Return a party's published policy with its signature; errors as `mpc_engine.documents.canonical`."""
    signature = identity.signing.sign(POLICY_PURPOSE, _policy(policy)).hex()
    fields = {"party": identity.name, "policy": dict(policy), "card": identity.card.fingerprint}
    return parse(fields | {"signature": signature}, PolicyAnswer, "policy")


def _policy(fields: Mapping[str, Any]) -> bytes:
    return canonical({"policy": fields})


class PartyEntry(Document):
    """A party as the one that is asked knows it."""

    name: Name
    role: Literal["silo and computing party", "helper", "input-only silo"]
    connected: bool
    engine: Annotated[str, Field(max_length=40)] = ""
    snapshot: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    card: Annotated[str, Field(max_length=80)] = ""


class PartiesAnswer(Document):
    """All parties of the roster, in its order; ``asked`` is the name of the one that answers."""

    asked: Name
    parties: Annotated[tuple[PartyEntry, ...], Field(max_length=200)]


def timestamp(moment: datetime) -> str:
    """Return a moment as messages have it, in UTC and to the second."""
    return moment.astimezone(UTC).strftime(_TIME)
