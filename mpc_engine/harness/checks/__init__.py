"""Whether what was expected of a scenario came: one function for each kind of expectation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from typing import Any, Final, TypeVar

from mpc_engine.errors import EngineError
from mpc_engine.harness.record import Run, Verdict, Verdicts
from mpc_engine.scenario.expectations import Outcome

E = TypeVar("E")
Check = Callable[[Run, E], Verdicts]

_FOUND: Final[dict[type[Any], Check[Any]]] = {}
_BASIC: Final = "mpc_engine.harness.checks.basic"
_PLACES: Final = {
    "audit": "privacy",
    "attack": "privacy",
    "trips": "timing",
    "truth": "utility",
    "pooled": "utility",
    "noise": "utility",
    "published": "utility",
    "coverage": "utility",
    "curator": "utility",
    "keeps": "utility",
}
"""The module of a kind of expectation, where that is not `basic`; imported when it is needed."""


def checks(kind: type[E]) -> Callable[[Check[E]], Check[E]]:
    """Make a function the check of a kind of expectation."""

    def known(check: Check[E]) -> Check[E]:
        _FOUND[kind] = check
        return check

    return known


def judge(run: Run) -> list[Verdict]:
    """Return whether each expectation holds, in the document's order, then those that are always there.

    An expectation that cannot be looked at, because nothing was released for instance, does not hold.
    """
    basic = import_module(_BASIC)
    scenario = run.scenario
    first = scenario.asks[0].name
    spoken_of = {each.ask or first for each in scenario.expect if isinstance(each, Outcome)}
    usual = [Outcome(kind="outcome", ask=ask.name) for ask in scenario.asks if ask.name not in spoken_of]
    verdicts: list[Verdict] = []
    for expectation in (*scenario.expect, *usual):
        place = _PLACES.get(expectation.kind)
        if place is not None:
            import_module(f"{__name__}.{place}")
        try:
            found = _FOUND[type(expectation)](run, expectation)
            if not found:
                raise LookupError("it sets no bound")
            verdicts += [replace(verdict, kind=expectation.kind) for verdict in found]
        except (EngineError, LookupError) as error:
            claim = f"The expectation `{expectation.kind}` of {expectation.ask or first} can be looked at."
            verdicts.append(Verdict(claim, False, f"It cannot: {error}.", expectation.kind))
    return [*verdicts, *basic.always(run)]
