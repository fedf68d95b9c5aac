"""The request as an analyst submits it: a question signed with the analyst's own key.

The signature lets a party show the others who asked.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from functools import cached_property
from typing import Any, Final, Literal

from mpc_engine.documents import Document, canonical, digest, parse
from mpc_engine.errors import DocumentError
from mpc_engine.identity.cards import Card
from mpc_engine.identity.certificates import utc_now
from mpc_engine.identity.folder import Identity
from mpc_engine.identity.signing import verify
from mpc_engine.party.messages import Digest, Key, Project, Signature, Time, timestamp
from mpc_engine.statistics.presets import parse_query
from mpc_engine.statistics.query import Query

REQUEST_FORMAT: Final = "mpc-engine/request/1"
REQUEST_PURPOSE: Final = "request"
"""What the signature of a request is for."""


class Submission(Document):
    """A request as the analyst signed it: a question about the records of a project, under a key.

    The key is the analyst's own: a second submission with it finds the first and does nothing.
    """

    format: Literal["mpc-engine/request/1"] = REQUEST_FORMAT
    query: dict[str, Any]
    codebook: Digest
    project: Project
    key: Key
    analyst: Card
    made: Time
    signature: Signature

    @property
    def request_id(self) -> str:
        """The id of the request, 32 hexadecimal digits, the same at every party."""
        return request_id(self.analyst.fingerprint, self.key)

    @property
    def digest(self) -> str:
        """SHA-256 over what must be equal under one key: query, codebook and project."""
        return question_digest(self.query, self.codebook, self.project)

    def asked(self) -> Query:
        """Return the query. Raises DocumentError naming the key that breaks a rule."""
        return self._parsed

    @cached_property
    def _parsed(self) -> Query:
        query = parse_query(self.query, "query")
        if canonical(query.digest_fields()) != canonical(self.query):
            raise DocumentError("query: is not in the form in which parties compare queries")
        return query

    def verify(self, now: datetime | None = None) -> None:
        """Check card and signature, and at ``now``, if given, that the card has not expired.

        Raises DocumentError. That the card is enrolled is for the party to know.
        """
        self.analyst.verify(now)
        if self.analyst.role != "analyst":
            raise DocumentError("analyst.role: requests are made by analysts, and this card is a party's")
        content = canonical(self.model_dump(by_alias=True, exclude={"signature"}))
        if not verify(self.analyst.public_key, REQUEST_PURPOSE, content, bytes.fromhex(self.signature)):
            raise DocumentError(
                "signature: does not fit the request: it was changed, or another key signed it"
            )


def request_id(analyst: str, key: str) -> str:
    """Return the id of the request that the analyst with this card's fingerprint makes under ``key``."""
    return hashlib.sha256(f"mpc-engine/request-id/1\0{analyst}\0{key}".encode()).hexdigest()[:32]


def question_digest(query: Mapping[str, Any], codebook: str, project: str) -> str:
    """Return the SHA-256, in hexadecimal, over all that makes two requests the same question."""
    return digest({"query": query, "codebook": codebook, "project": project})


def make_submission(
    query: Query,
    codebook: str,
    project: str,
    key: str,
    identity: Identity,
    clock: Callable[[], datetime] = utc_now,
) -> Submission:
    """Return a signed request; ``codebook`` is its digest.

    Raises DocumentError for an unusable key or project, and a question too large to be sent.
    """
    fields: dict[str, Any] = {
        "format": REQUEST_FORMAT,
        "query": query.digest_fields(),
        "codebook": codebook,
        "project": project,
        "key": key,
        "analyst": identity.card.model_dump(by_alias=True),
        "made": timestamp(clock()),
    }
    signature = identity.signing.sign(REQUEST_PURPOSE, canonical(fields)).hex()
    made = parse(fields | {"signature": signature}, Submission, "request")
    made.verify()
    return made
