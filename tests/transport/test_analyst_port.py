"""The port of analysts: whose calls are answered, how, and what is refused with which code."""

from __future__ import annotations

import asyncio
import contextlib

import grpc
import grpc.aio
import pytest

from mpc_engine.errors import (
    DocumentError,
    EngineError,
    EngineMismatchError,
    PeerError,
    TooLargeError,
    UnknownCertificateError,
    catalogue,
)
from mpc_engine.identity import throwaway_identity
from mpc_engine.transport.analyst_channel import AnalystChannel
from mpc_engine.transport.analyst_methods import CHUNK_BYTES, METHODS, MOST_REQUEST_BYTES, SERVICE
from mpc_engine.transport.analyst_port import AnalystServer
from mpc_engine.transport.failures import error_info
from tests.transport.analysts import echo, failed, run, serving, someone

# --- answers ------------------------------------------------------------------------------------------


def test_the_handler_learns_who_called_what_and_its_answer_arrives_whole() -> None:
    async def main() -> None:
        async with serving() as port:
            answer = await port.channel().call("Status", b"abc", 10)
            assert answer == f"{someone('alice').fingerprint} Status abc".encode()
            other = await port.channel("bob").call("List", b"", 10)
            assert other == f"{someone('bob').fingerprint} List ".encode()

    run(main())


@pytest.mark.parametrize("size", [0, 1, CHUNK_BYTES, CHUNK_BYTES + 1, 20 * CHUNK_BYTES + 7])
def test_answers_come_in_parts_of_at_most_a_mebibyte(size: int) -> None:
    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        return bytes(size)

    async def main() -> None:
        async with serving(handle) as port:
            assert await port.channel().call("Result", b"", 30) == bytes(size)
            async with port.raw() as channel:
                sizes = [len(part) async for part in channel.unary_stream(METHODS["Result"].path)(b"")]
            assert all(part <= CHUNK_BYTES for part in sizes) and sum(sizes) == size

    run(main())


# --- who may call -------------------------------------------------------------------------------------


def test_whoever_is_not_enrolled_does_not_complete_the_handshake() -> None:
    async def main() -> None:
        async with serving() as port:
            with pytest.raises(UnknownCertificateError, match=f"refuses .* {someone('mallory').fingerprint}"):
                await port.channel("mallory", jitter=lambda most: 0.0).call("Status", b"", 10)
            async with grpc.aio.insecure_channel(port.address) as plain:
                error = await failed(plain.unary_stream(METHODS["Status"].path)(b"", timeout=10))
            assert error.code() is grpc.StatusCode.UNAVAILABLE

    run(main())


def test_a_revoked_analyst_is_refused_on_an_open_connection_and_on_a_new_one() -> None:
    async def main() -> None:
        async with serving() as port:
            held = port.channel()
            await held.call("Status", b"", 10)
            port.enrolled = [someone("bob")]
            port.server.reload()
            with pytest.raises(
                UnknownCertificateError, match=f"{someone('alice').fingerprint} is not enrolled"
            ):
                await held.call("Status", b"", 10)
            with pytest.raises(UnknownCertificateError, match="not enrolled there, not any more"):
                await port.channel(jitter=lambda most: 0.0).call("Status", b"", 10)
            await port.channel("bob").call("Status", b"", 10)
            port.enrolled.append(someone("mallory"))
            port.server.reload()
            await port.channel("mallory").call("Status", b"", 10)
            assert port.server.refused["CERT_UNKNOWN"] == 1

    run(main())


def test_an_answer_is_not_given_to_who_was_revoked_while_it_was_made() -> None:
    begun, go = asyncio.Event(), asyncio.Event()

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        begun.set()
        await go.wait()
        return b"secret"

    async def main() -> None:
        async with serving(handle) as port:
            call = asyncio.create_task(port.channel().call("Result", b"", 10))
            await begun.wait()
            port.enrolled = []
            port.server.reload()
            go.set()
            with pytest.raises(UnknownCertificateError):
                await call

    run(main())


def test_the_party_itself_is_no_analyst_although_its_certificate_is_a_root() -> None:
    async def main() -> None:
        async with serving() as port:
            with pytest.raises(UnknownCertificateError):
                await port.channel("uk").call("Status", b"", 10)

    run(main())


def test_a_party_with_another_certificate_than_its_cards_is_not_spoken_to() -> None:
    async def main() -> None:
        async with serving() as port:
            for name, words in (("uk", "shows another certificate"), ("us", "shows another certificate")):
                other = throwaway_identity(name)
                channel = AnalystChannel(
                    port.address, someone("alice"), other.certificate.pem, name, jitter=lambda most: 0.0
                )
                with pytest.raises(PeerError, match=words):
                    await channel.call("Status", b"", 10)
                await channel.close()
            assert not port.server.refused

    run(main())


