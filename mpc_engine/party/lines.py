"""What parties say to each other over a line, beside the sessions: requests, decisions, beginnings, states.

A message is a JSON table ``{"kind", "id", "body"}``. Those with an id above 0 are durable: they wait in the
sender's ledger until the receiver has acknowledged them, and come in order, once. The others are said
once, and lost with the line.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Literal

from mpc_engine.documents import Document, Field, canonical, parse
from mpc_engine.errors import DocumentError, ProtocolOrderError, TooLargeError
from mpc_engine.identity.signing import SigningKey, verify
from mpc_engine.party.encoding import read_message
from mpc_engine.party.messages import (
    Amounts,
    Digest,
    Name,
    PolicyAnswer,
    Project,
    Reason,
    RequestId,
    Signature,
    Words,
)
from mpc_engine.runtime.switchboard import MAX_LINE_BYTES

STATE_PURPOSE = "session-state"
OPINION_PURPOSE = "opinion"
MOST_DEBITS = 12
"""Debits in one message."""
PART_BYTES = 1 << 17
"""Bytes of a release in one message."""
MOST_RELEASE_BYTES = 1 << 28

Count = Annotated[int, Field(ge=0, le=10**15)]
"""Of messages, entries or bytes: far more than there can be, and far less than a ledger can store."""
Ticket = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
SessionId = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
SessionWord = Annotated[str, Field(pattern=r"^[A-Z]{4,12}$")]


class Hello(Document):
    """First on a line: the last durable message received, and the number of the first that waits here."""

    received: Count
    first: Annotated[int, Field(ge=1, le=10**15)]


class Ack(Document):
    """All durable messages up to this one are stored."""

    upto: Count


class Notice(Document):
    """What a party publishes of itself, signed, and what is left of its budgets."""

    published: PolicyAnswer
    dataset: Amounts | None = None
    projects: Annotated[dict[str, Amounts], Field(max_length=1000, default_factory=dict)]
    analysts: Annotated[dict[str, Amounts], Field(max_length=1000, default_factory=dict)]


class Passed(Document):
    """A request, as the analyst signed it, on its way to all parties."""

    body: Annotated[str, Field(max_length=MAX_LINE_BYTES)]
    received_from: Name


class Opinion(Document):
    """One party's decision about a request, signed; ``digest`` tells which question it is about."""

    request: RequestId
    digest: Digest
    party: Name
    verdict: Literal["approved", "rejected", "returned"]
    reason: Reason = ""
    detail: Words = ""
    by: Annotated[str, Field(max_length=100)] = ""
    signature: Annotated[str, Field(pattern=r"^([0-9a-f]{128})?$")] = ""

    def signed(self, signer: SigningKey) -> Opinion:
        """Return the opinion with its party's signature."""
        return self.model_copy(update={"signature": signer.sign(OPINION_PURPOSE, self._content).hex()})

    def signed_by(self, keys: tuple[bytes, ...]) -> bool:
        """Return whether the opinion is signed with one of these keys."""
        signature = bytes.fromhex(self.signature)
        return any(verify(key, OPINION_PURPOSE, self._content, signature) for key in keys)

    @property
    def _content(self) -> bytes:
        return canonical(self.model_dump(exclude={"signature"}))


class Settled(Document):
    """What has become of a request, as the sequencer says."""

    request: RequestId
    digest: Digest
    state: Literal["APPROVED", "RELEASED", "RETURNED", "REJECTED", "WITHDRAWN"]
    reason: Reason = ""
    detail: Words = ""
    ticket: Ticket | None = None


class Begin(Document):
    """Begin the session ``ticket`` for ``request``; ``question`` is what all must find that it asks."""

    request: RequestId
    digest: Digest
    ticket: Ticket
    question: Digest


class Declined(Document):
    """This party does not take part in a session, and why."""

    ticket: Ticket
    reason: Reason
    detail: Words


class Ask(Document):
    """In which state is this session at your side?"""

    ticket: Ticket


class Told(Document):
    """The state of a session at one party, signed: UNKNOWN if there is no such session.

    ``session_id`` is "" where the party had not agreed on one.
    """

    ticket: Ticket
    party: Name
    state: SessionWord
    session_id: Annotated[str, Field(pattern=r"^([0-9a-f]{32})?$")] = ""
    signature: Signature

    @classmethod
    def make(cls, ticket: str, party: str, state: str, signer: SigningKey, session_id: str = "") -> Told:
        """Return the signed statement."""
        signature = signer.sign(STATE_PURPOSE, _stated(ticket, party, state, session_id)).hex()
        return cls(ticket=ticket, party=party, state=state, session_id=session_id, signature=signature)

    def signed_by(self, keys: tuple[bytes, ...]) -> bool:
        """Return whether the statement is signed with one of these keys."""
        content = _stated(self.ticket, self.party, self.state, self.session_id)
        return any(verify(key, STATE_PURPOSE, content, bytes.fromhex(self.signature)) for key in keys)


