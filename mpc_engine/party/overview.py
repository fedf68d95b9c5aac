"""A party's requests and budgets as its operator sees them, read from its ledger.

The daemon answers its operator with these, and the commands use them themselves while no daemon runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from mpc_engine.documents import parse
from mpc_engine.dp.rationals import decimal_text
from mpc_engine.errors import DocumentError
from mpc_engine.ledger.charge import Charge, Limit
from mpc_engine.ledger.reading import Reading
from mpc_engine.ledger.rows import OPEN_REQUEST, RequestRow
from mpc_engine.party.messages import StoredRelease
from mpc_engine.party.submission import Submission
from mpc_engine.statistics.query import Query


@dataclass(frozen=True)
class Summary:
    """One request, as an operator sees it in a list.

    Attributes:
        id: 32 hexadecimal digits.
        state: such as PARTIALLY_REVIEWED.
        analyst, project, preset, title, epsilon: of the request; epsilon as text.
        received: when it came to this party.
        decisions: by party, "approved", "rejected", "returned" or "waiting".
        waits: whether this party's operator has to decide.
        reason, detail: why it was returned or rejected, as a code and in words; "" otherwise.
        served_from: the earlier release that answered it at no cost, in words; "" otherwise.
    """

    id: str
    state: str
    analyst: str
    project: str
    preset: str
    title: str
    epsilon: str
    received: str
    decisions: Mapping[str, str]
    waits: bool = False
    reason: str = ""
    detail: str = ""
    served_from: str = ""

    def as_fields(self) -> dict[str, Any]:
        """Return the summary as plain fields."""
        return asdict(self)

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Summary:
        """Return the summary in plain fields; keys that this version does not know are left out."""
        return cls(**{name: fields[name] for name in cls.__dataclass_fields__ if name in fields})


def query_of(row: RequestRow) -> Query | None:
    """Return what a request asks; None if this engine cannot read it, as after a change of its format."""
    try:
        return parse(json.loads(row.body), Submission, "request").asked()
    except (DocumentError, ValueError, TypeError, RecursionError):
        return None


def printable(text: str) -> str:
    """Return text of an analyst that cannot steer the operator's terminal or disguise itself."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def title_of(query: Query) -> str:
    """Return a query's title, or else what it asks, on one printable line."""
    return printable(" ".join((query.title or query.question()).split()))[:200]


def summary_of(reading: Reading, row: RequestRow, party: str, parties: Sequence[str]) -> Summary:
    """Return the summary of a request at ``party``, with the decisions of all ``parties`` of the roster."""
    decided = {name: each.verdict for name, each in reading.decisions(row.id).items()}
    query, served = query_of(row), served_from(reading, row)
    return Summary(
        row.id,
        row.state,
        row.analyst_name,
        row.project,
        "" if query is None else query.preset,
        "(cannot be read by this engine)" if query is None else title_of(query),
        "" if query is None else decimal_text(query.privacy.epsilon_exact),
        row.received,
        {name: decided.get(name, "waiting") for name in parties},
        row.state in OPEN_REQUEST and party not in decided,
        row.reason,
        row.detail,
        "" if served is None else served.words,
    )


def stored_release(reading: Reading, ticket: str) -> StoredRelease | None:
    """Return what people are told of the release of a session; None if there is no such session here."""
    session = reading.session(ticket)
    if session is None:
        return None
    first = reading.request(session.request)
    source = session if first is None or first.state != "RELEASED" else first
    return StoredRelease(ticket=ticket, released=source.changed)


def served_from(reading: Reading, row: RequestRow) -> StoredRelease | None:
    """Return the earlier release that answered a request, None if it was not answered so."""
    session = None if row.state != "RELEASED" or row.ticket is None else reading.session(row.ticket)
    if session is None or session.request == row.id:
        return None
    return stored_release(reading, session.ticket)


def summaries(reading: Reading, party: str, parties: Sequence[str], ended: bool = False) -> list[Summary]:
    """Return the open requests at ``party``, and those that have ended if asked for, latest last."""
    rows = reading.requests(states=None if ended else OPEN_REQUEST)
    return [summary_of(reading, row, party, parties) for row in rows]


def budget_fields(reading: Reading, party: str, limits: Sequence[Limit]) -> dict[str, Any]:
    """Return ``scopes`` and ``rows`` of `budget show`, as :mod:`mpc_engine.party.control` describes them."""
    scopes = [
        {
            "kind": row.scope.kind,
            "name": row.scope.name,
            "spent": _amount(row.spent),
            "held": _amount(row.held),
            "remaining": _left(row.remaining_micro_epsilon, row.remaining_delta),
            "limit": _left(row.limit.micro_epsilon, row.limit.delta),
        }
        for row in reading.budgets(limits)
    ]
    return {"scopes": scopes, "rows": _rows(reading, party)}


def _rows(reading: Reading, party: str) -> list[dict[str, Any]]:
    rows = []
    for spending in reading.spendings():
        request = reading.request(spending.request)
        query = None if request is None else query_of(request)
        decision = reading.decisions(spending.request).get(party)
        rows.append(
            {
                "time": spending.time,
                "ticket": spending.ticket,
                "request": spending.request,
                "query": "" if query is None else title_of(query),
                "analyst": spending.analyst_name,
                "project": spending.project,
                "decided": "" if decision is None else decision.by or "policy",
                "state": spending.state,
                **_amount(spending.charge),
            }
        )
    return rows


def _amount(charge: Charge) -> dict[str, Any]:
    """Return an amount as JSON holds it exactly: δ is too large for most readers' integers."""
    return {"micro_epsilon": charge.micro_epsilon, "delta": str(charge.delta)}


def _left(micro_epsilon: int | None, delta: int | None) -> dict[str, Any]:
    return {"micro_epsilon": micro_epsilon, "delta": None if delta is None else str(delta)}
