"""What a session leaves behind in memory once it is over: no share, no count."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from numpy.typing import NDArray

from mpc_engine.harness import virtual_time
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.sealing import SealedKeys
from mpc_engine.release import execute
from mpc_engine.release.execute import Computed, Execution, Outputs
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


def test_no_share_and_no_count_is_stored_in_the_clear(tmp_path: Path) -> None:
    """From the commit on the shares are on disk, but sealed; the key lies elsewhere, and goes in the end."""
    words: set[bytes] = set()
    compute = Execution.compute
    each = 777_001

    async def computed(self: Execution) -> Computed:
        result = await compute(self)
        for outputs in result.outputs:
            for array in (outputs.values, outputs.product):
                if array is not None:
                    words.update(int(value).to_bytes(8, "little") for value in array.ravel())
        return result

    async def main() -> None:
        house = Household()
        for number, identity in enumerate(house.identities, start=1):
            folder = tmp_path / identity.name
            folder.mkdir(mode=0o700)
            house.keys[number] = SealedKeys(folder / "keys")  # type: ignore[assignment]
            ledger = Ledger.open(folder, party=identity.name, clock=house.clock)
            party = house.build(number, ledger=ledger)
            if house.counters[number].each is not None:
                house.counters[number].each = each
            await party.start()
        held: list[dict[str, bytes]] = []
        while any(party.notices.known() is None for party in house.parties.values()):
            await asyncio.sleep(0.01)
        status = await house.submit(crosstab(by=("sex", "stage")))
        while not (status := await house.status(status.id)).final:
            found = files(tmp_path)
            if any("/keys/" in name for name in found) and len(held) < 5:
                held.append(found)
            await asyncio.sleep(0)
        assert status.ticket is not None
        await house.settled(status.ticket)
        await house.__aexit__()
        after = files(tmp_path)
        assert not any("/keys/" in name for name in after)
        assert len(words) > 20 and held
        keys = {content for found in held for name, content in found.items() if "/keys/" in name}
        assert keys
        for found in (*held, after):
            stored = {name: content for name, content in found.items() if "/keys/" not in name}
            for name, content in stored.items():
                assert not [word for word in words if len(set(word)) > 4 and word in content], name
                assert not [key for key in keys if key in content], name
                assert each.to_bytes(8, "little") not in content and str(each).encode() not in content
        for ledger in house.ledgers.values():
            ledger.close()

    with mock.patch.object(Execution, "compute", computed):
        virtual_time.run(main)


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
