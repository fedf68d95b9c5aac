"""Whom questions are handed to: a party over its analyst port. A simulation takes the same place."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

from mpc_engine.client.profile import Access
from mpc_engine.documents import Document, parse
from mpc_engine.errors import DocumentError, EngineMismatchError, RateLimitError
from mpc_engine.identity import Card
from mpc_engine.party.encoding import read_message, read_result, write_message
from mpc_engine.party.messages import (
    About,
    CostAnswer,
    CostQuestion,
    Nothing,
    PartiesAnswer,
    PolicyAnswer,
    PolicyQuestion,
    Status,
    Statuses,
    Submitted,
    WaitFor,
)
from mpc_engine.party.submission import make_submission
from mpc_engine.release.plan import Member
from mpc_engine.statistics.query import Query
from mpc_engine.transport.analyst_channel import AnalystChannel

A = TypeVar("A", bound=Document)

_CALL_S = 30.0
_RESULT_S = 300.0
_PATIENCE_S = 15.0
"""What a call that waits may take on top of its wait."""


class Desk(Protocol):
    """Takes questions and hands out answers. All methods raise the classes of `mpc_engine.errors`."""

    simulated: bool
    cards: Mapping[str, Sequence[Card]]
    """Cards that are trusted, by party."""
    members: tuple[Member, ...] | None
    """The parties, where they are known without asking."""
    least_threshold: int
    """The least k that is known without asking."""

    @abstractmethod
    async def submit(self, query: Query, key: str) -> Submitted:
        """Hand in a question under a key."""

    @abstractmethod
    async def status(self, request: str) -> Status:
        """Return what has become of a request."""

    @abstractmethod
    async def wait(self, request: str, seen: Status, timeout_s: float) -> Status:
        """Return what has become of a request once that is something else than ``seen``, or time is up."""

    @abstractmethod
    async def withdraw(self, request: str) -> Status:
        """Take a request back."""

    @abstractmethod
    async def result(self, request: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the release and its receipt, None while that is not complete."""

    @abstractmethod
    async def requests(self) -> tuple[Status, ...]:
        """Return all requests, newest first."""

    @abstractmethod
    async def cost(self, query: Query) -> CostAnswer:
        """Return what a question would cost."""

    @abstractmethod
    async def policy(self, party: str) -> tuple[dict[str, Any], bool]:
        """Return a party's published policy, and whether a trusted card's signature is under it."""

    @abstractmethod
    async def parties(self) -> PartiesAnswer:
        """Return the parties."""

    @abstractmethod
    async def close(self) -> None:
        """End the connection."""


class PartyDesk(Desk):
    """A party over its analyst port."""

    simulated = False
    members = None
    least_threshold = 1

    def __init__(self, access: Access, channel: AnalystChannel | None = None) -> None:
        self._access = access
        self.cards = access.cards
        self._codebook = access.codebook.digest()
        self._channel = channel or AnalystChannel(
            access.address, access.identity, access.party.certificate.encode(), access.party.name
        )

    async def submit(self, query: Query, key: str) -> Submitted:
        """Sign a request and hand it in; doing it twice under a key does it once."""
        access = self._access
        submission = make_submission(query, self._codebook, access.project, key, access.identity)
        answer = await self._ask("Submit", submission, Submitted)
        return self._about(submission.request_id, answer, answer.status.id)

    async def status(self, request: str) -> Status:
        """Return what has become of a request."""
        return await self._status("Status", _about(request), request)

    async def wait(self, request: str, seen: Status, timeout_s: float) -> Status:
        """Return a changed status, or the present one after ``timeout_s``, a minute at most."""
        wait_s = max(0, min(60, round(timeout_s)))
        try:
            fields = {"id": request, "timeout_s": wait_s, "seen": seen.mark}
            message = parse(fields, WaitFor, "request")
            return await self._status("Wait", message, request, wait_s + _PATIENCE_S)
        except RateLimitError:
            await asyncio.sleep(1)
            return seen

    async def withdraw(self, request: str) -> Status:
        """Take a request back."""
        return await self._status("Withdraw", _about(request), request)

    async def result(self, request: str) -> tuple[dict[str, Any], dict[str, Any] | None]:
        """Return the release and its receipt."""
        content = await self._channel.call("Result", write_message(_about(request)), _RESULT_S)
        try:
            return read_result(content, self._where)
        except DocumentError as error:
            raise self._strange(error) from None

    async def requests(self) -> tuple[Status, ...]:
        """Return all requests of this analyst."""
        return (await self._ask("List", Nothing(), Statuses)).requests

    async def cost(self, query: Query) -> CostAnswer:
        """Return what a question would cost."""
        fields = {
            "query": query.digest_fields(),
            "codebook": self._codebook,
            "project": self._access.project,
        }
        return await self._ask("Cost", parse(fields, CostQuestion, "query"), CostAnswer)

    async def policy(self, party: str) -> tuple[dict[str, Any], bool]:
        """Return a party's published policy."""
        answer = await self._ask("Policy", parse({"party": party}, PolicyQuestion, "policy"), PolicyAnswer)
        signed = any(answer.signed_by(card) for card in self.cards.get(party, ()))
        return dict(answer.policy), signed and answer.party == party

    async def parties(self) -> PartiesAnswer:
        """Return the parties."""
        return await self._ask("Parties", Nothing(), PartiesAnswer)

    async def close(self) -> None:
        """End the connection."""
        await self._channel.close()

    @property
    def _where(self) -> str:
        return f"the answer of {self._channel.name}"

    async def _ask(self, method: str, message: Document, model: type[A], timeout_s: float = _CALL_S) -> A:
        content = await self._channel.call(method, write_message(message), timeout_s)
        try:
            return read_message(content, model, self._where)
        except DocumentError as error:
            raise self._strange(error) from None

    async def _status(
        self, method: str, message: Document, request: str, timeout_s: float = _CALL_S
    ) -> Status:
        answer = await self._ask(method, message, Status, timeout_s)
        return self._about(request, answer, answer.id)

    def _about(self, asked: str, answer: A, told: str) -> A:
        if asked != told:
            raise EngineMismatchError(f"{self._where} is about request {told}, not {asked}")
        return answer

    def _strange(self, error: DocumentError) -> EngineMismatchError:
        return EngineMismatchError(f"{error}; does it run another version of the engine?")


def _about(request: str) -> About:
    return parse({"id": request}, About, "request")
