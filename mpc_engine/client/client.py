"""The client: one method for each preset, and what an analyst may ask of a party beside questions."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, TypeVar

from mpc_engine.client.desk import Desk, PartyDesk
from mpc_engine.client.loop import Loop
from mpc_engine.client.profile import is_scenario, load_access
from mpc_engine.client.question import Question
from mpc_engine.client.request import Request
from mpc_engine.client.rules import Rules
from mpc_engine.codebook import Codebook, load_codebook
from mpc_engine.documents import read
from mpc_engine.errors import UnknownRequestError
from mpc_engine.party.messages import PartiesAnswer, Status
from mpc_engine.statistics.presets import load_query, parse_query, presets
from mpc_engine.statistics.query import Privacy, Query

T = TypeVar("T")
ID_DIGITS: Final = 32
LEAST_DIGITS: Final = 8
"""Digits of a request's id that are enough, if no other request's begins with them."""

_KEYWORDS: Final = """
Keywords are the keys of the query document, with those of its `privacy` beside them; `split` stands for
`privacy.weights`, the shares of ε. Amounts are text, as in epsilon="0.5". Returns a Question. Raises
DocumentError naming the key that breaks a rule, TypeError for a keyword that is missing or unknown.
"""
_PRIVACY: Final = {("split" if name == "weights" else name): name for name in Privacy.model_fields}


def connect(profile: str | Path, *, project: str | None = None) -> Client:
    """Return the client of a profile, or of a scenario, which it simulates on this machine.

    ``project`` replaces the one that the profile names; a simulation has none. Nothing is sent
    yet. Raises DocumentError for a document that is missing or breaks a rule.
    """
    if is_scenario(read(profile)):
        # Imported here, for whoever talks to a party needs none of it.
        from mpc_engine.client.simulation import SimulatedDesk
        from mpc_engine.scenario.document import load_scenario

        scenario = load_scenario(profile)
        codebook = load_codebook(scenario.path(scenario.codebook))
        return Client(SimulatedDesk(scenario, codebook), codebook)
    access = load_access(profile, project)
    return Client(PartyDesk(access), access.codebook)


class Client:
    """What an analyst asks with: a desk that takes questions, and the codebook that they are about.

    Each preset is a method, such as ``client.crosstab(by=["stage"], epsilon="1")``, and returns a Question.
    Methods wait for their answer; the connection runs in a thread of its own and ends with :meth:`close`, or
    at the end of a ``with`` statement.
    """

    def __init__(self, desk: Desk, codebook: Codebook) -> None:
        self.desk = desk
        self.codebook = codebook
        self._loop = Loop()

    if TYPE_CHECKING:

        def __getattr__(self, preset: str) -> Callable[..., Question]: ...

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def ask(self, query: Query | Mapping[str, Any] | str | Path) -> Question:
        """Return the question of a query document: a file, its fields, or one that has been read."""
        if isinstance(query, str | Path):
            return Question(self, load_query(query))
        return Question(self, query if isinstance(query, Query) else parse_query(query))

    def request(self, request: str) -> Request:
        """Return a request by its id, or its first digits, made by this program or by an earlier one.

        Raises UnknownRequestError unless exactly one of the analyst's requests has an id that begins so.
        """
        if len(request) == ID_DIGITS and set(request) <= set("0123456789abcdef"):
            return Request(self, request)
        found = [each.id for each in self.requests() if each.id.startswith(request)]
        if len(request) < LEAST_DIGITS or len(found) != 1:
            how_many = "no request of yours" if not found else "several of your requests"
            raise UnknownRequestError(
                f"give the id of a request, or its first {LEAST_DIGITS} digits or more: {how_many} begins so"
            )
        return Request(self, found[0])

    def requests(self) -> tuple[Status, ...]:
        """Return what has become of all requests, newest first."""
        return self.run(self.desk.requests())

    def policy(self, party: str) -> Rules:
        """Return the rules that a party has published; printed, they are in plain words."""
        return Rules(*self.run(self.desk.policy(party)))

    def parties(self) -> PartiesAnswer:
        """Return all parties: roles, whether they are connected, engines and snapshots."""
        return self.run(self.desk.parties())

    def close(self) -> None:
        """End the connection; in a simulation also what still runs."""
        self.run(self.desk.close())
        self._loop.close()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Return what a coroutine of the desk returns, or raise what it raises."""
        return self._loop.run(coroutine)


def _parameters(model: type[Query]) -> list[inspect.Parameter]:
    """Return the keywords of a preset's method, those without a default first."""
    found = []
    for document, names in ((model, None), (Privacy, _PRIVACY)):
        keys = {name: name for name in document.model_fields} if names is None else names
        for keyword, name in keys.items():
            info = document.model_fields[name]
            if name not in ("preset", "privacy"):
                default = inspect.Parameter.empty if info.is_required() else info.default
                found.append(
                    inspect.Parameter(
                        keyword, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=info.annotation
                    )
                )
    return sorted(found, key=lambda each: each.default is not inspect.Parameter.empty)


def _method(preset: str, model: type[Query]) -> Callable[..., Question]:
    parameters = _parameters(model)

    def ask(self: Client, **given: Any) -> Question:
        signature.bind(self, **given)
        fields: dict[str, Any] = {"preset": preset, "privacy": {}}
        for keyword, value in given.items():
            if keyword in _PRIVACY:
                fields["privacy"][_PRIVACY[keyword]] = value
            else:
                fields[keyword] = value
        return Question(self, parse_query(fields, preset))

    itself = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    signature = inspect.Signature([itself, *parameters], return_annotation=Question)
    ask.__signature__ = signature  # type: ignore[attr-defined]
    ask.__name__, ask.__qualname__ = preset, f"Client.{preset}"
    ask.__doc__ = f"{inspect.getdoc(model)}\n{_KEYWORDS}"
    return ask


for _name, _model in presets().items():
    setattr(Client, _name, _method(_name, _model))
