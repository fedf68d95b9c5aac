"""What a peer may send in a session: control messages and shares that are none, at any round."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from mpc_engine.errors import ProtocolOrderError
from mpc_engine.harness import virtual_time
from mpc_engine.ledger.chain import Head
from mpc_engine.runtime.link import MessageKey, Section
from mpc_engine.runtime.mailbox import Mailbox
from mpc_engine.runtime.memory_lines import Faults
from mpc_engine.runtime.memory_switchboard import MemoryExchange
from mpc_engine.transport.channel import Channel
from mpc_engine.transport.control import Abort, Agree, Commit, KeyContribution, Pattern, Reserve, Signatures
from mpc_engine.transport.frames import Kind, cut, ending
from tests.party.household import Household, crosstab
from tests.robustness.hostile import Mutator
from tests.robustness.ordeal import REASONS, Ordeal

HEAD = Head(3, 32 * b"h")
VALID: dict[str, tuple[Callable[[bytes], Any], bytes]] = {
    "agree": (
        Agree.decode,
        Agree(
            "0.4.0",
            32 * b"n",
            {"plan": 64 * "a", "query": 64 * "b"},
            (KeyContribution((1, 2), 32 * b"k"), KeyContribution((1, 3), 32 * b"l")),
            5,
            "1.5",
            "f" * 32,
            16 * b"t",
            head=HEAD,
            witnessed={2: HEAD, 3: HEAD},
        ).encode(),
    ),
    "reserve": (Reserve.decode, Reserve(16 * b"s", 32 * b"c", (b"relayed",), HEAD, 64 * b"e").encode()),
    "commit": (Commit.decode, Commit(32 * b"o", 2, HEAD, 64 * b"s").encode()),
    "pattern": (Pattern.decode, Pattern(32 * b"p", (b"relayed",)).encode()),
    "signatures": (Signatures.decode, Signatures({1: 64 * b"s", 3: 64 * b"t"}).encode()),
    "abort": (Abort.decode, Abort("PEER_UNAVAILABLE", "gone \u202e", "party2", "agree").encode()),
}


@pytest.mark.parametrize("kind", sorted(VALID))
def test_control_messages_that_are_none(kind: str) -> None:
    """A message is read as it was meant to be written, to the last bit, or refused."""
    decode, valid = VALID[kind]
    mutator, outcomes = Mutator(4300), Counter[str]()
    for _ in range(300):
        content = mutator.data(valid)
        try:
            message = decode(content)
        except ProtocolOrderError:
            outcomes["refused"] += 1
        else:
            assert kind == "abort" or message.encode() == content
            outcomes["read"] += 1
    print(kind, dict(outcomes))
    assert outcomes["refused"] > 100


class _Script:
    """A stream on which frames come in, one after the other."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames = frames

    async def read(self) -> object:
        """Return the next frame, None at the end."""
        return self.frames.pop(0) if self.frames else None

    async def write(self, frame: bytes) -> None:
        """Do nothing."""

    async def done_writing(self) -> None:
        """Do nothing."""


def test_frames_that_are_none() -> None:
    """A session's stream never raises: it is read, or the session fails for a reason of the catalogue."""
    mutator, reasons = Mutator(4310), Counter[str]()
    keys = [
        MessageKey(0, Section.CONTROL, 0),
        MessageKey(0, Section.INPUT, 1),
        MessageKey(3, Section.TEST, 2),
    ]
    valid = [next(cut(bytes(16), 2, key, [mutator.rng.randbytes(40)])) for key in keys]
    valid += [ending(Kind.GOODBYE, 2), ending(Kind.ABORT, 2, Abort("DATA", "no").encode())]
    huge = bytearray(valid[0])
    huge[32:40] = (1 << 63).to_bytes(8, "little")
    valid.append(bytes(huge))

    async def main() -> None:
        for _ in range(400):
            box = Mailbox({2: "party 2"}, round_timeout_s=1, max_ahead_bytes=1 << 16)
            channel = Channel(1, 2, "party 2", box)
            choose = mutator.rng.choice
            frames = [choose((mutator.data(choose(valid)), choose(valid))) for _ in range(choose((1, 1, 3)))]
            await channel.run(_Script(frames))
            try:
                box.raise_failure()
                reasons["OK"] += 1
            except Exception as error:
                assert getattr(error, "reason", "") in REASONS, repr(error)
                reasons[error.reason] += 1  # type: ignore[attr-defined]

    virtual_time.run(main)
    print(dict(reasons))
    assert {"PROTOCOL_ORDER", "PEER_UNAVAILABLE", "PEER_ABORTED"} <= set(reasons)


class Spoiler(Faults):
    """Spoils some messages of the links, at random rounds."""

    def __init__(self, mutator: Mutator) -> None:
        self.mutator, self.waits = mutator, -1
        self.spoilt: list[MessageKey] = []

    def link_message(
        self, sender: int, receiver: int, key: MessageKey, session: bytes, content: bytes
    ) -> bytes:
        """Spoil the message that was waited for."""
        self.waits -= 1
        if self.waits:
            return content
        self.spoilt.append(key)
        choice = self.mutator.rng.randrange(4)
        if choice == 0 and len(content) >= 8:  # other shares, of the right form
            return self.mutator.rng.randbytes(len(content) // 8 * 8) + content[len(content) // 8 * 8 :]
        if choice == 1:
            return b"\xff" * len(content)
        return self.mutator.data(content)


@pytest.mark.parametrize("seed", [4401, 4402])
def test_sessions_with_spoilt_messages(seed: int) -> None:
    print(f"seed {seed}")
    mutator = Mutator(seed)
    spoiler = Spoiler(mutator)
    ends: Counter[str] = Counter()

    async def main() -> None:
        house = Household(computing=3)
        house.exchange = MemoryExchange(3, 3, faults=spoiler)
        async with house:
            ordeal = Ordeal(house, random.Random(seed))
            for number in range(30):
                spoiler.waits = mutator.rng.randrange(1, 140)
                request = await house.submit(crosstab("0.1", title=f"session {number}"), f"k{number}")
                async with asyncio.timeout(3600):
                    while not (status := await house.status(request.id)).final:
                        await asyncio.sleep(0.5)
                ends[status.reason or status.state] += 1
                ordeal.is_calm()
            spoiler.waits = -1
            await ordeal.serves_a_fresh_query()
            await asyncio.sleep(600)
            ordeal.is_sound()
        reasons = Counter(str(fields["reason"]) for _, _, fields in house.journal if "reason" in fields)
        print(dict(ends), dict(reasons), dict(Counter((k.section.name, k.round) for k in spoiler.spoilt)))
        assert set(ends) <= REASONS | {"RELEASED"}
        assert len(spoiler.spoilt) > 15 and len(set(spoiler.spoilt)) > 5

    virtual_time.run(main, random.Random(seed).shuffle)
