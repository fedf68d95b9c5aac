"""What a session leaves behind in memory and on disk: no share and no count in the clear."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from mpc_engine.harness import virtual_time
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.sealing import KEY_BYTES, NONCE_BYTES, SealedKeys, Sealing
from mpc_engine.party import record
from mpc_engine.release import execute
from mpc_engine.release.execute import Computed, Execution, Outputs
from mpc_engine.release.outputs import pack_outputs
from mpc_engine.release.plan import Plan
from tests.party.household import Household, crosstab
from tests.robustness.canaries import files


@contextmanager
def traced() -> Iterator[list[weakref.ref[NDArray[Any]]]]:
    """Keep weak references to every count that a session is given and every share that it computes."""
    seen: list[weakref.ref[NDArray[Any]]] = []
    init, compute = Execution.__init__, Execution.compute

    def begun(self: Execution, *args: Any, **more: Any) -> None:
        init(self, *args, **more)
        seen.extend(weakref.ref(each) for each in self._sums or () if isinstance(each, np.ndarray))

    async def computed(self: Execution) -> Computed:
        result = await compute(self)
        for outputs in result.outputs:
            arrays = (outputs.values, outputs.product)
            seen.extend(weakref.ref(each) for each in arrays if each is not None)
        return result

    with mock.patch.object(Execution, "__init__", begun), mock.patch.object(Execution, "compute", computed):
        yield seen


def _alive(seen: list[weakref.ref[NDArray[Any]]]) -> int:
    gc.collect()
    return sum(each() is not None for each in seen)


@pytest.mark.parametrize("ending", ["released", "aborted", "stopped"])
def test_no_array_of_a_session_outlives_it(ending: str) -> None:
    async def main() -> None:
        with traced() as seen:
            async with Household() as house:
                status = await house.submit(crosstab(by=("sex", "stage")))
                if ending == "released":
                    done = await house.until(status.id)
                    assert done.ticket is not None
                    await house.settled(done.ticket)
                elif ending == "aborted":
                    while not seen:
                        await asyncio.sleep(0)
                    await house.call(1, "Withdraw", id=status.id)
                    await house.until(status.id, "WITHDRAWN")
                else:
                    while not seen:
                        await asyncio.sleep(0)
                    await house.parties[2].stop(0.1)
                await asyncio.sleep(5)
                kept = _alive(seen) if ending != "stopped" else 0
                assert kept == 0, f"{kept} of {len(seen)} arrays are still there"
            assert len(seen) >= (5 if ending == "released" else 1)
            assert _alive(seen) == 0

    virtual_time.run(main)


COUNT = 777_001
"""What every silo brings to every cell."""
_WORD = 8


@dataclass
class Stored:
    """What lay on the disks of three parties: while keys were there, and after all was over."""

    arrays: list[NDArray[Any]] = field(default_factory=list)
    """Every share that was computed, as it lay in memory."""
    packed: list[bytes] = field(default_factory=list)
    """The shares of each party as they are stored, before they are sealed."""
    held: list[dict[str, bytes]] = field(default_factory=list)
    after: dict[str, bytes] = field(default_factory=dict)

    @property
    def keys(self) -> set[bytes]:
        """All keys that were seen."""
        return {content for found in self.held for name, content in found.items() if "/keys/" in name}

    @property
    def outside(self) -> list[tuple[str, bytes]]:
        """All files at all times but for the keys."""
        found = (*self.held, self.after)
        return [(name, content) for each in found for name, content in each.items() if "/keys/" not in name]


def windows(content: bytes) -> set[bytes]:
    """Return every eight bytes in a row, but for those that may be anywhere: they have few different ones."""
    found = {content[start : start + _WORD] for start in range(len(content) - _WORD + 1)}
    return {word for word in found if len(set(word)) > 4}


def stored_by_three(folder: Path) -> Stored:
    """Have three parties answer a question, each with a folder of its own, and keep what they store."""
    stored, compute, pack = Stored(), Execution.compute, pack_outputs

    async def computed(self: Execution) -> Computed:
        result = await compute(self)
        arrays = [array for outputs in result.outputs for array in (outputs.values, outputs.product)]
        stored.arrays += [array.copy() for array in arrays if array is not None]
        return result

    def packing(plan: Plan, outputs: Sequence[Outputs]) -> bytes:
        stored.packed.append(pack(plan, outputs))
        return stored.packed[-1]

    async def main() -> None:
        house = Household()
        for number, identity in enumerate(house.identities, start=1):
            own = folder / identity.name
            own.mkdir(mode=0o700)
            house.keys[number] = SealedKeys(own / "keys")  # type: ignore[assignment]
            ledger = Ledger.open(own, party=identity.name, clock=house.clock)
            party = house.build(number, ledger=ledger)
            if house.counters[number].each is not None:
                house.counters[number].each = COUNT
            await party.start()
        while any(party.notices.known() is None for party in house.parties.values()):
            await asyncio.sleep(0.01)
        status = await house.submit(crosstab(by=("sex", "stage")))
        looks: Counter[int] = Counter()
        while not (status := await house.status(status.id)).final:
            keys = len(list(folder.glob("*/keys/*")))
            if keys and looks[keys] < 3:  # as one, two and three parties have committed
                looks[keys] += 1
                stored.held.append(files(folder))
            await asyncio.sleep(0)
        assert status.ticket is not None
        await house.settled(status.ticket)
        await house.__aexit__()
        stored.after = files(folder)
        for ledger in house.ledgers.values():
            ledger.close()

    with (
        mock.patch.object(Execution, "compute", computed),
        mock.patch.object(record, "pack_outputs", packing),
    ):
        virtual_time.run(main)
    return stored


def test_no_share_and_no_count_is_stored_in_the_clear(tmp_path: Path) -> None:
    """From the commit on the shares are on disk, but sealed; the key lies elsewhere, and goes in the end."""
    stored = stored_by_three(tmp_path)
    assert not any("/keys/" in name for name in stored.after)
    assert len(stored.packed) == len(stored.keys) == 3
    in_memory = [int(value).to_bytes(_WORD, "little") for each in stored.arrays for value in each.ravel()]
    words = {word for word in in_memory if len(set(word)) > 4}
    packed = {window for content in stored.packed for window in windows(content)}
    assert len(words) > 20 and len(packed) > 60
    for name, content in stored.outside:
        assert not [word for word in words | packed if word in content], name
        assert not [key for key in stored.keys if key in content], name
        assert COUNT.to_bytes(_WORD, "little") not in content and str(COUNT).encode() not in content, name


def test_shares_that_are_not_sealed_would_be_found(tmp_path: Path) -> None:
    """The test above fails if what is called sealed is what was to be sealed."""

    def seal(self: Sealing, ticket: str, content: bytes) -> bytes:
        self._put(ticket, bytes(KEY_BYTES))
        return bytes(NONCE_BYTES) + content + bytes(16)

    def unseal(self: Sealing, ticket: str, sealed: bytes) -> bytes:
        return sealed[NONCE_BYTES:-16]

    with mock.patch.object(Sealing, "seal", seal), mock.patch.object(Sealing, "unseal", unseal):
        stored = stored_by_three(tmp_path)
    assert len(stored.packed) == 3
    for content in stored.packed:
        sought = windows(content)
        assert sought
        assert any(all(word in found for word in sought) for _, found in stored.outside)


def test_the_trace_can_find_what_is_kept() -> None:
    """The test above fails if somebody keeps a session's outputs."""

    async def main() -> None:
        kept: list[Outputs] = []
        made = execute.Outputs

        def keeping(*args: Any) -> Outputs:
            kept.append(made(*args))
            return kept[-1]

        with traced() as seen, mock.patch.object(execute, "Outputs", keeping):
            async with Household() as house:
                await house.until((await house.submit()).id)
            assert _alive(seen) > 0

    virtual_time.run(main)