def test_nobody_at_the_address_is_said_so() -> None:
    async def main() -> None:
        async with serving() as port:
            address = port.address
        for there in (address, "127.0.0.1:x"):
            channel = AnalystChannel(
                there, someone("alice"), someone("uk").certificate.pem, "uk", jitter=lambda most: 0.0
            )
            with pytest.raises(PeerError, match="cannot be reached"):
                await channel.call("Status", b"", 10)
            await channel.close()

    run(main())


def test_a_port_that_is_taken_is_refused() -> None:
    async def main() -> None:
        async with serving() as port:
            second = AnalystServer(port.address, someone("uk"), trusted=dict, handle=echo)
            with pytest.raises(DocumentError, match="cannot listen on"):
                await second.start()
            await second.stop(0)

    run(main())


# --- failures -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("cls", catalogue(), ids=lambda cls: cls.__name__)
def test_every_failure_of_the_catalogue_arrives_as_itself(cls: type[EngineError]) -> None:
    long = "δ is “too” large, " * 800

    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        raise cls("first line\nsecond line" if body == b"" else long)

    async def main() -> None:
        async with serving(handle) as port:
            async with port.raw() as channel:
                error = await failed(channel.unary_stream(METHODS["Cost"].path)(b""))
            assert error.code().name == cls.grpc_code
            info = error_info(error)
            assert info is not None and info["reason"] == cls.reason
            assert info["message"] == "first line\nsecond line" and info["next_step"]
            for body, words in ((b"", "first line\nsecond line"), (b"x", long[:500])):
                with pytest.raises(EngineError) as caught:
                    await port.channel(jitter=lambda most: 0.0).call("Withdraw", body, 10)
                expected = next(each for each in catalogue() if each.reason == cls.reason)
                assert type(caught.value) is expected
                assert words in str(caught.value) and str(caught.value).startswith("uk (")

    run(main())


def test_of_an_unforeseen_failure_only_its_class_is_told() -> None:
    async def handle(analyst: str, method: str, body: bytes) -> bytes:
        raise KeyError("canary-4711")

    async def main() -> None:
        async with serving(handle) as port:
            async with port.raw() as channel:
                error = await failed(channel.unary_stream(METHODS["Cost"].path)(b""))
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "KeyError" in str(error_info(error)) and "canary" not in repr(error)
            with pytest.raises(EngineError, match="KeyError"):
                await port.channel().call("Cost", b"", 10)

    run(main())


def test_what_grpc_refuses_by_itself_has_documented_codes() -> None:
    async def main() -> None:
        async with serving() as port:
            async with port.raw() as channel:
                huge = await failed(
                    channel.unary_stream(METHODS["Submit"].path)(bytes(MOST_REQUEST_BYTES + 1))
                )
                assert huge.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                giant = await failed(channel.unary_stream(METHODS["Submit"].path)(bytes(256 << 20)))
                assert giant.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                unknown = await failed(channel.unary_stream(f"/{SERVICE}/Drop")(b""))
                assert unknown.code() is grpc.StatusCode.UNIMPLEMENTED
                heads = (("x", "y" * 20_000),)
                much = await failed(channel.unary_stream(METHODS["Status"].path)(b"", metadata=heads))
                assert much.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
                many = channel.stream_stream(METHODS["Status"].path)(iter([b""] * 10_000))
                with contextlib.suppress(grpc.aio.AioRpcError):  # our own end, whose messages nobody read
                    assert len([part async for part in many]) == 1
                none = await failed(channel.stream_stream(METHODS["Status"].path)(iter(())))
                assert none.code() is grpc.StatusCode.INVALID_ARGUMENT
            async with port.raw() as channel:
                packed = channel.unary_stream(METHODS["Submit"].path)(
                    bytes(1 << 24), compression=grpc.Compression.Gzip
                )
                assert (await failed(packed)).code() in (
                    grpc.StatusCode.UNIMPLEMENTED,
                    grpc.StatusCode.RESOURCE_EXHAUSTED,
                )
            assert await port.channel("bob").call("Status", b"!", 10)
            with pytest.raises(TooLargeError, match="262,144"):
                await port.channel("bob").call("Submit", bytes(MOST_REQUEST_BYTES + 1), 10)

    run(main())


def test_another_engine_without_the_method_is_called_that() -> None:
    async def main() -> None:
        server = grpc.aio.server()
        me = someone("uk")
        port = server.add_secure_port(
            "127.0.0.1:0", grpc.ssl_server_credentials([(me.private_key_pem, me.certificate.pem)])
        )
        await server.start()
        channel = AnalystChannel(f"127.0.0.1:{port}", someone("alice"), me.certificate.pem, "uk")
        with pytest.raises(EngineMismatchError, match="does not know this method"):
            await channel.call("Cost", b"", 10)
        await channel.close()
        await server.stop(0)

    run(main())
