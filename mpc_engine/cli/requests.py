"""Requests on a terminal: what has become of them, and what happens while one waits."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from mpc_engine.cli import terminal
from mpc_engine.cli.tables import say, show
from mpc_engine.cli.terminal import err
from mpc_engine.client.client import LEAST_DIGITS
from mpc_engine.ledger.charge import NOTHING
from mpc_engine.party.messages import Amounts, Status

PHASES = {"queued": "waiting for its turn", **terminal.PHASES}
"""What the party that is asked does in each phase, in the order in which they come."""
STATES = {
    "SUBMITTED": "nobody has decided yet",
    "PARTIALLY_REVIEWED": "some parties have decided",
    "REVIEWED": "all parties have decided",
    "APPROVED": "all parties have approved it",
    "RELEASED": "it is answered",
    "RETURNED": "it could not be answered",
    "REJECTED": "a party rejected it",
    "WITHDRAWN": "you took it back",
}
"""What each state of a request means."""


def show_status(status: Status) -> None:
    """Print everything that is known of a request, line by line."""
    say(f"{status.state}: {STATES[status.state]}", style="bold")
    lines = [("request", status.id), ("question", status.title), ("key", status.key)]
    lines += [("project", status.project), ("cost", cost_words(status))]
    for party, decided in status.parties.items():
        why = f": {decided.reason}" if decided.reason else ""
        lines.append((party, f"{decided.decision}{why}"))
    lines += [("waiting for", words) for words in status.waiting_for]
    if status.progress is not None:
        lines.append(("session", f"{PHASES.get(status.progress.phase, '')}, since {status.progress.since}"))
    if status.reason:
        lines.append(("reason", f"{status.reason}: {status.detail}" if status.detail else status.reason))
    if status.next_step:
        lines.append(("next", status.next_step))
    if status.release_available:
        lines.append(("receipt", "complete" if status.receipt_complete else "not yet signed by all"))
    lines += [(state.lower(), when) for state, when in status.times.items()]
    for name, words in lines:
        if words:
            say(f"  {name}: {words}")


def show_statuses(found: Sequence[Status]) -> None:
    """Print a table of requests."""
    if not found:
        say("No request has been made.")
        return
    heads = ("request", "state", "submitted", "cost", "question")
    rows = [
        (
            each.id[:LEAST_DIGITS],
            each.state,
            each.times.get("SUBMITTED", ""),
            _short_cost(each),
            each.title,
        )
        for each in found
    ]
    show("Requests, newest first", heads, rows, left=("cost", "question"))
    for each in found:
        if each.served_from is not None:
            say(f"{each.id[:LEAST_DIGITS]} costs {cost_words(each)}.")


def cost_words(status: Status) -> str:
    """Return what a request cost, or will, in words."""
    if status.served_from is None:
        return _short_cost(status)
    if status.state == "RELEASED":
        return f"nothing; served from {status.served_from.words}"
    return (
        f"nothing, served from {status.served_from.words}, unless records, a least k or the roster change "
        f"before; else {status.cost.words}"
    )


def _short_cost(status: Status) -> str:
    free = status.served_from is not None or status.cost == Amounts.of(NOTHING)
    return "nothing" if free else status.cost.words


class Watch:
    """Shows on standard error what a request that is waited for is doing, whenever that changes."""

    def __init__(self) -> None:
        self._spinner = err.status("")
        self._said = ""

    def __enter__(self) -> Watch:
        if err.is_terminal:
            self._spinner.start()
        return self

    def __exit__(self, *_: object) -> None:
        if err.is_terminal:
            self._spinner.stop()

    def see(self, status: Status) -> None:
        """Show a status."""
        words = _doing(status)
        if words == self._said:
            return
        self._said = words
        if err.is_terminal:
            self._spinner.update(Text(words))
        else:
            err.print(f"… {words}", markup=False, soft_wrap=True)


def _doing(status: Status) -> str:
    if status.progress is not None:
        return f"{status.state}: {PHASES.get(status.progress.phase, '')}"
    approved = [name for name, decided in status.parties.items() if decided.decision == "approved"]
    by = f"approved by {', '.join(approved)}" if approved else "approved by nobody yet"
    wait = f"; waiting for {', '.join(status.waiting_for)}" if status.waiting_for else ""
    return f"{status.state}: {by}{wait}"
