"""Nonsense over real sockets: the port of analysts, and the operator's socket."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import grpc
import grpc.aio

from mpc_engine.documents import canonical
from mpc_engine.errors import catalogue
from mpc_engine.party.control import COMMANDS, MAX_COMMAND_BYTES, ControlServer
from mpc_engine.party.submission import make_submission
from mpc_engine.transport.analyst_methods import CALL_OPTIONS, MOST_REQUEST_BYTES, SERVICE
from mpc_engine.transport.analyst_port import AnalystServer
from mpc_engine.transport.failures import error_info
from tests.party.household import CODEBOOK, Household, crosstab
from tests.robustness.hostile import Mutator
from tests.robustness.ordeal import REASONS, Ordeal, check_words, manual_at

CODES = {cls.grpc_code for cls in catalogue()} - {"INTERNAL"} | {"UNIMPLEMENTED"}
METHODS = ("Submit", "Status", "List", "Withdraw", "Result", "Cost", "Policy", "Parties", "Reset", "")


def test_nonsense_over_grpc() -> None:
    seed = 4501
    print(f"seed {seed}")
    codes: Counter[str] = Counter()

    async def main() -> None:
        async with Household(policies=manual_at(2)) as house:
            ordeal, mutator = Ordeal(house, random.Random(seed)), Mutator(seed)
            analyst, me = house.analyst, house.identities[0]
            submission = make_submission(crosstab("0.1"), CODEBOOK.digest(), "wilms", "wire", analyst)
            valid = {
                "Submit": submission.model_dump(by_alias=True),
                "Cost": {"query": submission.query, "codebook": submission.codebook, "project": "wilms"},
                "Policy": {"party": "party2"},
            }
            server = AnalystServer(
                "127.0.0.1:0",
                me,
                trusted=lambda: {analyst.fingerprint: analyst.certificate.pem},
                handle=house.parties[1].answers.answer,
                burst=1_000_000,
            )
            port = await server.start()
            credentials = grpc.ssl_channel_credentials(
                me.certificate.pem, analyst.private_key_pem, analyst.certificate.pem
            )
            options = [*CALL_OPTIONS, ("grpc.ssl_target_name_override", me.name)]
            options += [("grpc.max_send_message_length", 1 << 24)]
            async with grpc.aio.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
                for step in range(500):
                    if step % 50 == 0:
                        await ordeal.live()
                    method = ordeal.rng.choice(METHODS)
                    fields = valid.get(method, {"id": ordeal.request()} if "L" not in method else {})
                    body = mutator.document(fields) if ordeal.rng.random() < 0.6 else canonical(fields)
                    if ordeal.rng.random() < 0.02:
                        body = bytes(MOST_REQUEST_BYTES + 1)
                    codes[await _code(channel, method, body, ordeal)] += 1
            await server.stop(0)
            await ordeal.serves_a_fresh_query()
            ordeal.is_sound(quiet=False)

    asyncio.run(main())
    print(dict(codes))
    assert set(codes) <= CODES | {"OK"}, codes
    wanted = {
        "OK",
        "INVALID_ARGUMENT",
        "NOT_FOUND",
        "FAILED_PRECONDITION",
        "UNIMPLEMENTED",
        "RESOURCE_EXHAUSTED",
    }
    assert wanted <= set(codes)


async def _code(channel: grpc.aio.Channel, method: str, body: bytes, ordeal: Ordeal) -> str:
    """Return the code of a call, after checking what it says."""
    try:
        async for _ in channel.unary_stream(f"/{SERVICE}/{method}")(body, timeout=20):
            pass
    except grpc.aio.AioRpcError as error:
        check_words(error.details() or "")
        info = error_info(error)
        if info is not None:
            assert info["reason"] in REASONS
            ordeal.seen[info["reason"]] += 1
        return str(error.code().name)
    return "OK"


def test_nonsense_from_the_operators_socket(tmp_path: Path) -> None:
    seed = 4601
    print(f"seed {seed}")
    reasons: Counter[str] = Counter()

    async def main() -> None:
        async with Household(policies=manual_at(2)) as house:
            ordeal, mutator = Ordeal(house, random.Random(seed)), Mutator(seed)
            path = tmp_path / "control.sock"
            commands = [each for each in sorted(COMMANDS) if each != "recover"]
            async with ControlServer(path, house.parties[2].operator.handle):
                for step in range(1_200):
                    if step % 60 == 0:
                        await ordeal.live()
                        await asyncio.sleep(0.01)
                    fields: dict[str, Any] = {"id": ordeal.request()[: ordeal.rng.choice((3, 8, 32))]}
                    fields |= {"operator": "bob", "reason": "no", "all": ordeal.rng.random() < 0.5}
                    message = {"command": ordeal.rng.choice(commands), "fields": fields}
                    line = json.dumps(message).encode()
                    if ordeal.rng.random() < 0.7:
                        line = mutator.document(message)
                    if ordeal.rng.random() < 0.01:
                        line += b" " * MAX_COMMAND_BYTES
                    reasons[await _asked(path, line.replace(b"\n", b" "), ordeal.rng)] += 1
                message = {"command": "recover", "fields": {}}
                reasons[await _asked(path, json.dumps(message).encode(), None)] += 1
            await ordeal.serves_a_fresh_query()
            ordeal.is_sound(quiet=False)

    asyncio.run(main())
    print(dict(reasons))
    assert set(reasons) <= REASONS | {"OK", "no answer"}, reasons
    assert {"OK", "DOCUMENT", "UNKNOWN_REQUEST", "REQUEST_STATE", "TOO_LARGE"} <= set(reasons)


async def _asked(path: Path, line: bytes, rng: random.Random | None) -> str:
    """Return the reason of a failure, OK for an answer; rarely the caller goes away before."""
    reader, writer = await asyncio.open_unix_connection(str(path), limit=1 << 24)
    try:
        whole = rng is None or rng.random() < 0.97
        writer.write(line + b"\n" if whole else line[: len(line) // 2])
        if not whole:
            writer.write_eof()
        answer = await asyncio.wait_for(reader.readline(), 20)
    except ConnectionError:
        return "no answer"
    finally:
        writer.close()
    if not answer:
        return "no answer"
    said = json.loads(answer)
    if "answer" in said:
        return "OK"
    check_words(said["error"]["message"])
    return str(said["error"]["reason"])
