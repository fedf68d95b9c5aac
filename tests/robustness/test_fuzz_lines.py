"""What a peer gone mad may say over its line, whatever the parties are doing."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any
from unittest import mock

import pytest

from mpc_engine.documents import canonical
from mpc_engine.errors import EngineError, ProtocolOrderError
from mpc_engine.harness import virtual_time
from mpc_engine.party.lines import DURABLE, KINDS, Told, read_frame
from mpc_engine.party.messages import publish_policy
from mpc_engine.party.submission import make_submission
from mpc_engine.transport.line import Heartbeat, Line
from mpc_engine.transport.standing import Standing
from tests.party.household import CODEBOOK, Household, crosstab
from tests.robustness.hostile import Mutator
from tests.robustness.ordeal import Ordeal, manual_at
from tests.robustness.test_fuzz_links import VALID

MESSAGES = 1_500
"""For each seed."""


class Peer:
    """Writes what a peer may say: well-formed but at the wrong time, or spoiled."""

    def __init__(self, ordeal: Ordeal, mutator: Mutator) -> None:
        self.ordeal, self.mutator, self.rng = ordeal, mutator, ordeal.rng
        house = ordeal.house
        self._bodies = [
            canonical(
                make_submission(
                    crosstab("0.1", title=f"passed {i}"), CODEBOOK.digest(), "wilms", f"p{i}", house.analyst
                ).model_dump(by_alias=True)
            ).decode()
            for i in range(3)
        ]
        self.notices = {n: party.notices.own().model_dump() for n, party in house.parties.items()}

    def say(self, sender: int, receiver: int) -> tuple[str, bytes]:
        """Return the kind and the bytes of a message from one party to another."""
        kind = self.rng.choice(tuple(KINDS))
        number = 0
        if kind in DURABLE:
            line = self.ordeal.house.ledgers[receiver].line(f"party{sender}")
            number = line.received + self.rng.choice((1, 1, 1, 0, 2, 10**6))
        message = {"kind": kind, "id": number, "body": self.body(kind, sender)}
        if self.rng.random() < 0.5:
            return kind, json.dumps(message).encode()
        return "spoiled", self.mutator.document(message)

    def body(self, kind: str, sender: int, least: bool = False) -> dict[str, Any]:
        """Return the body of a message; `least`: with the least of all numbers."""
        rng, ticket, request = self.rng, self.ordeal.ticket(), self.ordeal.request()
        party = f"party{rng.choice((sender, sender, 1, 2, 3, 9))}"
        row = self.ordeal.house.ledgers[sender].request(request)
        digest = 64 * "a" if row is None else row.digest
        reason = rng.choice(("", "POLICY_DENIED", "NO_SUCH_REASON", "INTERNAL", "BUDGET_EXCEEDED"))
        words = rng.choice(("", "because", "\x1b[31m" * 9, "x" * 4000))
        number = 0 if least else rng.choice((0, 1, 2, 5, 1000, 10**15, 2**53, 2**63 - 1, 10**30))
        match kind:
            case "hello":
                return {"received": number, "first": max(1, number)}
            case "ack":
                return {"upto": number}
            case "notice":
                return self._notice(sender) if rng.random() < 0.5 else self.notices[rng.choice((1, 2, 3))]
            case "request":
                return {"body": rng.choice((*self._bodies, words)), "received_from": party}
            case "opinion":
                verdict = rng.choice(("approved", "rejected", "returned"))
                fields = {
                    "request": request,
                    "party": party,
                    "verdict": verdict,
                    "reason": reason,
                    "digest": digest,
                }
                return fields | {"detail": words, "by": "eve"}
            case "settled":
                state = rng.choice(("APPROVED", "RELEASED", "RETURNED", "REJECTED", "WITHDRAWN"))
                fields = {"request": request, "state": state, "reason": reason or "DATA", "detail": words}
                return fields | {"ticket": rng.choice((None, ticket)), "digest": digest}
            case "begin":
                begin = {"request": request, "ticket": rng.choice((ticket, 32 * "b"))}
                return begin | {"question": 64 * "c", "digest": digest}
            case "declined":
                return {"ticket": ticket, "reason": reason, "detail": words}
            case "ask" | "stored":
                return {"ticket": ticket}
            case "told":
                state = rng.choice(("UNKNOWN", "ABORTED", "COMMITTED", "LOST", "RELEASED", "MADE"))
                signer = self.ordeal.house.identities[sender - 1].signing
                return Told.make(ticket, party, state, signer).model_dump()
            case "ask-debits":
                return {"after": rng.choice(("", ticket, "z" * 32))}
            case "debits":
                return {"after": "", "debits": [self._debit(ticket)], "more": rng.random() < 0.5}
            case "ask-release":
                return {"ticket": ticket, "offset": number}
            case "release-part":
                content = rng.choice(("", "AAAA", "====", "e30="))
                return {"ticket": ticket, "offset": number, "total": 1 + number % 2**28, "content": content}
            case _:
                return {"entries": number, "hash": 64 * "d", "tickets": 64 * "e"}

    def _notice(self, sender: int) -> dict[str, Any]:
        """Return what a peer says of itself, with nonsense in it, under its own signature."""
        policy = dict(self.notices[sender]["published"]["policy"])
        for key in self.rng.sample(sorted(policy), 2):
            policy[key] = self.mutator.value()
        policy["least_threshold"] = self.rng.choice(
            (True, -1, 0, 5, 2**31, 2**53 - 1, policy["least_threshold"])
        )
        try:
            signed = publish_policy(policy, self.ordeal.house.identities[sender - 1]).model_dump()
        except EngineError:
            signed = self.notices[sender]["published"]
        left = {self.rng.choice(("alice", "", "x" * 63)): {"micro_epsilon": -(10**15), "delta": None}}
        return self.notices[sender] | {"published": signed, "analysts": left}

    def _debit(self, ticket: str) -> dict[str, Any]:
        return {
            "ticket": ticket,
            "commit": self.rng.choice((64 * "ab", VALID["commit"][1].hex())),
            "plan": 64 * "e",
            "session_id": 32 * "f",
            "released": self.rng.random() < 0.5,
        }


@pytest.mark.parametrize("seed", [4201, 4202])
def test_a_peer_gone_mad(seed: int) -> None:
    print(f"seed {seed}")
    kinds: Counter[str] = Counter()

    async def main() -> None:
        async with Household(policies=manual_at(2)) as house:
            ordeal = Ordeal(house, random.Random(seed))
            peer = Peer(ordeal, Mutator(seed))
            asked = {
                "query": crosstab("1").digest_fields(),
                "codebook": CODEBOOK.digest(),
                "project": "wilms",
            }
            for kind in KINDS:  # what is well-formed is: the fields above are those of the messages
                number = 1 if kind in DURABLE else 0
                fields = {"kind": kind, "id": number, "body": peer.body(kind, 1, least=True)}
                read_frame(json.dumps(fields).encode(), "party1")
            mad = ordeal.rng.choice((1, 2, 3))
            for step in range(MESSAGES):
                if step % 15 == 0:
                    await ordeal.live()
                sender = mad if seed % 2 else ordeal.rng.choice((1, 2, 3))
                receiver = ordeal.rng.choice([n for n in (1, 2, 3) if n != sender])
                kind, content = peer.say(sender, receiver)
                kinds[kind] += 1
                house.parties[receiver].heard(sender, content)
                ordeal.is_calm()
                house.journal.clear()
                if ordeal.rng.random() < 0.1:  # what analysts and operators see of it
                    await ordeal.attempt(house.call(receiver, "Parties"))
                    await ordeal.attempt(house.call(receiver, "Cost", **asked))
                    for command in ("list", "show", "budget", "status"):
                        fields = {"id": ordeal.request(), "all": True}
                        await ordeal.attempt(house.parties[receiver].operator.handle(command, fields))
                if ordeal.rng.random() < 0.3:
                    await asyncio.sleep(ordeal.rng.choice((0, 0, 0.01, 1)))
            await ordeal.mend()
            await ordeal.serves_a_fresh_query()
            await asyncio.sleep(600)
            ordeal.is_sound()
            print(dict(kinds))
            assert len(kinds) == len(KINDS) + 1

    virtual_time.run(main, random.Random(seed).shuffle)


def test_a_wrong_greeting_sets_off_no_greetings_without_end() -> None:
    """Whoever is told that messages are missing which it has no more says from where it goes on."""

    async def main() -> None:
        async with asyncio.timeout(30), Household() as house:
            greetings = 0
            heard = house.parties[1].post.heard

            def counted(peer: int, content: bytes) -> None:
                nonlocal greetings
                greetings += b'"hello"' in content
                heard(peer, content)

            with mock.patch.object(house.parties[1].post, "heard", counted):
                mad = {"kind": "hello", "id": 0, "body": {"received": 10**6, "first": 1}}
                house.parties[1].heard(3, json.dumps(mad).encode())
                await house.until((await house.submit()).id, number=3)
            assert 1 <= greetings < 10

    asyncio.run(main())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("least_threshold", True),
        ("least_threshold", 0),
        ("least_threshold", 10**9),
        ("snapshot", "\x1b[2J"),
        ("engine", 5),
        ("engine", {"version": "1" * 41}),
        ("greatest_epsilon", "1/0"),
        ("greatest_epsilon", "1e999999999"),
    ],
)
def test_a_signed_policy_of_another_form_is_not_taken(key: str, value: object) -> None:
    async def main() -> None:
        async with Household() as house:
            before = house.parties[1].notices.of("party3")
            assert before is not None
            policy = before.published.policy | {key: value}
            signed = publish_policy(policy, house.identities[2])
            said = before.model_copy(update={"published": signed})
            message = {"kind": "notice", "id": 0, "body": said.model_dump()}
            house.parties[1].heard(3, json.dumps(message).encode())
            assert house.parties[1].notices.of("party3") == before
            assert ("line.refused", "PROTOCOL_ORDER") in [
                (event, fields.get("reason")) for _, event, fields in house.journal
            ]

    virtual_time.run(main)


def test_what_is_no_message_is_refused_in_one_way() -> None:
    """Everything that a line may carry is read, or refused as a breach of the protocol."""
    mutator, outcomes = Mutator(4210), Counter[str]()
    valid = {"kind": "declined", "id": 0, "body": {"ticket": 32 * "b", "reason": "DATA", "detail": "no"}}
    for _ in range(1_000):
        try:
            read_frame(mutator.document(valid), "party2")
            outcomes["read"] += 1
        except ProtocolOrderError as error:
            assert "party2 said something" in str(error)
            outcomes["refused"] += 1
    print(dict(outcomes))
    assert outcomes["refused"] > 800 and outcomes["read"] > 20


class _Script:
    """A stream on which frames come in, one after the other."""

    def __init__(self, frames: list[bytes]) -> None:
        self.frames, self.written = frames, 0

    async def read(self) -> object:
        """Return the next frame, None at the end."""
        return self.frames.pop(0) if self.frames else None

    async def write(self, frame: bytes) -> None:
        """Count."""
        self.written += 1

    async def done_writing(self) -> None:
        """Do nothing."""


def test_frames_of_a_line_that_are_none() -> None:
    """A line ends with words at the first frame that it does not know, whatever came before."""
    mutator, ends = Mutator(4220), Counter[str]()
    valid = [b"MPL\x01\0\0\0\0{}", b"MPL\x01\x01\0\0\0" + bytes(8), b"MPL\x01\x02\0\0\0" + bytes(16)]
    valid.append(b"MPL\x01\x03\0\0\0bye \xff\x1b[2J")

    async def main() -> None:
        clock = virtual_time.Clock(asyncio.get_running_loop())
        for _ in range(250):
            heard: list[bytes] = []
            frames = [mutator.data(mutator.rng.choice(valid)) for _ in range(4)]
            line = Line("party 2", Standing(clock), heard.append, clock=clock, heartbeat=Heartbeat())
            words = await line.run(_Script(frames))
            assert words.isprintable() and len(words) < 400
            ends[words if "party 2" in words else "other"] += 1

    virtual_time.run(main)
    print(dict(ends))
    assert ends["party 2 sent a frame of an unknown format on the line"] > 100
