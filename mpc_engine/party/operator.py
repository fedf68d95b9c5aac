"""What the daemon answers to its operator's commands; see :mod:`mpc_engine.party.control`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mpc_engine import __version__
from mpc_engine.errors import DocumentError, UnknownRequestError
from mpc_engine.ledger.charge import Limit
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.rows import OPEN_REQUEST, RequestRow
from mpc_engine.party.account import charge_of
from mpc_engine.party.desk import Desk, submission_of
from mpc_engine.party.explain import Asker, explain_request
from mpc_engine.party.judgement import agreed_plan
from mpc_engine.party.notices import Notices
from mpc_engine.party.overview import budget_fields, summaries, summary_of
from mpc_engine.party.published import policy_digest
from mpc_engine.party.recovery import Recovery
from mpc_engine.party.repetition import answered_by, earlier_of, settled
from mpc_engine.party.runner import Runner
from mpc_engine.party.situation import Situation
from mpc_engine.party.source import source_digest
from mpc_engine.runtime.switchboard import Switchboard

_SHORTEST_ID = 8


class Operator:
    """Answers the operator's commands at one party."""

    def __init__(
        self,
        ledger: Ledger,
        desk: Desk,
        runner: Runner,
        notices: Notices,
        recovery: Recovery,
        switchboard: Switchboard,
        situation: Callable[[], Situation],
        snapshot: Callable[[], str],
        started: str,
    ) -> None:
        self._ledger, self._desk, self._runner = ledger, desk, runner
        self._notices, self._recovery, self._switchboard = notices, recovery, switchboard
        self._situation, self._snapshot, self._started = situation, snapshot, started

    async def handle(self, command: str, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a command. Raises EngineError."""
        match command:
            case "status":
                return self._status()
            case "list":
                here = self._situation()
                found = summaries(
                    self._ledger, here.name, list(here.names.values()), bool(fields.get("all", False))
                )
                return {"requests": [each.as_fields() for each in found]}
            case "show":
                return self._show(self._find(fields))
            case "approve":
                row = self._find(fields)
                return self._summary(self._desk.decide(row.id, "approved", _text(fields, "operator")))
            case "reject":
                row = self._find(fields)
                return self._summary(
                    self._desk.decide(row.id, "rejected", _text(fields, "operator"), _text(fields, "reason"))
                )
            case "withdraw":
                return self._summary(self._desk.withdraw(self._find(fields).id, _text(fields, "reason")))
            case "budget":
                here = self._situation()
                return budget_fields(self._ledger, here.name, self._limits())
            case "recover":
                return await self._recovery.recover()
            case "policy":
                policy = self._situation().published(self._snapshot())
                return {"policy": policy, "digest": policy_digest(policy)}
        raise DocumentError(f"{command!r} is no command of this daemon")

    def _status(self) -> dict[str, Any]:
        here = self._situation()
        open_ = self._ledger.requests(states=OPEN_REQUEST)
        waiting = [row for row in open_ if here.name not in self._ledger.decisions(row.id)]
        return {
            "party": here.name,
            "engine": __version__,
            "source": source_digest().hex(),
            "dev": here.dev,
            "started": self._started,
            "snapshot": self._snapshot(),
            "peers": [
                {"name": here.names[peer], "up": self._switchboard.connected(peer)} for peer in here.peers
            ],
            "open": len(open_),
            "waiting": len(waiting),
            "sessions": len(self._runner.running),
        }

    def _show(self, row: RequestRow) -> dict[str, Any]:
        here = self._situation()
        submission = submission_of(row.body)
        query = submission.asked()
        proposal = here.proposal(query, submission.codebook)
        plan = agreed_plan(proposal, {**self._notices.thresholds(), here.name: here.policy.least_threshold})
        remaining = self._ledger.budgets(here.limits(row.analyst, row.analyst_name, row.project))
        enrolled = here.terms(row.analyst)
        cards = [] if enrolled is None else [card.fingerprint for card in enrolled.cards]
        stored, charge = answered_by(self._ledger, proposal, self._notices.known()), charge_of(plan.guarantee)
        lines = explain_request(
            query,
            here.codebook,
            plan,
            here.policy,
            remaining,
            asker=Asker(row.analyst_name, row.project, row.received[:10], row.received_from),
            earlier=earlier_of(self._ledger, cards, row, stored),
            waits=self._desk.judge(submission).waits,
            settled=settled(self._ledger, row, stored, charge),
        )
        return {
            **self._summary(row),
            "lines": [list(line) for line in lines],
            "charge": charge.words,
        }

    def _summary(self, row: RequestRow) -> dict[str, Any]:
        here = self._situation()
        names = list(here.names.values())
        return {"request": summary_of(self._ledger, row, here.name, names).as_fields()}

    def _limits(self) -> list[Limit]:
        """Return the budgets of everything that has been spent from or is limited here, each once."""
        here = self._situation()
        asked = {(row.analyst, row.analyst_name, row.project) for row in self._ledger.requests()}
        asked |= {(fingerprint, each.name, "") for fingerprint, each in here.analysts.items()}
        asked |= {("", "", project) for project in here.policy.budget.projects}
        found = {
            limit.scope: limit
            for analyst, name, project in sorted(asked)
            for limit in here.limits(analyst, name, project)
            if (name if limit.scope.kind == "analyst" else limit.scope.name)
        }
        return list(found.values())

    def _find(self, fields: Mapping[str, Any]) -> RequestRow:
        """Return the request with an id, or with one that begins so."""
        wanted = _text(fields, "id")
        if len(wanted) < _SHORTEST_ID:
            raise UnknownRequestError(f"give at least {_SHORTEST_ID} characters of the request's id")
        rows = [row for row in self._ledger.requests() if row.id.startswith(wanted)]
        if len(rows) != 1:
            raise UnknownRequestError(
                f"{'no request has' if not rows else 'several requests have'} an id that begins {wanted[:32]}"
            )
        return rows[0]


def _text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name, "")
    if not isinstance(value, str) or len(value) > 1000 or not value.isprintable():
        raise DocumentError(f"{name}: must be one line of text")
    return value
