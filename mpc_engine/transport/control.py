"""The control messages, and their only door to protocol buffers.

Decoding trusts nothing: a message must be in canonical form (which also rules out unknown fields and
fields of a wrong wire type) and each field within its bounds, else ProtocolOrderError.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from google.protobuf.message import DecodeError, EncodeError, Message

from mpc_engine.errors import EngineError, ProtocolOrderError
from mpc_engine.ledger.chain import EMPTY, Head
from mpc_engine.transport.pb import peer_pb2

MAX_CONTROL_BYTES = 1 << 18
"""The longest encoded control message; the limit to give to `Link.receive_control`."""

SESSION_ID_BYTES = 16
SECRET_BYTES = 32
HASH_BYTES = 32
NONCE_BYTES = 32
TICKET_BYTES = 16
SIGNATURE_BYTES = 64
MAX_ACCOUNT_BYTES = 4096
MAX_EXTENSION = 4096
"""Most ledger entries that one message proves."""
_MAX_ENTRIES = 4096
_MAX_TEXT = 128
_MAX_EXPLANATION = 1000

_HEX_DIGEST = re.compile(r"[0-9a-f]{64}\Z")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?\Z")
_REASON = re.compile(r"[A-Z][A-Z_]{0,63}\Z")


@dataclass(frozen=True)
class KeyContribution:
    """One party's 32 bytes for the key shared by `members` (party numbers, ascending)."""

    members: tuple[int, ...]
    value: bytes = field(repr=False)


