"""A question: a query that has met its codebook, with everything that can be known before it is asked."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from mpc_engine.client.plans import Cost, Outline, cost_of
from mpc_engine.client.request import Request
from mpc_engine.party.proposal import propose
from mpc_engine.release.plan import Member
from mpc_engine.statistics.query import Query

if TYPE_CHECKING:
    from mpc_engine.client.client import Client
    from mpc_engine.client.preview import Preview
    from mpc_engine.client.released import Released

USUAL_MEMBERS: Final = (
    Member("silo-1", True, True, "unknown", 1 << 24),
    Member("silo-2", True, True, "unknown", 1 << 24),
    Member("helper", True, False, "unknown", 1 << 24),
)
"""Two silos and a helper: who is assumed to take part until a party is asked."""


class Question:
    """A query of a client. Nothing is sent before :meth:`cost` or :meth:`submit`.

    Attributes:
        query: the query document.
    """

    def __init__(self, client: Client, query: Query) -> None:
        self.query = query
        self._client = client

    def __repr__(self) -> str:
        return f"Question({self.query.question()})"

    def validate(self) -> Question:
        """Return the question.

        Raises DocumentError naming every key that does not fit the codebook, and for an ε that is too small.
        """
        self.query.validate_on(self._client.codebook)
        return self

    @property
    def plan(self) -> Outline:
        """The plan as far as it is known here: cells, openings, the split of ε and the noise.

        Who takes part is assumed (see USUAL_MEMBERS), which only messages depend on, and k is the query's or,
        in a simulation, the parties'; :meth:`cost` asks. Raises DocumentError as `validate`.
        """
        self.validate()
        members = self._client.desk.members or USUAL_MEMBERS
        threshold = max(self.query.privacy.threshold, self._client.desk.least_threshold)
        return Outline(propose(self.query, self._client.codebook, members).plan(threshold))

    def cost(self) -> Cost:
        """Return the plan that the parties would follow, what is left of budgets, and what they would say.

        It costs nothing. Raises DocumentError as `validate`, EngineMismatchError if the party lays out
        another plan, and what the party answers with instead.
        """
        self.validate()
        answer = self._client.run(self._client.desk.cost(self.query))
        members = tuple(each.member() for each in answer.plan.members)
        return cost_of(answer, propose(self.query, self._client.codebook, members))

    def preview(self, rows: int = 1_000, seed: int | None = None, records_per_patient: int = 1) -> Preview:
        """Return the result on so many made-up records, drawn from the codebook; nobody's data is touched.

        The sums are true ones without noise; what would be suppressed is, by the k of :attr:`plan`. Raises
        DocumentError as `validate`, and for numbers out of range.
        """
        # Imported here, for whoever only asks need not load the libraries of tables and pictures.
        from mpc_engine.client.preview import preview

        return preview(self.query, self._client.codebook, self.plan.plan, rows, seed, records_per_patient)

    def submit(self, key: str | None = None) -> Request:
        """Hand the question in and return the request.

        With a ``key`` of at most 64 characters, handing it in again finds the same request. Raises
        DocumentError as `validate`, IdempotencyError for a key of another question.
        """
        self.validate()
        answer = self._client.run(self._client.desk.submit(self.query, key or secrets.token_hex(16)))
        return Request(self._client, answer.status.id, answer.known)

    def run(self, key: str | None = None, timeout_s: float | None = None) -> Released:
        """Hand the question in, wait for the answer and return the result; errors as of the three."""
        request = self.submit(key)
        request.wait(timeout_s)
        return request.result()

    def as_fields(self) -> dict[str, Any]:
        """Return the query document as plain fields."""
        return self.query.digest_fields()
