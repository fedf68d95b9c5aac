"""What `party doctor` asks of one peer, step by step, so that the step that fails is the answer.

The last steps open a line for a moment. It says that it is only tried, so that the line of this party's
running service, if there is one, does not give way to it.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

import grpc
import grpc.aio

from mpc_engine.errors import DocumentError
from mpc_engine.identity.certificates import Certificate, Clock, read_certificate, utc_now
from mpc_engine.identity.folder import Identity
from mpc_engine.transport.dial import (
    PROBE_S,
    Call,
    Dialler,
    UnreachableError,
    accepted,
    offered_certificate,
    split_address,
)
from mpc_engine.transport.endpoint import Endpoint
from mpc_engine.transport.line import Heartbeat, Line
from mpc_engine.transport.options import LINE_METHOD, PROBE_KEY, PROTOCOL_VERSION, VERSION_KEY
from mpc_engine.transport.standing import Standing

WARN_SKEW_S = 5.0
"""Clocks that differ by more are worth a warning: requests and signatures carry times."""


@dataclass(frozen=True)
class Step:
    """One step: its name, whether it went well, what was found, and what to do if it did not."""

    name: str
    ok: bool
    words: str
    advice: str = ""


async def probe(
    identity: Identity, peer: Endpoint, *, dials: bool = True, clock: Clock = utc_now
) -> list[Step]:
    """Try to reach `peer` as `identity` and return each step taken; after a failed one no other follows.

    The steps are: address, name, tcp, tls, certificate, admission, protocol, round trip, clock. Of a peer
    that dials this party (not `dials`) only the first five can be tried, and none if it accepts nobody. Each
    wait is at most five seconds. Never raises for what it finds.
    """
    if not dials and not (peer.accepts and peer.address):
        return [Step("admission", True, _DIALS_ITSELF)]
    return [step async for step in _Probe(identity, peer, clock).steps(dials)]


_DIALS_ITSELF = "this peer dials this party: whether it gets through is seen here when it is connected"


class _Probe:
    """One run of the steps."""

    def __init__(self, identity: Identity, peer: Endpoint, clock: Clock) -> None:
        self._identity = identity
        self._peer = peer
        self._clock = clock

    async def steps(self, dials: bool) -> AsyncIterator[Step]:
        """Yield each step as it is taken, ending with the first that fails."""
        for part in (self._reach, self._recognise, self._enter if dials else self._stay_out):
            async for step in part():
                yield step
                if not step.ok:
                    return

    async def _reach(self) -> AsyncIterator[Step]:
        address = self._peer.address
        try:
            host, port = split_address(address)
        except UnreachableError as error:
            advice = "Correct the address in the roster or on the peer's card: a host, a colon and a port."
            yield Step("address", False, f"the peer {error}", advice)
            return
        yield Step("address", True, f"{address} is an address")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(PROBE_S):
                found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, TimeoutError):
            advice = "Ask the peer for its address, and try the name with this machine's own tools."
            yield Step("name", False, f"no network address is known for {host}", advice)
            return
        numbers = ", ".join(sorted({str(entry[4][0]) for entry in found}))
        yield Step("name", True, f"{host} is {numbers}")
        try:
            async with asyncio.timeout(PROBE_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            silent = isinstance(error, TimeoutError)
            words = "nothing answers" if silent else "the connection is refused"
            advice = (
                "A firewall on the way drops the packets: have the port opened for this machine."
                if silent
                else "Have the peer start its party, and compare the port with its configuration."
            )
            yield Step("tcp", False, f"{words} at {address}", advice)
            return
        writer.transport.abort()
        yield Step("tcp", True, f"something listens at {address}")

    async def _recognise(self) -> AsyncIterator[Step]:
        try:
            pinned = [
                read_certificate(pem, where="the trusted certificate", timely=False)
                for pem in self._peer.certificates
            ]
        except DocumentError as error:
            yield Step("tls", False, str(error), "Add the peer's card again.")
            return
        if not pinned:
            yield Step("tls", False, "no certificate is trusted for this peer", "Add the peer's card.")
            return
        try:
            offered = await offered_certificate(self._peer.address, pinned[0].name)
        except UnreachableError as error:
            advice = "Something else than a party listens there, or a device on the way takes TLS apart."
            yield Step("tls", False, f"the peer {error}", advice)
            return
        yield Step("tls", True, f"the certificate {offered.fingerprint} is offered")
        yield self._judge(offered, pinned)

    def _judge(self, offered: Certificate, pinned: Sequence[Certificate]) -> Step:
        trusted = ", ".join(each.fingerprint for each in pinned)
        if offered.fingerprint not in {each.fingerprint for each in pinned}:
            advice = (
                "If the peer has renewed its certificate, add its new card after comparing the fingerprint "
                "by telephone. If not, somebody else answers there: add nothing."
            )
            words = f"offered is {offered.fingerprint}, trusted is {trusted}"
            return Step("certificate", False, words, advice)
        if offered.not_after <= self._clock():
            words = f"the peer's certificate expired at {offered.not_after:%Y-%m-%d %H:%M} UTC"
            return Step("certificate", False, words, "Have the peer renew it with `mpc-engine party rotate`.")
        return Step("certificate", True, f"it is trusted, until {offered.not_after:%Y-%m-%d}")

    async def _stay_out(self) -> AsyncIterator[Step]:
        yield Step("admission", True, _DIALS_ITSELF)

    async def _enter(self) -> AsyncIterator[Step]:
        pinned = [read_certificate(pem, where="", timely=False) for pem in self._peer.certificates]
        label = f"party {self._peer.number} ({self._peer.name})"
        dialler = Dialler(self._identity, pinned, self._peer.address, label, self._clock)
        async with dialler.channel() as channel:
            metadata = grpc.aio.Metadata((VERSION_KEY, PROTOCOL_VERSION), (PROBE_KEY, "1"))
            call: Call = channel.stream_stream(LINE_METHOD)(metadata=metadata)
            try:
                async with asyncio.timeout(PROBE_S):
                    refusal = await accepted(call)
            except TimeoutError:
                advice = "The process there hangs, or is no party: have it restarted."
                yield Step("admission", False, "the peer does not answer a call", advice)
                return
            if refusal is not None and refusal.code is not grpc.StatusCode.FAILED_PRECONDITION:
                if refusal.code is grpc.StatusCode.UNAVAILABLE and not refusal.reason:
                    words = f"the peer does not accept this party's certificate {self._identity.fingerprint}"
                    advice = (
                        "Have the peer add this party's card, and compare who dials whom: a party "
                        "is accepted only by those whom it is to dial."
                    )
                else:
                    words, advice = (
                        f"the peer refuses: {refusal.words}",
                        "Try again; ask the peer if it stays.",
                    )
                yield Step("admission", False, words, advice)
                return
            yield Step("admission", True, "the peer accepts this party's certificate")
            if refusal is not None:
                advice = "Install the same version of the engine at all parties."
                yield Step("protocol", False, f"the peer refuses: {refusal.words}", advice)
                return
            yield Step("protocol", True, f"the peer speaks version {PROTOCOL_VERSION} of the peer protocol")
            async for step in self._measure(call, label):
                yield step

    async def _measure(self, call: Call, label: str) -> AsyncIterator[Step]:
        standing = Standing(self._clock)
        line = Line(label, standing, lambda _: None, clock=self._clock, heartbeat=Heartbeat(PROBE_S, PROBE_S))
        running = asyncio.create_task(line.run(call))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PROBE_S
        while standing.rtt_s is None and not running.done() and loop.time() < deadline:
            await asyncio.sleep(0.005)
        line.bye("the connection was only tried")
        await running
        if standing.rtt_s is None or standing.clock_skew_s is None:
            advice = "The process there hangs or is overloaded: have its log looked at."
            yield Step("round trip", False, "the peer answers no heartbeat", advice)
            return
        yield Step("round trip", True, f"{standing.rtt_s * 1000:.1f} ms")
        skew = standing.clock_skew_s
        way = "ahead of" if skew > 0 else "behind"
        advice = "Have both machines set their clocks by the network (NTP)."
        ok = abs(skew) <= WARN_SKEW_S
        yield Step(
            "clock", ok, f"the peer's clock is {abs(skew):.1f} s {way} this one's", "" if ok else advice
        )
