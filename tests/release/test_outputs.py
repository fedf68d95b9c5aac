"""What a party stores at its commit comes back as it was."""

from __future__ import annotations

import numpy as np
import pytest

from mpc_engine.errors import EngineError
from mpc_engine.release.execute import Outputs
from mpc_engine.release.groups import Groups
from mpc_engine.release.outputs import pack_outputs, unpack_outputs
from tests.world import proposal, tally


def _plan(cells: int):
    groups = (Groups("strata", tally("size", cells), (tally("sum", cells, 3, step=1 << 20, signed=True),)),)
    return proposal(groups, [True, True, False], 3).plan()


@pytest.mark.parametrize("cells", [1, 65, 70_000])
def test_outputs_come_back_as_they_were(cells: int) -> None:
    plan, rng = _plan(cells), np.random.default_rng(cells)
    outputs = []
    for block in plan.blocks:
        line = plan.lines[block.line]
        values = rng.integers(0, line.field.p, (1, block.cells), dtype=np.uint64)
        product = rng.integers(0, (1 << 31) - 1, (1, block.cells), dtype=np.uint64) if line.guard else None
        outputs.append(Outputs(values, product))
    packed = pack_outputs(plan, outputs)
    for before, after in zip(outputs, unpack_outputs(plan, packed), strict=True):
        np.testing.assert_array_equal(before.values, after.values)
        if before.product is None:
            assert after.product is None
        else:
            np.testing.assert_array_equal(before.product, after.product)
    for wrong in (packed[:-1], packed + b"\0", b""):
        with pytest.raises(EngineError, match="stored outputs"):
            unpack_outputs(plan, wrong)


def test_an_input_only_silo_stores_no_outputs() -> None:
    plan = _plan(1)
    with pytest.raises(EngineError, match="no outputs"):
        pack_outputs(plan, [Outputs(None, None) for _ in plan.blocks])