class Stored(Document):
    """This party has stored the release and the receipt of a session."""

    ticket: Ticket


class AskDebits(Document):
    """Which debits do you know of with a ticket after this one?"""

    after: Annotated[str, Field(max_length=32)] = ""


class Account(Document):
    """What a session debits for what; every party's commitment carries it, signed, and all agree."""

    ticket: Ticket
    request: RequestId
    digest: Digest
    question: Digest
    micro_epsilon: Annotated[int, Field(ge=0, le=10**15)]
    delta: Annotated[str, Field(pattern=r"^[0-9]{1,40}$")]
    analyst: Annotated[str, Field(max_length=80)]
    analyst_name: Name
    project: Project

    def encode(self) -> bytes:
        """Return the bytes that are signed."""
        return canonical(self.model_dump())

    @classmethod
    def decode(cls, content: bytes) -> Account:
        """Return the account in `content`. Raises DocumentError."""
        return read_message(content, cls, "account")


class Debit(Document):
    """The receiver's own commitment to a session, as it once sent it: the proof that it debited its budget.

    ``plan`` and ``session_id`` are what its signature is also over; ``released``: the sender has the release.
    """

    ticket: Ticket
    commit: Annotated[str, Field(pattern=r"^([0-9a-f]{2})+$", max_length=1 << 14)]
    plan: Digest
    session_id: SessionId
    released: bool


class Debits(Document):
    """Debits after a ticket, in order; ``more`` if there are others after them."""

    after: Annotated[str, Field(max_length=32)]
    debits: Annotated[tuple[Debit, ...], Field(max_length=MOST_DEBITS)]
    more: bool


class AskRelease(Document):
    """Send the release and the receipt of this session, from this byte on."""

    ticket: Ticket
    offset: Count = 0


class ReleasePart(Document):
    """A part of ``{"release": …, "receipt": …}``, in base64, and the length of the whole in bytes."""

    ticket: Ticket
    offset: Count
    total: Annotated[int, Field(ge=1, le=MOST_RELEASE_BYTES)]
    content: Annotated[str, Field(max_length=2 * PART_BYTES)]


class Recovered(Document):
    """This party has adopted all debits that the receiver told it of; its ledger goes on from this head.

    ``tickets`` is the digest of the tickets that the receiver told.
    """

    entries: Count
    hash: Digest
    tickets: Digest


Message = (
    Hello
    | Ack
    | Notice
    | Passed
    | Opinion
    | Settled
    | Begin
    | Declined
    | Ask
    | Told
    | Stored
    | AskDebits
    | Debits
    | AskRelease
    | ReleasePart
    | Recovered
)
KINDS: Mapping[str, type[Message]] = {
    "hello": Hello,
    "ack": Ack,
    "notice": Notice,
    "request": Passed,
    "opinion": Opinion,
    "settled": Settled,
    "begin": Begin,
    "declined": Declined,
    "ask": Ask,
    "told": Told,
    "stored": Stored,
    "ask-debits": AskDebits,
    "debits": Debits,
    "ask-release": AskRelease,
    "release-part": ReleasePart,
    "recovered": Recovered,
}
DURABLE = frozenset(("request", "opinion", "settled", "stored"))
_NAMES = {cls: kind for kind, cls in KINDS.items()}


def kind_of(message: Message) -> str:
    """Return the kind of a message."""
    return _NAMES[type(message)]


def body_of(message: Message) -> bytes:
    """Return a message's body as it is stored."""
    return canonical(message.model_dump())


def frame(kind: str, number: int, body: bytes) -> bytes:
    """Return the bytes of a message. Raises TooLargeError if no line would carry them."""
    content = b'{"kind":"' + kind.encode() + b'","id":' + str(number).encode() + b',"body":' + body + b"}"
    if len(content) > MAX_LINE_BYTES:
        raise TooLargeError(f"a message of {len(content)} bytes is longer than a line carries")
    return content


def read_frame(content: bytes, sender: str) -> tuple[int, Message]:
    """Return the number (0: not durable) and the message in `content`. Raises ProtocolOrderError."""
    try:
        fields = json.loads(content)
        if set(fields) != {"kind", "id", "body"} or type(fields["id"]) is not int or fields["id"] < 0:
            raise ValueError
        cls = KINDS[fields["kind"]]
        if (fields["kind"] in DURABLE) != (fields["id"] > 0):
            raise ValueError
        return fields["id"], parse(fields["body"], cls, "message")
    except (ValueError, KeyError, TypeError, RecursionError, DocumentError):
        raise ProtocolOrderError(f"{sender} said something that this version does not understand") from None


def _stated(ticket: str, party: str, state: str, session_id: str) -> bytes:
    return f"{ticket}\0{party}\0{state}\0{session_id}".encode()
