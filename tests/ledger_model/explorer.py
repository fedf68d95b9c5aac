"""Breadth-first search through all states of a model, with the shortest way to each kind of fault."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field

from tests.ledger_model.invariants import Fault, Invariants
from tests.ledger_model.protocol import Model, State, Step


@dataclass
class Exploration:
    """What was found: states seen, whether there are no others, and a shortest trace to each fault."""

    states: int = 0
    complete: bool = True
    traces: dict[Fault, list[Step]] = field(default_factory=dict)

    def report(self, title: str) -> str:
        """Return the findings in words."""
        lines = [f"{title}: {self.states} states{'' if self.complete else ' until all faults were found'}"]
        for fault, steps in self.traces.items():
            lines.append(f"  {fault.value} after {len(steps)} steps:")
            lines.extend(f"    {number:2}. {step}" for number, step in enumerate(steps, start=1))
        return "\n".join(lines)


def explore(model: Model, stop_after: Collection[Fault] = ()) -> Exploration:
    """Visit every state, or stop when each fault of `stop_after` was found once."""
    invariants, found = Invariants(model), Exploration()
    origin: dict[State, tuple[State, Step] | None] = {model.start: None}
    waiting = deque([model.start])
    while waiting:
        state = waiting.popleft()
        for fault in invariants.faults(state):
            if fault not in found.traces and (not stop_after or fault in stop_after):
                found.traces[fault] = _way(origin, state)
        if stop_after and found.traces.keys() >= set(stop_after):
            found.complete = False
            break
        for step, after in model.successors(state):
            if after not in origin:
                origin[after] = (state, step)
                waiting.append(after)
    found.states = len(origin)
    return found


def _way(origin: dict[State, tuple[State, Step] | None], state: State) -> list[Step]:
    steps: list[Step] = []
    while (before := origin[state]) is not None:
        state, step = before
        steps.append(step)
    return steps[::-1]
