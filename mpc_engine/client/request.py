"""A request: a question that was handed in, until it is answered."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mpc_engine.errors import EngineError, RequestStateError, StillWaitingError, catalogue
from mpc_engine.party.messages import FINAL, Status

if TYPE_CHECKING:
    from mpc_engine.client.client import Client
    from mpc_engine.client.released import Released

_STEP_S = 50.0


class Request:
    """A request by its id. ``known`` tells whether it had been handed in before under the same key."""

    def __init__(self, client: Client, request: str, known: bool = False) -> None:
        self.id = request
        self.known = known
        self._client = client

    def __repr__(self) -> str:
        return f"Request({self.id})"

    def status(self) -> Status:
        """Return what has become of it."""
        return self._client.run(self._client.desk.status(self.id))

    def wait(
        self, timeout_s: float | None = None, on_change: Callable[[Status], object] = lambda status: None
    ) -> Status:
        """Return its status once it is answered, refused or withdrawn.

        ``on_change`` is called with the present status and with every later one. Raises StillWaitingError if
        it is none of these after ``timeout_s``; the request itself goes on.
        """
        ends = None if timeout_s is None else time.monotonic() + timeout_s
        status = self.status()
        on_change(status)
        while status.state not in FINAL:
            left_s = _STEP_S if ends is None else min(_STEP_S, ends - time.monotonic())
            if left_s <= 0:
                awaited = f" and waits for {', '.join(status.waiting_for)}" * bool(status.waiting_for)
                raise StillWaitingError(f"after {timeout_s:g} s request {self.id} is {status.state}{awaited}")
            seen, status = status, self._client.run(self._client.desk.wait(self.id, status, left_s))
            if status != seen:
                on_change(status)
        return status

    def withdraw(self) -> Status:
        """Take it back, and return its status. Raises RequestStateError if it is too late for that."""
        return self._client.run(self._client.desk.withdraw(self.id))

    def result(self) -> Released:
        """Return the result with its receipt.

        Raises what it was refused or failed with, RequestStateError while it is neither answered nor
        refused or if it was withdrawn, and as `mpc_engine.result.Result`.
        """
        status = self.status()
        if not status.release_available:
            raise failure_of(status)
        release, receipt = self._client.run(self._client.desk.result(self.id))
        # Imported here, for whoever only asks need not load the libraries of tables and pictures.
        from mpc_engine.client.released import Receipt, Released

        cards = None if self._client.desk.simulated else self._client.desk.cards
        return Released(release, self._client.codebook, Receipt(receipt, release, cards), self.id)


def failure_of(status: Status) -> EngineError:
    """Return the failure with which a request has no result, of the class of its reason."""
    classes = {cls.reason: cls for cls in reversed(catalogue())}
    cls = classes.get(status.reason, RequestStateError)
    if status.state in ("RETURNED", "REJECTED"):
        return cls(f"request {status.id} was {status.state.lower()}: {status.detail or status.reason}")
    return RequestStateError(f"request {status.id} is {status.state} and has no result")
