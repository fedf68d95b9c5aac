"""The audit chain for others to check: exported as lines of JSON, under a signature of its head."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from mpc_engine.errors import DocumentError, LedgerBrokenError
from mpc_engine.identity.signing import SigningKey, verify
from mpc_engine.ledger.chain import EMPTY, HASH_BYTES, Entry, Head, canonical, entry_hash, follow
from mpc_engine.ledger.chain import body_hash as hash_of_body
from mpc_engine.ledger.ledger import Ledger, utc_now
from mpc_engine.ledger.writing import stamp

FORMAT = "mpc-engine/audit/1"
PURPOSE = "audit-export"


@dataclass(frozen=True)
class Export:
    """What a verified export shows: an unbroken chain of ``party`` from ``since`` to ``head``."""

    party: str
    since: Head
    head: Head
    exported: str
    entries: tuple[Entry, ...]

    @property
    def complete(self) -> bool:
        """Whether it begins with the party's first entry."""
        return self.since == EMPTY


def export(
    ledger: Ledger, key: SigningKey, since: int = 0, clock: Callable[[], datetime] = utc_now
) -> Iterator[str]:
    """Yield the lines of an export of the entries after number ``since``: a heading, the entries, the seal.

    Each is a JSON object; the entries' ``fields`` are readable, and the seal is signed by the party. Raises
    :class:`DocumentError` if the ledger has no such entry, and :class:`LedgerBrokenError` if it does not
    verify.
    """
    head = ledger.verify()
    if not 0 <= since <= head.seq:
        raise DocumentError(f"the ledger has {head.seq} entries")
    start = EMPTY if since == 0 else Head(since, next(ledger.entries(since - 1)).entry_hash)
    heading = {
        "format": FORMAT,
        "party": ledger.party,
        "since": since,
        "since_hash": start.hash.hex(),
        "exported": stamp(clock()),
    }
    yield canonical(heading)
    for entry in ledger.entries(since):
        # What is written while the export is read out comes after the head that is signed.
        if entry.seq > head.seq:
            break
        yield canonical(
            {
                "seq": entry.seq,
                "time": entry.time_utc,
                "kind": entry.kind,
                "fields": json.loads(entry.fields),
                "salt": entry.salt.hex(),
                "hash": entry.entry_hash.hex(),
            }
        )
    seal = {"seq": head.seq, "hash": head.hash.hex(), "public": key.public.hex()}
    signature = key.sign(PURPOSE, _signed(heading, seal))
    yield canonical({**seal, "signature": signature.hex()})


def verify_export(lines: Iterable[str], public: bytes) -> Export:
    """Check an export against the signing key ``public`` of the party and return what it shows.

    It shows that the entries follow each other and that the party vouched for their end; not that nothing
    came later, nor, unless :attr:`Export.complete`, what came before. Whether this is the chain that the
    other parties saw, their witnessed heads tell. Raises :class:`DocumentError` for lines of another form,
    and :class:`LedgerBrokenError` for a broken chain or a signature that does not verify.
    """
    told = [_object(line) for line in lines if line.strip()]
    if len(told) < 2 or told[0].get("format") != FORMAT:
        raise DocumentError(f"this is not an export of the form {FORMAT}, or it is cut off")
    heading, seal = told[0], told[-1]
    try:
        signature = bytes.fromhex(seal["signature"])
        head = Head(_number(seal["seq"]), _hash(seal["hash"]))
        since = Head(_number(heading["since"]), _hash(heading["since_hash"]))
        party, exported = str(heading["party"]), str(heading["exported"])
        content = _signed(heading, {name: seal[name] for name in ("seq", "hash", "public")})
    except (KeyError, TypeError, ValueError) as error:
        raise DocumentError("the first or last line of the export is not of the expected form") from error
    if seal["public"] != public.hex() or not verify(public, PURPOSE, content, signature):
        raise LedgerBrokenError("the export is not signed by this party, or was changed after it was signed")
    last, entries = since, []
    for number, line in enumerate(told[1:-1], start=2):
        try:
            entry = _entry(line, last.hash)
        except (KeyError, TypeError, ValueError) as error:
            raise DocumentError(f"line {number} of the export is not an entry") from error
        last = follow(last, entry)
        entries.append(entry)
    if last != head:
        raise LedgerBrokenError(
            f"the export ends at entry {last.seq}, and the party signed for entry {head.seq}"
        )
    return Export(party, since, head, exported, tuple(entries))


def _signed(heading: dict[str, Any], seal: dict[str, Any]) -> bytes:
    return canonical({"heading": heading, "seal": seal}).encode()


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DocumentError("a line of the export is not JSON") from error
    if not isinstance(found, dict):
        raise DocumentError("a line of the export is not a JSON object")
    return found


def _entry(line: dict[str, Any], prev_hash: bytes) -> Entry:
    fields, salt = canonical(line["fields"]), bytes.fromhex(line["salt"])
    time, kind, told = str(line["time"]), str(line["kind"]), _hash(line["hash"])
    body = hash_of_body(time, kind, salt, fields)
    if entry_hash(prev_hash, body) != told:
        raise LedgerBrokenError(f"entry {line['seq']} of the export was changed, or one before it is missing")
    return Entry(_number(line["seq"]), prev_hash, time, kind, fields, salt, body, told)


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _hash(value: Any) -> bytes:
    found = bytes.fromhex(value)
    if len(found) != HASH_BYTES:
        raise ValueError
    return found
