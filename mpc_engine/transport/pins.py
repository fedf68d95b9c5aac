"""Who is on the roster as one party sees it: whom it is connected with, and by which certificates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mpc_engine.errors import DocumentError
from mpc_engine.identity.certificates import Certificate, read_certificate
from mpc_engine.identity.folder import Identity
from mpc_engine.transport.endpoint import Endpoint, dialler_of


class Pins:
    """The roster from the place of party `me`; the first `computing` parties compute. Never changed.

    A certificate that has expired is still somebody's: TLS refuses it, and errors can say whose it was.
    Raises DocumentError for a roster with gaps, with a certificate that may not be pinned or that two
    parties share, with two parties of one name, whose entry for `me` is not `identity`, or that has two
    parties to be connected of which neither accepts, or no address where this party must dial.
    """

    def __init__(self, me: int, identity: Identity, endpoints: Sequence[Endpoint], *, computing: int) -> None:
        numbers = sorted(endpoint.number for endpoint in endpoints)
        if numbers != list(range(1, len(numbers) + 1)) or me not in numbers:
            raise DocumentError(f"the roster must number its parties 1, 2, 3, … and hold party {me}")
        if not 1 <= computing <= len(numbers):
            raise DocumentError(f"{computing} of the {len(numbers)} parties of the roster cannot compute")
        self.me = me
        self.identity = identity
        self.endpoints = {each.number: each for each in sorted(endpoints, key=lambda each: each.number)}
        self.peers = tuple(n for n in self.endpoints if n != me and min(n, me) <= computing)
        self.labels = {n: f"party {n} ({self.endpoints[n].name})" for n in self.endpoints}
        self.certificates = {n: tuple(self._read(n)) for n in self.endpoints}
        self._owners = self._find_owners()
        if self._owners.get(identity.certificate.fingerprint) != me:
            raise DocumentError(
                f"the roster has the certificate {self.certificates[me][0].fingerprint} for party {me}, "
                f"which is this party, but its identity is {identity.certificate.fingerprint}"
            )
        mine = self.endpoints[me]
        self.dialled = tuple(n for n in self.peers if dialler_of(mine, self.endpoints[n]) == me)
        """The peers that this party dials."""
        self.callers = tuple(n for n in self.peers if n not in self.dialled)
        """The peers that dial this party."""
        for n in self.dialled:
            if not self.endpoints[n].address:
                raise DocumentError(f"the roster has no address for {self.labels[n]}, whom this party dials")

    def caller(self, fingerprint: str) -> int | None:
        """Return which peer dials this party with the certificate of this fingerprint, None if none does."""
        number = self._owners.get(fingerprint)
        return number if number in self.callers else None

    def roots(self) -> bytes:
        """Return the certificates of all callers in PEM, for the server's handshake."""
        return b"".join(each.pem for n in self.callers for each in self.certificates[n])

    def check_successor(self, other: Pins) -> None:
        """Raise DocumentError unless `other` differs in nothing but certificates and addresses."""
        if (other.peers, other.dialled) != (self.peers, self.dialled) or other.labels != self.labels:
            raise DocumentError(
                "the parties of the roster, or who dials whom, have changed: the party must be restarted"
            )

    def _read(self, number: int) -> Iterator[Certificate]:
        endpoint = self.endpoints[number]
        where = f"roster, {self.labels[number]}"
        if not endpoint.certificates:
            raise DocumentError(f"{where}: no certificate is trusted")
        for pem in endpoint.certificates:
            yield read_certificate(pem, where=where, timely=False)

    def _find_owners(self) -> dict[str, int]:
        owners: dict[str, int] = {}
        names: dict[str, int] = {}
        for number, certificates in self.certificates.items():
            for each in certificates:
                other = owners.setdefault(each.fingerprint, number)
                namesake = names.setdefault(each.name, number)
                if other != number or namesake != number:
                    raise DocumentError(
                        f"roster: the parties {min(other, namesake)} and {number} have the same certificate "
                        "or name"
                    )
            if len({each.name for each in certificates}) > 1:
                raise DocumentError(f"roster: {self.labels[number]} has certificates of different names")
        return owners