@dataclass(frozen=True)
class Agree:
    """Control round 1. `contributions` holds only the keys that the receiver shares.

    `witnessed` are the last heads that this party has seen of the others' ledgers, by party number.
    """

    engine_version: str
    nonce: bytes
    digests: Mapping[str, str]
    contributions: tuple[KeyContribution, ...]
    least_threshold: int
    greatest_epsilon: str
    snapshot_id: str
    ticket: bytes = b""
    source_digest: bytes = bytes(HASH_BYTES)
    policy_digest: bytes = bytes(HASH_BYTES)
    signing_key: bytes = bytes(HASH_BYTES)
    head: Head = EMPTY
    witnessed: Mapping[int, Head] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the canonical bytes. Raises EngineError if a field is out of bounds."""
        _check_agree(self, EngineError)
        message = peer_pb2.Agree(
            engine_version=self.engine_version,
            nonce=self.nonce,
            digests=self.digests,
            contributions=[
                peer_pb2.KeyContribution(members=bytes(part.members), value=part.value)
                for part in self.contributions
            ],
            least_threshold=self.least_threshold,
            greatest_epsilon=self.greatest_epsilon,
            snapshot_id=self.snapshot_id,
            ticket=self.ticket,
            source_digest=self.source_digest,
            policy_digest=self.policy_digest,
            signing_key=self.signing_key,
            head=_head(self.head),
            witnessed=[
                peer_pb2.Witnessed(party=party, head=_head(head))
                for party, head in sorted(self.witnessed.items())
            ],
        )
        return _encode(message)

    @classmethod
    def decode(cls, data: bytes) -> Agree:
        """Return the message in `data`; raises ProtocolOrderError if it is not exactly one."""
        message = _decode(peer_pb2.Agree(), data)
        agree = cls(
            engine_version=message.engine_version,
            nonce=message.nonce,
            digests=dict(message.digests),
            contributions=tuple(
                KeyContribution(tuple(part.members), part.value) for part in message.contributions
            ),
            least_threshold=message.least_threshold,
            greatest_epsilon=message.greatest_epsilon,
            snapshot_id=message.snapshot_id,
            ticket=message.ticket,
            source_digest=message.source_digest,
            policy_digest=message.policy_digest,
            signing_key=message.signing_key,
            head=Head(message.head.seq, message.head.hash),
            witnessed={each.party: Head(each.head.seq, each.head.hash) for each in message.witnessed},
        )
        _require(
            [each.party for each in message.witnessed] == sorted(agree.witnessed),
            "witnessed",
            ProtocolOrderError,
        )
        _check_agree(agree, ProtocolOrderError)
        return agree


@dataclass(frozen=True)
class Reserve:
    """Control round 2. `relayed`: the encoded `Agree` of parties the receiver is not connected to.

    What is relayed must carry no contributions: they are for their receiver's eyes only. `head` is that of
    the sender's ledger now, `extension` the body hashes of the first `MAX_EXTENSION` entries since the head
    that the receiver has seen, back to back.
    """

    session_id: bytes
    confirmation: bytes
    relayed: tuple[bytes, ...] = ()
    head: Head = EMPTY
    extension: bytes = field(default=b"", repr=False)

    def encode(self) -> bytes:
        """Return the canonical bytes. Raises EngineError if a field is out of bounds."""
        _check_reserve(self, EngineError)
        return _encode(
            peer_pb2.Reserve(
                session_id=self.session_id,
                confirmation=self.confirmation,
                relayed=self.relayed,
                head=_head(self.head),
                extension=self.extension,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Reserve:
        """Return the message in `data`; raises ProtocolOrderError if it is not exactly one."""
        message = _decode(peer_pb2.Reserve(), data)
        reserve = cls(
            message.session_id,
            message.confirmation,
            tuple(message.relayed),
            Head(message.head.seq, message.head.hash),
            message.extension,
        )
        _check_reserve(reserve, ProtocolOrderError)
        return reserve


@dataclass(frozen=True)
class Commit:
    """Control round 3: this party has committed.

    `openings_hash` is that of the masked coins it opened (zeros if it opened none), `head` that of its ledger
    after the debit, `account` what was debited for what, and `signature` over all of it, its number, the
    session and the plan; see `signed_content`.
    """

    openings_hash: bytes
    party: int
    head: Head
    signature: bytes
    account: bytes = b""

    def signed_content(self, session_id: bytes, plan_digest: str) -> bytes:
        """Return what `signature` is over."""
        head = self.head.seq.to_bytes(8) + self.head.hash
        plan = bytes.fromhex(plan_digest)
        return session_id + plan + self.openings_hash + bytes([self.party]) + head + self.account

    def encode(self) -> bytes:
        """Return the canonical bytes. Raises EngineError if a field is out of bounds."""
        _check_commit(self, EngineError)
        return _encode(
            peer_pb2.Commit(
                openings_hash=self.openings_hash,
                party=self.party,
                head=_head(self.head),
                signature=self.signature,
                account=self.account,
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Commit:
        """Return the message in `data`; raises ProtocolOrderError if it is not exactly one."""
        message = _decode(peer_pb2.Commit(), data)
        head = Head(message.head.seq, message.head.hash)
        commit = cls(message.openings_hash, message.party, head, message.signature, message.account)
        _check_commit(commit, ProtocolOrderError)
        return commit


@dataclass(frozen=True)
class Pattern:
    """Control round 4: the hash of the suppression pattern.

    `relayed`: the encoded `Commit` of parties the receiver is not connected to.
    """

    hash: bytes
    relayed: tuple[bytes, ...] = ()

    def encode(self) -> bytes:
        """Return the canonical bytes. Raises EngineError if the hash has another length."""
        _check_length(self.hash, HASH_BYTES, "hash", EngineError)
        return _encode(peer_pb2.Pattern(hash=self.hash, relayed=self.relayed))

    @classmethod
    def decode(cls, data: bytes) -> Pattern:
        """Return the message in `data`; raises ProtocolOrderError if it is not exactly one."""
        message = _decode(peer_pb2.Pattern(), data)
        _check_length(message.hash, HASH_BYTES, "hash", ProtocolOrderError)
        _require(len(message.relayed) <= 255 and all(message.relayed), "relayed", ProtocolOrderError)
        return cls(message.hash, tuple(message.relayed))


@dataclass(frozen=True)
class Signatures:
    """Control rounds 5 and 6: signatures of the receipt, by party number."""

    values: Mapping[int, bytes]

    def encode(self) -> bytes:
        """Return the canonical bytes. Raises EngineError if a signature has another length."""
        for value in self.values.values():
            _check_length(value, SIGNATURE_BYTES, "signature", EngineError)
        ordered = sorted(self.values.items())
        return _encode(
            peer_pb2.Signatures(
                signature=[peer_pb2.Signature(party=party, value=value) for party, value in ordered]
            )
        )

    @classmethod
    def decode(cls, data: bytes) -> Signatures:
        """Return the message in `data`; raises ProtocolOrderError if it is not exactly one."""
        message = _decode(peer_pb2.Signatures(), data)
        values = {each.party: each.value for each in message.signature}
        _require(
            [each.party for each in message.signature] == sorted(values), "signature", ProtocolOrderError
        )
        for value in values.values():
            _check_length(value, SIGNATURE_BYTES, "signature", ProtocolOrderError)
        return cls(values)


@dataclass(frozen=True)
class Abort:
    """The end of a session: a reason code, and where and why in words for people."""

    reason: str
    message: str = ""
    party: str = ""
    step: str = ""

    def encode(self) -> bytes:
        """Return the canonical bytes; texts are cut to their bounds rather than refused."""
        reason = self.reason if _REASON.match(self.reason) else EngineError.reason
        texts = {"party": _MAX_TEXT, "step": _MAX_TEXT, "message": _MAX_EXPLANATION}
        short = {name: _printable(getattr(self, name), limit) for name, limit in texts.items()}
        return _encode(peer_pb2.Abort(reason=reason, **short))

    @classmethod
    def decode(cls, data: bytes) -> Abort:
        """Return the message in `data`, without characters that could steer a terminal.

        Raises ProtocolOrderError if it is not exactly one.
        """
        message = _decode(peer_pb2.Abort(), data)
        _require(_REASON.match(message.reason), "reason", ProtocolOrderError)
        return cls(
            reason=message.reason,
            message=_printable(message.message, _MAX_EXPLANATION),
            party=_printable(message.party, _MAX_TEXT),
            step=_printable(message.step, _MAX_TEXT),
        )


_Wire = TypeVar("_Wire", bound=Message)
_Error = Callable[[str], EngineError]


def _encode(message: Message) -> bytes:
    try:
        data = message.SerializeToString(deterministic=True)
    except (EncodeError, UnicodeError, ValueError):
        raise EngineError("a control message cannot be encoded") from None
    if len(data) > MAX_CONTROL_BYTES:
        raise EngineError(f"a control message of {len(data)} bytes exceeds {MAX_CONTROL_BYTES}")
    return data


def _decode(message: _Wire, data: bytes) -> _Wire:
    """Fill `message` from `data`, which must be its canonical encoding."""
    kind = type(message).__name__
    if len(data) > MAX_CONTROL_BYTES:
        raise ProtocolOrderError(f"the {kind} message is too long")
    try:
        message.ParseFromString(data)
        # Fields of an unknown number or a wrong type are kept aside while parsing. Dropping them
        # and encoding again tells whether there was anything but the fields we know, once each.
        message.DiscardUnknownFields()
        canonical = message.SerializeToString(deterministic=True)
    except (DecodeError, EncodeError, UnicodeError):
        raise ProtocolOrderError(f"the {kind} message cannot be decoded") from None
    if canonical != data:
        raise ProtocolOrderError(f"the {kind} message is not in canonical form")
    return message


def _require(holds: object, name: str, error: _Error) -> None:
    if not holds:
        raise error(f"the field {name} of a control message is missing or out of bounds")


def _check_length(value: bytes, size: int, name: str, error: _Error) -> None:
    _require(len(value) == size, name, error)


def _check_text(text: str, name: str, error: _Error, *, least: int = 1) -> None:
    _require(least <= len(text) <= _MAX_TEXT and text.isprintable(), name, error)


def _ascending(members: Iterable[int]) -> bool:
    numbers = list(members)
    return numbers == sorted(set(numbers)) and bool(numbers) and numbers[0] >= 1 and numbers[-1] <= 255


def _check_agree(agree: Agree, error: _Error) -> None:
    _check_text(agree.engine_version, "engine_version", error)
    _check_length(agree.nonce, NONCE_BYTES, "nonce", error)
    _require(len(agree.digests) <= _MAX_ENTRIES, "digests", error)
    for name, digest in agree.digests.items():
        _check_text(name, "digests", error)
        _require(_HEX_DIGEST.match(digest), f"digests.{name}", error)
    _require(len(agree.contributions) <= _MAX_ENTRIES, "contributions", error)
    for part in agree.contributions:
        _require(_ascending(part.members), "contributions.members", error)
        _check_length(part.value, SECRET_BYTES, "contributions.value", error)
    subsets = {part.members for part in agree.contributions}
    _require(len(subsets) == len(agree.contributions), "contributions.members", error)
    _require(1 <= agree.least_threshold < 1 << 31, "least_threshold", error)
    _require(_DECIMAL.match(agree.greatest_epsilon), "greatest_epsilon", error)
    _check_text(agree.snapshot_id, "snapshot_id", error, least=0)
    _require(len(agree.ticket) in (0, TICKET_BYTES), "ticket", error)
    for name in ("source_digest", "policy_digest", "signing_key"):
        _check_length(getattr(agree, name), HASH_BYTES, name, error)
    _check_head(agree.head, "head", error)
    _require(len(agree.witnessed) <= 255, "witnessed", error)
    for party, head in agree.witnessed.items():
        _require(1 <= party <= 255, "witnessed", error)
        _check_head(head, "witnessed", error)


def _check_reserve(reserve: Reserve, error: _Error) -> None:
    _check_length(reserve.session_id, SESSION_ID_BYTES, "session_id", error)
    _check_length(reserve.confirmation, HASH_BYTES, "confirmation", error)
    _require(len(reserve.relayed) <= 255 and all(reserve.relayed), "relayed", error)
    _check_head(reserve.head, "head", error)
    whole = len(reserve.extension) % HASH_BYTES == 0
    _require(whole and len(reserve.extension) <= MAX_EXTENSION * HASH_BYTES, "extension", error)


def _check_commit(commit: Commit, error: _Error) -> None:
    _check_length(commit.openings_hash, HASH_BYTES, "openings_hash", error)
    _require(1 <= commit.party <= 255, "party", error)
    _check_head(commit.head, "head", error)
    _check_length(commit.signature, SIGNATURE_BYTES, "signature", error)
    _require(len(commit.account) <= MAX_ACCOUNT_BYTES, "account", error)


def _check_head(head: Head, name: str, error: _Error) -> None:
    _check_length(head.hash, HASH_BYTES, name, error)
    _require(0 <= head.seq < 1 << 63, name, error)


def _head(head: Head) -> peer_pb2.Head:
    return peer_pb2.Head(seq=head.seq, hash=head.hash)


def _printable(text: str, limit: int) -> str:
    """Return `text` on one line, without control characters, cut to `limit` characters."""
    return "".join(char if char.isprintable() else " " for char in text[:limit])
