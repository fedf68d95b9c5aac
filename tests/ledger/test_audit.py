"""The chain's arithmetic, and exports that others check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from mpc_engine.errors import DocumentError, LedgerBrokenError
from mpc_engine.identity.signing import SigningKey
from mpc_engine.ledger.audit import export, verify_export
from mpc_engine.ledger.chain import EMPTY, Head
from mpc_engine.ledger.ledger import Ledger
from tests.ledger.books import Clock, brought_to, memory

KEY, OTHER = SigningKey.create(), SigningKey.create()


def test_the_hashes_are_as_written_down() -> None:
    """Computed here once more, from the description and with the standard library only."""
    ledger = brought_to("COMMITTED")
    last = bytes(32)
    for number, entry in enumerate(ledger.entries(), start=1):
        fields = json.loads(entry.fields)
        text = json.dumps(fields, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        before = b"mpc-engine/ledger-body/1\0" + entry.time_utc.encode() + b"\0" + entry.kind.encode() + b"\0"
        body = hashlib.sha256(before + b"\0\0\0\x10" + bytes(16) + text).digest()
        last = hashlib.sha256(b"mpc-engine/ledger-entry/1\0" + last + body).digest()
        assert (entry.seq, entry.body_hash, entry.entry_hash) == (number, body, last)
    assert ledger.head() == Head(5, last)


def test_entries_say_what_happened() -> None:
    ledger = brought_to("ABORTED")
    kinds = [entry.kind for entry in ledger.entries()]
    assert kinds == ["created", "submitted", "reserved", "computing", "aborted"]
    assert [entry.kind for entry in ledger.entries(3)] == kinds[3:]
    reserved = json.loads(list(ledger.entries())[2].fields)
    assert reserved["scopes"] == ["analyst:ada", "project:colon", "dataset:nordic"]
    assert (reserved["micro_epsilon"], reserved["delta"]) == (1_000_000, str(2**36))


def _in_memory(_: Path) -> Ledger:
    return Ledger.in_memory(party="se", clock=Clock())


def _on_disk(folder: Path) -> Ledger:
    return Ledger.open(folder, party="se", clock=Clock())


def _revived(_: Path) -> Ledger:
    return Ledger.from_image(_in_memory(_).image(), party="se", clock=Clock())


@pytest.mark.parametrize("make", [_in_memory, _on_disk, _revived])
def test_two_ledgers_of_the_same_history_differ_by_their_salts(
    make: Callable[[Path], Ledger], tmp_path: Path
) -> None:
    """So that a peer, who gets the body hashes, cannot try out what an entry says."""
    ledgers = [brought_to("RELEASED", make(tmp_path / name)) for name in ("one", "two")]
    one, two = (list(ledger.entries()) for ledger in ledgers)
    said = [[(entry.seq, entry.time_utc, entry.kind, entry.fields) for entry in book] for book in (one, two)]
    assert said[0] == said[1] and len(one) == 9
    salts = [entry.salt for entry in (*one, *two)]
    assert {len(salt) for salt in salts} == {16}
    assert len(set(salts)) == len(salts)
    assert not {entry.body_hash for entry in one} & {entry.body_hash for entry in two}
    assert ledgers[0].head() != ledgers[1].head()
    for ledger in ledgers:
        ledger.close()


def test_an_export_shows_the_whole_chain() -> None:
    ledger = brought_to("RELEASED")
    shown = verify_export(export(ledger, KEY, clock=Clock()), KEY.public)
    assert shown.complete and shown.since == EMPTY
    assert (shown.party, shown.head, shown.exported) == ("se", ledger.head(), "2026-03-01T12:00:00Z")
    assert list(shown.entries) == list(ledger.entries())


def test_an_export_of_a_part_says_so() -> None:
    ledger = brought_to("RELEASED")
    for since in (1, 4, ledger.head().seq):
        shown = verify_export(export(ledger, KEY, since), KEY.public)
        assert not shown.complete
        assert list(shown.entries) == list(ledger.entries(since))
        assert shown.since.seq == since
    for since in (-1, ledger.head().seq + 1):
        with pytest.raises(DocumentError, match="entries"):
            list(export(ledger, KEY, since))


def test_what_is_written_meanwhile_is_not_in_the_export() -> None:
    ledger = brought_to("RELEASED")
    head, lines, told = ledger.head(), export(ledger, KEY), []
    for line in lines:
        told.append(line)
        with ledger.transaction() as tx:
            tx.note("meanwhile", {})
    assert verify_export(told, KEY.public).head == head


def _field(line: str, **fields: object) -> str:
    return json.dumps({**json.loads(line), **fields})


SPOILT: dict[str, Callable[[list[str]], list[str]]] = {
    "an entry changed": lambda told: [*told[:3], told[3].replace("colon", "lung"), *told[4:]],
    "an entry left out": lambda told: [*told[:3], *told[4:]],
    "the last entry left out": lambda told: [*told[:-2], told[-1]],
    "two entries swapped": lambda told: [*told[:3], told[4], told[3], *told[5:]],
    "an entry's number": lambda told: [*told[:3], _field(told[3], seq=9), *told[4:]],
    "another party": lambda told: [_field(told[0], party="no"), *told[1:]],
    "another start": lambda told: [_field(told[0], since_hash="11" * 32), *told[1:]],
    "another end": lambda told: [*told[:-1], _field(told[-1], seq=4)],
    "another key": lambda told: [*told[:-1], _field(told[-1], public=OTHER.public.hex())],
    "no signature": lambda told: [*told[:-1], _field(told[-1], signature="")],
}
MALFORMED: dict[str, Callable[[list[str]], list[str]]] = {
    "nothing": lambda told: [],
    "no seal": lambda told: told[:1],
    "no heading": lambda told: told[1:],
    "no JSON": lambda told: [told[0], "{", *told[1:]],
    "a list": lambda told: [told[0], "[]", *told[1:]],
    "deep": lambda told: [told[0], "[" * 100_000, *told[1:]],
    "a float": lambda told: [*told[:3], _field(told[3], seq=3.0), *told[4:]],
    "no fields": lambda told: [told[0], "{}", *told[1:]],
    "the seal's number": lambda told: [*told[:-1], _field(told[-1], seq="4")],
    "the seal's hash": lambda told: [*told[:-1], _field(told[-1], hash="aa")],
    "the seal cut off": lambda told: told[:-1],
}


@pytest.mark.parametrize("how", SPOILT)
def test_a_spoilt_export_is_refused(how: str) -> None:
    told = list(export(brought_to("RELEASED"), KEY))
    with pytest.raises(LedgerBrokenError):
        verify_export(SPOILT[how](told), KEY.public)


@pytest.mark.parametrize("how", MALFORMED)
def test_a_malformed_export_is_refused(how: str) -> None:
    told = list(export(brought_to("RELEASED"), KEY))
    with pytest.raises(DocumentError):
        verify_export(MALFORMED[how](told), KEY.public)


def test_an_export_of_another_signer_is_refused() -> None:
    with pytest.raises(LedgerBrokenError, match="not signed by this party"):
        verify_export(export(memory(), OTHER), KEY.public)


def test_an_export_with_empty_lines_at_its_end_verifies() -> None:
    told = list(export(memory(), KEY))
    assert verify_export([*told, "", "\n"], KEY.public).head.seq == 1
