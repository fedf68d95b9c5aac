"""What happens to simulated parties: lists of operations, drawn from a seed, kept and shortened."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

WEATHERS = ("calm", "slow", "lossy", "wild")
"""How messages fare: at once; late; lines also lose and repeat; all of it, and out of order."""
LIES = ("corrupt", "replay", "withhold", "lines")
"""What a lying party does: to its links' messages, or (the last) to what it says over its lines."""
WRITE = "write"
"""The place of a crash right after a transaction of the ledger."""


class Op(NamedTuple):
    """One operation, `after_s` virtual seconds after the one before.

    ========= ==================================================================================
    kind      meaning of the other fields
    ========= ==================================================================================
    submit    request `number` at `party`; again: the same request a second time
    twice     request `number` at `party` and at `other` at once
    differ    another question at `party` under the key of request `number`
    approve   the operator of `party` approves request `number`
    reject    the operator of `party` rejects request `number`
    withdraw  the analyst withdraws request `number` at `party`
    cut, heal the cable between `party` and `other`
    policy    `party` takes on policy `number`
    snapshot  `party` registers other records
    lie       from now on `party` lies, in the way of `place`, until another does or all has settled
    full      the disk of `party` takes nothing from its `number`-th write from now on, for half a minute
    stop      `party` is stopped in good order
    rollback  `party` is killed and started from what its disk held `number` operations ago; `recover`
              brings it back in line when everything settles
    crash     `party` is killed: now, or when it comes to `place` for the `number`-th time from now
    restart   `party` is started from what its disk held when it was killed
    clock     the wall clock of `party` is set forward by `number` seconds (back, if negative)
    weather   `place` is one of `WEATHERS`
    wait      nothing
    ========= ==================================================================================
    """

    after_s: float
    kind: str
    party: int = 0
    other: int = 0
    number: int = 0
    place: str = ""

    def __str__(self) -> str:
        given = [f"{name}={value}" for name, value in self._asdict().items() if value and name != "kind"]
        return f"{self.kind} {' '.join(given)}"


class Recipe(NamedTuple):
    """From what operation lists are drawn: how many parties, requests and operations, and where to crash."""

    parties: int = 3
    requests: int = 2
    length: int = 12
    places: tuple[str, ...] = (WRITE,)
    weights: Mapping[str, float] = {
        "submit": 4.0,
        "differ": 0.2,
        "approve": 2.0,
        "reject": 0.2,
        "withdraw": 0.3,
        "cut": 1.0,
        "heal": 1.0,
        "crash": 4.0,
        "restart": 2.0,
        "clock": 0.5,
        "weather": 1.0,
        "wait": 1.0,
    }
    """How often each kind is drawn, as against the others."""
    rare: Mapping[str, float] = {}
    """Further kinds of which a list holds at most one altogether, and the chance of each."""

    def draw(self, seed: int) -> list[Op]:
        """Return the operations of a seed; the first is always a request."""
        rng = random.Random(seed)
        kinds = rng.choices(list(self.weights), weights=list(self.weights.values()), k=self.length)
        drawn = rng.random()
        for kind, chance in self.rare.items():
            if 0.0 <= drawn < chance:
                kinds[rng.randrange(len(kinds))] = kind
            drawn -= chance
        return [self._operation(rng, kind) for kind in ["submit", *kinds]]

    def _operation(self, rng: random.Random, kind: str) -> Op:
        after_s = round(rng.choice((0.0, 0.01, 0.1, 1.0, 10.0, 100.0)) * rng.random(), 4)
        party, other = rng.sample(range(1, self.parties + 1), 2)
        number = rng.randrange(self.requests)
        if kind == "crash":
            place = rng.choice(("", WRITE, rng.choice(self.places)))
            times = rng.randint(1, 25) if place == WRITE else rng.choice((1, 1, 1, 2))
            return Op(after_s, kind, party, number=times if place else 0, place=place)
        if kind in ("cut", "heal"):
            return Op(after_s, kind, min(party, other), max(party, other))
        if kind == "clock":
            seconds = rng.choice((1, 60, 600, 86_400 * 40)) * rng.choice((-1, 1))
            return Op(after_s, kind, party, number=seconds)
        if kind == "weather":
            return Op(after_s, kind, place=rng.choice(WEATHERS))
        if kind == "lie":
            return Op(after_s, kind, party, place=rng.choice(LIES))
        if kind == "twice":
            return Op(after_s, kind, party, other, number)
        if kind == "full":
            return Op(after_s, kind, party, number=rng.randint(1, 20))
        if kind == "rollback":
            return Op(after_s, kind, party, number=rng.randint(1, 5))
        if kind == "wait":
            return Op(after_s + 30.0, kind)
        return (
            Op(after_s, kind, party)
            if kind in ("restart", "stop", "snapshot")
            else Op(after_s, kind, party, number=number)
        )


def shrink(ops: Sequence[Op], fails: Callable[[Sequence[Op]], bool]) -> list[Op]:
    """Return a failing list from which no operation can be left out; `ops` itself must fail."""
    best = list(ops)
    size = max(len(best) // 2, 1)
    while True:
        start, shortened = 0, False
        while start < len(best):
            attempt = best[:start] + best[start + size :]
            if fails(attempt):
                best, shortened = attempt, True
            else:
                start += size
        if size > 1:
            size //= 2
        elif not shortened:
            return best


@dataclass(frozen=True)
class Reproduction:
    """A run that once failed and has to pass for ever: what was wrong, the seed, and the operations."""

    why: str
    seed: int
    ops: tuple[Op, ...]

    def save(self, path: Path) -> None:
        """Write it to a JSON file, one operation a line."""
        lines = ",\n    ".join(json.dumps(list(op)) for op in self.ops)
        head = f'{{\n  "why": {json.dumps(self.why)},\n  "seed": {self.seed},\n  "ops": [\n    '
        path.write_text(f"{head}{lines}\n  ]\n}}\n")


def reproduction(path: Path) -> Reproduction:
    """Read a file that `Reproduction.save` wrote. Raises ValueError for anything else."""
    fields = json.loads(path.read_text())
    if set(fields) != {"why", "seed", "ops"} or not fields["why"]:
        raise ValueError(f"{path.name}: a reproduction has a reason, a seed and operations")
    return Reproduction(fields["why"], fields["seed"], tuple(Op(*op) for op in fields["ops"]))


def reproductions(folder: Path) -> dict[str, Reproduction]:
    """Return all reproductions of a folder by the names of their files."""
    return {path.stem: reproduction(path) for path in sorted(folder.glob("*.json"))}
