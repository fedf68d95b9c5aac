"""Durable messages, and what is remembered of the ledgers of others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mpc_engine.errors import DocumentError, EngineError, LedgerRollbackError
from mpc_engine.ledger.chain import EMPTY, Head, extend
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import Line, Outgoing
from tests.ledger.books import HASH, OTHER_HASH, brought_to, memory, reopened


def post(ledger: Ledger, *bodies: bytes, peer: str = "no") -> None:
    with ledger.transaction() as tx:
        for body in bodies:
            tx.post(peer, "kind", body)


def test_messages_wait_in_order_until_they_are_acknowledged() -> None:
    ledger = memory()
    post(ledger, b"a", b"b", b"c")
    post(ledger, b"x", peer="dk")
    assert ledger.outgoing("no") == [
        Outgoing(i, "kind", body) for i, body in enumerate((b"a", b"b", b"c"), 1)
    ]
    assert ledger.outgoing("no", after=2) == [Outgoing(3, "kind", b"c")]
    with ledger.transaction() as tx:
        tx.acknowledge("no", 2)
    assert [message.id for message in reopened(ledger).outgoing("no")] == [3]
    with ledger.transaction() as tx:
        tx.acknowledge("no", 3)
    post(ledger, b"d")
    assert ledger.outgoing("no") == [Outgoing(4, "kind", b"d")]
    assert ledger.outgoing("dk") == [Outgoing(1, "kind", b"x")]
    assert ledger.outgoing("fi") == []


@given(st.lists(st.integers(1, 8), max_size=30))
@settings(max_examples=30)
def test_a_message_is_received_once(ids: list[int]) -> None:
    ledger, last = memory(), 0
    for id in ids:
        with ledger.transaction() as tx:
            assert tx.received("no", id) == (id > last)
            assert not tx.received("no", id)
        last = max(last, id)
    assert ledger.line("no") == Line(0, last)
    assert ledger.line("dk") == Line(0, 0)


def test_messages_are_numbered_from_one() -> None:
    with pytest.raises(DocumentError), memory().transaction() as tx:
        tx.received("no", 0)


def test_a_restored_ledger_numbers_on_where_its_peer_has_come() -> None:
    ledger = memory()
    post(ledger, b"a", b"b")
    with ledger.transaction() as tx:
        tx.advance("no", 7)
        tx.advance("no", 3)
    post(ledger, b"c")
    assert [(message.id, message.body) for message in ledger.outgoing("no")] == [
        (8, b"a"),
        (9, b"b"),
        (10, b"c"),
    ]
    with ledger.transaction() as tx:
        tx.advance("dk", 4)
    assert ledger.line("dk") == Line(4, 0)


def test_nothing_of_this_is_in_the_audit_chain() -> None:
    ledger = memory()
    head = ledger.head()
    post(ledger, b"a")
    with ledger.transaction() as tx:
        tx.acknowledge("no", 1)
        tx.received("no", 1)
        tx.witness("no", Head(3, HASH))
        tx.keep("digest", b"content")
        tx.advance("no", 9)
    assert ledger.head() == head


def test_the_longest_chain_of_a_peer_is_remembered() -> None:
    ledger = memory()
    assert ledger.witnessed("no") is None
    with ledger.transaction() as tx:
        for head in (Head(3, HASH), Head(2, OTHER_HASH), Head(3, HASH)):
            tx.witness("no", head)
        assert ledger.witnessed("no") == Head(3, HASH)
        tx.witness("no", Head(2, OTHER_HASH))
        assert ledger.witnessed("no") == Head(3, HASH)
        with pytest.raises(LedgerRollbackError, match="ledger of no"):
            tx.witness("no", Head(3, OTHER_HASH))
        tx.witness("no", Head(9, OTHER_HASH))
    assert reopened(ledger).witnessed("no") == Head(9, OTHER_HASH)


def test_after_a_recovery_a_shorter_chain_is_taken_and_that_is_on_record() -> None:
    ledger = memory()
    with ledger.transaction() as tx:
        tx.witness("no", Head(9, HASH))
        tx.rewitness("no", Head(4, OTHER_HASH))
    assert ledger.witnessed("no") == Head(4, OTHER_HASH)
    last = list(reopened(ledger).entries())[-1]
    assert last.kind == "rewitnessed" and '"was_seq":9' in last.fields
    with ledger.transaction() as tx:
        tx.rewitness("dk", Head(1, HASH))


def test_a_peer_follows_the_chain_by_its_body_hashes() -> None:
    ledger = brought_to("RESERVED")
    seen = ledger.head()
    for step in ("COMPUTING", "COMMITTED"):
        with ledger.transaction() as tx:
            {
                "COMPUTING": lambda t: t.computing("0" * 31 + "1", "s"),
                "COMMITTED": lambda t: t.commit("0" * 31 + "1", b"", None),
            }[step](tx)
    now = ledger.head()
    bodies = ledger.bodies(seen.seq, now.seq)
    assert extend(seen, bodies) == now
    assert extend(EMPTY, ledger.bodies(0, now.seq)) == now
    assert extend(seen, bodies[::-1]) != now
    assert extend(seen, bodies[:-1]) != now
    assert ledger.bodies(now.seq, now.seq + 5) == []
    with pytest.raises(DocumentError):
        extend(seen, [b"short"])


def test_documents_are_kept_once_and_notes_have_words_of_their_own() -> None:
    ledger = memory()
    with ledger.transaction() as tx:
        tx.keep("digest", b"content")
        tx.keep("digest", b"content")
        tx.note("policy-changed", {"digest": "ab", "number": 3})
        for kind in ("committed", "created", "two words", "", "Upper"):
            with pytest.raises(EngineError):
                tx.note(kind, {})
        with pytest.raises(DocumentError):
            tx.note("too-large", {"number": 2**60})
    assert reopened(ledger).document("digest") == b"content"
    assert ledger.document("other") is None
    assert [entry.kind for entry in ledger.entries(1)] == ["policy-changed"]
