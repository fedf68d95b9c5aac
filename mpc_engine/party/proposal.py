"""What a party proposes to run: the query, codebook and roster as it holds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from mpc_engine.codebook import Codebook
from mpc_engine.documents import digest
from mpc_engine.dp.accounting import Rule, guarantee_for
from mpc_engine.release.groups import Groups, parts_of
from mpc_engine.release.plan import Member, Plan
from mpc_engine.sharing.shamir import degree_for
from mpc_engine.statistics.query import Query


@dataclass(frozen=True)
class Proposal:
    """A query on a roster, before the parties have agreed.

    Attributes:
        groups: what is to be released.
        query_fields: the query as plain fields.
        epsilon, delta: as exact fractions; delta is None unless the rule is strict.
        rule, threshold, cap: as the query asks; the agreed threshold may be larger.
        members: the roster in order of the parties' numbers, computing parties first.
        digests: digest of each thing that must be equal everywhere, by the name people know it by.
    """

    groups: tuple[Groups, ...]
    query_fields: Mapping[str, object]
    epsilon: Fraction
    epsilon_text: str
    delta: Fraction | None
    rule: Rule
    threshold: int
    cap: int
    members: tuple[Member, ...]
    digests: Mapping[str, str]

    @property
    def computing(self) -> int:
        """Number n of computing parties."""
        return sum(member.computing for member in self.members)

    def plan(self, threshold: int | None = None) -> Plan:
        """Return the plan at a threshold k, by default the query's.

        Raises DocumentError when the noise or the small-cell test would be out of bounds.
        """
        k = self.threshold if threshold is None else threshold
        guarantee = guarantee_for(self.epsilon, parts_of(self.groups), self.rule, k, self.cap, self.delta)
        return Plan(self.groups, guarantee, self.members, self.digests)


def roster_digest(members: Sequence[Member]) -> str:
    """Return the digest of a roster, 64 hexadecimal digits, which all parties must have alike."""
    return _roster_digest(tuple(members))


@lru_cache(maxsize=16)
def _roster_digest(members: tuple[Member, ...]) -> str:
    return digest({"members": [member.as_fields() for member in members]})


def propose(query: Query, codebook: Codebook, members: tuple[Member, ...]) -> Proposal:
    """Return the proposal for a query on a roster.

    Raises DocumentError when the query does not fit the codebook, TooFewPartiesError for fewer than
    three computing parties.
    """
    degree_for(sum(member.computing for member in members))
    fields = query.digest_fields()
    privacy = fields["privacy"]
    asked = {name: value for name, value in fields.items() if name != "privacy"}
    layout = query.layout(codebook)
    digests = {
        "roster": roster_digest(members),
        "codebook": codebook.digest(),
        "query": digest({"query": asked}),
        "privacy": digest({"privacy": privacy}),
        "layout": digest({"layout": layout.as_fields()}),
    }
    return Proposal(
        groups=layout.groups,
        query_fields=fields,
        epsilon=query.privacy.epsilon_exact,
        epsilon_text=query.privacy.epsilon,
        delta=query.privacy.delta_exact,
        rule=Rule(query.privacy.rule),
        threshold=query.privacy.threshold,
        cap=query.privacy.max_records_per_patient,
        members=members,
        digests=digests,
    )
