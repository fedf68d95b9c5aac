"""The receipt of a release: a record that every party signed, to be checked by anyone, offline.

It takes the place of a hardware attestation as far as signatures can. It proves that all parties whose keys
are in it agreed on this computation, its parameters and its result. It does not prove what a dishonest party
ran or fed in, nor that noise was drawn; `LIMITS` says so with every check. It holds no digest of records,
cells or shares: whoever can guess what a digest is of can check the guess.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mpc_engine.documents import canonical
from mpc_engine.errors import DocumentError
from mpc_engine.identity.cards import Card
from mpc_engine.identity.signing import verify
from mpc_engine.ledger.chain import Head
from mpc_engine.party.account import charge_of
from mpc_engine.party.book import Committed
from mpc_engine.release.table import release_digest
from mpc_engine.transport.control import Commit

FORMAT = "mpc-engine/receipt/1"
RECEIPT_PURPOSE = "receipt"
_AGREED = (
    "Every party named above signed that it took part in this computation – this query, these parameters, "
    "this roster, this version of the engine as it declares it – and holds exactly this release."
)
_DEBITED = "Each of them declares that it debited ε and δ to its ledger before anything was opened."
_NO_LEDGER = "No party kept a ledger: it is of a trial or a simulation, and nothing adds up what such spend."
LIMITS = (
    "It does not prove what a dishonest party ran, or that the records it counted are true.",
    "It does not prove that noise was drawn: that follows from the protocol if no more parties than it "
    "allows for broke it.",
)
"""What a receipt cannot prove."""


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: whether it holds, and what it is in words."""

    ok: bool
    words: str


def receipt_fields(
    committed: Committed, commits: Mapping[int, Commit], pattern: bytes, digest: str
) -> dict[str, Any]:
    """Return the receipt without signatures: the same at all parties."""
    plan, charge = committed.plan, charge_of(committed.plan.guarantee)
    guarantee = plan.guarantee
    parties = []
    for number, member in enumerate(plan.members, start=1):
        agree = committed.agrees[number]
        parties.append(
            {
                "name": member.name,
                "computing": member.computing,
                "silo": member.silo,
                "card": member.fingerprint,
                "signing_key": agree.signing_key.hex(),
                "engine": agree.engine_version,
                "source_sha256": agree.source_digest.hex(),
                "policy_sha256": agree.policy_digest.hex(),
                "snapshot": agree.snapshot_id,
                "ledger_before": _head(agree.head),
                "ledger_after": _head(commits[number].head),
            }
        )
    return {
        "format": FORMAT,
        "session_id": committed.session_id.hex(),
        "ticket": committed.agrees[committed.me].ticket.hex(),
        "query": dict(committed.query),
        "digests": {**plan.digests, "plan": plan.digest},
        "privacy": {
            "rule": guarantee.rule.value,
            "k": guarantee.threshold,
            "epsilon": str(guarantee.epsilon),
            "delta": None if guarantee.delta is None else str(guarantee.delta),
            "debit_micro_epsilon": charge.micro_epsilon,
            "debit_delta": str(charge.delta),
        },
        "parties": parties,
        "openings_sha256": commits[1].openings_hash.hex(),
        "pattern_sha256": pattern.hex(),
        "release_sha256": digest,
    }


def proves(receipt: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what a receipt that holds proves, in words. Raises DocumentError when it is no receipt."""
    try:
        kept = [party.get("ledger_after", {}).get("entries", 0) > 0 for party in receipt["parties"]]
    except (KeyError, TypeError, AttributeError):
        raise DocumentError("this is not a receipt of this engine") from None
    return (_AGREED, _DEBITED if kept and all(kept) else _NO_LEDGER)


def receipt_content(fields: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed."""
    return canonical({name: value for name, value in fields.items() if name != "signatures"})


def complete(fields: Mapping[str, Any], signatures: Mapping[int, bytes]) -> dict[str, Any]:
    """Return the receipt with everybody's signature, by name."""
    names = [party["name"] for party in fields["parties"]]
    return {**fields, "signatures": {names[number - 1]: signatures[number].hex() for number in signatures}}


def check_receipt(
    receipt: Mapping[str, Any],
    release: Mapping[str, Any] | None = None,
    cards: Mapping[str, Sequence[Card]] | None = None,
) -> list[Finding]:
    """Return what was checked, whether it holds or not.

    Args:
        receipt: the document.
        release: the release it is of, compared if given.
        cards: by party the cards that the reader trusts; without them the keys are those that the receipt
            itself names.

    Raises DocumentError when it is no receipt.
    """
    try:
        if receipt["format"] != FORMAT:
            raise ValueError
        content = receipt_content(receipt)
        parties = {party["name"]: party for party in receipt["parties"]}
        signatures = {name: bytes.fromhex(value) for name, value in receipt["signatures"].items()}
        keys = {name: bytes.fromhex(party["signing_key"]) for name, party in parties.items()}
        findings = [_everyone(parties, signatures, len(receipt["parties"]))]
        for name, key in keys.items():
            signed = name in signatures and verify(key, RECEIPT_PURPOSE, content, signatures[name])
            findings.append(Finding(signed, f"{name} {'signed it' if signed else 'did not sign it'}"))
            if cards is not None:
                findings.append(_trusted(name, parties[name], key, cards.get(name, ())))
        if release is not None:
            findings.append(_same_release(receipt, release))
    except (KeyError, TypeError, ValueError, AttributeError):
        raise DocumentError("this is not a receipt of this engine") from None
    return findings


def _everyone(parties: Mapping[str, Any], signatures: Mapping[str, bytes], listed: int) -> Finding:
    same = set(parties) == set(signatures) and len(parties) == listed
    missing = ", ".join(sorted(set(parties) - set(signatures)))
    words = "it carries a signature for every party" if same else f"signatures are missing: {missing}"
    return Finding(same and bool(parties), words)


def _trusted(name: str, party: Mapping[str, Any], key: bytes, cards: Sequence[Card]) -> Finding:
    for card in cards:
        if card.signing_key == key.hex() and card.origin_fingerprint == party["card"]:
            return Finding(True, f"its key for {name} is that of the card you trust")
    return Finding(False, f"its key for {name} is on no card that you trust for it")


def _same_release(receipt: Mapping[str, Any], release: Mapping[str, Any]) -> Finding:
    same = release_digest(release) == receipt["release_sha256"]
    return Finding(same, "it is of this release" if same else "it is of another release, or one was changed")


def _head(head: Head) -> dict[str, Any]:
    return {"entries": head.seq, "hash": head.hash.hex()}
