"""Engines that are broken on purpose: each takes back one promise, in the memory stage's own process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from hashlib import sha256
from typing import Any
from unittest import mock

import numpy as np

from mpc_engine.ledger import course
from mpc_engine.ledger.charge import Charge
from mpc_engine.protocols import coins, noise, opening, signs, threshold
from mpc_engine.release import execute
from mpc_engine.runtime.context import Context
from mpc_engine.sharing.shamir import opening_weights
from mpc_engine.sharing.shared import Shared
from mpc_engine.sharing.streams import StreamKey

Change = tuple[Any, str, Any]
"""An object, the name of its attribute, and what replaces it."""


def no_noise() -> list[Change]:
    """Everybody's share of the noise is zero."""

    async def finish(ctx: Any, factors: Any) -> Shared:
        drawn = await noise.finish_noise(ctx, factors)
        return Shared(drawn.field, np.zeros_like(drawn.values))

    return [(execute, "finish_noise", finish)]


def noise_known_to_one_party() -> list[Change]:
    """The sets of parties without party 1 bring zeros to every random bit, so that it knows all of them."""

    def known(right: Any) -> Any:
        def random_bits(keys: Any, parties: int, name: str, field: Any, rows: int, words: int) -> Any:
            # Keys of sets that party 1 is not in give zeros, as if their members had agreed on it.
            before = StreamKey.bits

            def bits(self: StreamKey, *given: Any) -> Any:
                drawn = before(self, *given)
                return drawn if "1" in self._label.removeprefix("set:").split("-") else np.zeros_like(drawn)

            with mock.patch.object(StreamKey, "bits", bits):
                return right(keys, parties, name, field, rows, words)

        return random_bits

    return [(module, "random_bits", known(module.random_bits)) for module in (coins, signs)]


def threshold_at_one_site() -> list[Change]:
    """The first silo withholds its own counts below five before they are added up."""
    right = execute._checked

    def checked(sums: Any, plan: Any, me: int) -> Any:
        found = right(sums, plan, me)
        if found is None or me != 1:
            return found
        return [np.where(each < 5, 0, each) for each in found]

    return [(execute, "_checked", checked)]


def budget_not_debited() -> list[Change]:
    """Every session costs nothing."""
    right = course.SessionWriting.reserve

    def reserve(self: Any, ticket: str, **given: Any) -> Any:
        return right(self, ticket, **given | {"charge": Charge(0)})

    return [(course.SessionWriting, "reserve", reserve)]


def no_zero_sharing() -> list[Change]:
    """Products are opened as they are: each party sends λ·z."""

    def bare(ctx: Any, field: Any, local: Any) -> Any:
        return field.combine([opening_weights(field, ctx.parties)[ctx.me - 1]], [local])

    return [(module, "zero_shared", bare) for module in (opening, threshold)]


def stream_used_twice() -> list[Change]:
    """The stream of the inputs bears the name of that of the dealt signs, and nobody minds."""
    right, fill = Context.stream, StreamKey._fill

    def stream(self: Context, purpose: str) -> str:
        shared = self.path in ("/input", "/noise/signs/deal")
        return f"{self.chunk}:{purpose}" if shared else right(self, purpose)

    def unguarded(self: StreamKey, name: str, out: Any) -> None:
        self._drawn.discard(sha256(name.encode()).digest()[:12])
        fill(self, name, out)

    return [(Context, "stream", stream), (StreamKey, "_fill", unguarded)]


@contextmanager
def broken(changes: list[Change]) -> Iterator[None]:
    """Run with an engine so changed."""
    with ExitStack() as stack:
        for owner, name, value in changes:
            stack.enter_context(mock.patch.object(owner, name, value))
        yield
