"""A computing party's outputs as bytes: what it stores when it commits, and sends again after a crash."""

from __future__ import annotations

from collections.abc import Sequence

from mpc_engine.errors import EngineError
from mpc_engine.field.mersenne import COUNTS
from mpc_engine.release.execute import Outputs
from mpc_engine.release.plan import Plan


def pack_outputs(plan: Plan, outputs: Sequence[Outputs]) -> bytes:
    """Return the outputs of all blocks, back to back in the order of the plan; their sizes follow from it."""
    parts = []
    for block, each in zip(plan.blocks, outputs, strict=True):
        if each.values is None:
            raise EngineError("an input-only silo has no outputs")
        parts.append(plan.lines[block.line].field.encode(each.values).tobytes())
        if each.product is not None:
            parts.append(COUNTS.encode(each.product).tobytes())
    return b"".join(parts)


def unpack_outputs(plan: Plan, packed: bytes) -> list[Outputs]:
    """Return what `pack_outputs` was given. Raises EngineError when the bytes are not this plan's."""
    outputs, content, start = [], memoryview(packed), 0
    for block in plan.blocks:
        line = plan.lines[block.line]
        fields = [line.field, COUNTS] if line.guard else [line.field]
        rows = []
        for field in fields:
            size = field.wire_bytes(1, block.cells)
            if start + size > len(content):
                raise EngineError("the stored outputs are shorter than their plan")
            rows.append(field.decode(content[start : start + size], 1, block.cells))
            start += size
        outputs.append(Outputs(rows[0], rows[1] if line.guard else None))
    if start != len(content):
        raise EngineError("the stored outputs are longer than their plan")
    return outputs
