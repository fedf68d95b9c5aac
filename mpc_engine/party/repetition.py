"""A question that was answered before: the stored release that answers it again, at no cost."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping

from mpc_engine.documents import canonical
from mpc_engine.ledger.charge import Charge
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.rows import OPEN_REQUEST, RequestRow
from mpc_engine.party.explain import Earlier
from mpc_engine.party.judgement import agreed_plan
from mpc_engine.party.messages import StoredRelease
from mpc_engine.party.overview import query_of, served_from, stored_release
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.runner import question_of
from mpc_engine.statistics.query import Query

Known = tuple[Mapping[str, int], Mapping[str, str]]
"""Least k and snapshot ids that all parties have published, by name."""


def answered_by(reading: Reading, proposal: Proposal, known: Known | None) -> StoredRelease | None:
    """Return the release that would answer a proposal if it were asked now.

    None if there is none here, or it cannot be told because a party has not published what it takes
    (``known``). Raises PolicyError if the plan is out of bounds with the parties' k.
    """
    if known is None:
        return None
    thresholds, snapshots = known
    ticket = reading.released_for(question_of(proposal, agreed_plan(proposal, thresholds), snapshots))
    return None if ticket is None else stored_release(reading, ticket)


def known_to(
    reading: Reading, cards: Collection[str], stored: StoredRelease, row: RequestRow | None = None
) -> StoredRelease:
    """Return a release as the analyst with these cards, by fingerprint, may be told of it.

    At a request ``row``, if one is given, the analyst's other requests before it count.
    ``released`` is when an earlier request of that analyst was answered by it, None if none was: when it was
    made for another analyst is nobody else's business.
    """
    until = None if row is None or row.state in OPEN_REQUEST else row.changed
    had = [
        each.changed
        for card in cards
        for each in reading.requests(states=("RELEASED",), analyst=card)
        if each.ticket == stored.ticket and (row is None or each.id != row.id)
        if until is None or each.changed <= until
    ]
    return StoredRelease(ticket=stored.ticket, released=min(had, default=None))


def earlier_of(
    reading: Reading, cards: Collection[str], row: RequestRow, stored: StoredRelease | None
) -> list[Earlier]:
    """Return earlier requests of the same preset whose answers, with that of this one, tell more than either.

    Whoever made them: two analysts can put their answers together. Those of the one who asks, with these
    ``cards`` by fingerprint, bear no name. Left out are those that ended without an answer, those that have
    or would have the very answer that this one has, and of several with one answer all but the first, or the
    first of the one who asks.
    """
    cards = {*cards, row.analyst}
    had = {row.ticket, None if stored is None else stored.ticket} - {None}
    mine = query_of(row)
    found: dict[str, Earlier] = {}
    if mine is None:
        return []
    for each in reading.requests():
        if each.id == row.id or each.received > row.received or _preset(each) != mine.preset:
            continue
        answered, own = each.state == "RELEASED", each.analyst in cards
        if answered and each.ticket in had:
            continue
        ended = each.state not in OPEN_REQUEST and not answered
        if ended and all(session.state == "ABORTED" for session in reading.sessions_of(each.id)):
            continue
        answer = each.ticket if answered and each.ticket is not None else each.id
        if answer in found and not (own and found[answer].by):
            continue
        asked = query_of(each)
        if asked is None or (each.state in OPEN_REQUEST and row.state in OPEN_REQUEST and _same(mine, asked)):
            continue  # both will have one answer
        name = each.analyst_name
        by = "" if own else f"{name} ({each.analyst[-8:]})" if name == row.analyst_name else name
        found[answer] = Earlier(each.id, asked, each.state, each.received[:10], by)
    return list(found.values())


def _preset(row: RequestRow) -> object:
    """Return what a request asks for, which takes a tenth of reading all of it."""
    try:
        return json.loads(row.body)["query"]["preset"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _same(one: Query, other: Query) -> bool:
    return canonical(one.digest_fields()) == canonical(other.digest_fields())


def settled(reading: Reading, row: RequestRow, stored: StoredRelease | None, charge: Charge) -> str:
    """Return why a request will take nothing (more) from the budgets; "" if it may.

    ``stored`` is what would answer it now, ``charge`` what it costs otherwise.
    """
    if row.state == "RELEASED":
        served = served_from(reading, row)
        if served is not None:
            return f"Nothing: it was served from {served.words}."
        session = None if row.ticket is None else reading.session(row.ticket)
        return f"{(charge if session is None else session.charge).words}, debited when it was answered."
    if row.state not in OPEN_REQUEST:
        return "Nothing more: the request has ended."
    if stored is None:
        return ""
    return (
        f"Answered already: it would be served from {stored.words}, at no cost. If records, a least k or the "
        f"roster change before that, it is another question and costs {charge.words}."
    )
