"""The release job that everything here measures: generated counts, one noised and suppressed table.

Two silos bring a count for every cell; ε = 1, rule noisy, k = 5. Counts follow from a seed that all
parties share, so that every party can check what was published against the truth.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd

import numpy as np
from numpy.typing import NDArray

from mpc_engine.dp import Rule
from mpc_engine.identity.signing import SigningKey
from mpc_engine.party.book import Credentials
from mpc_engine.party.policy import Policy
from mpc_engine.party.proposal import Proposal
from mpc_engine.party.source import source_digest
from mpc_engine.release.grid import Axis, Grid
from mpc_engine.release.groups import Groups, Tally
from mpc_engine.release.plan import Member, Plan
from mpc_engine.release.publication import Published

SILOS = 2
EPSILON = "1"
THRESHOLD = 5
POLICY = Policy(EPSILON, THRESHOLD)

_LARGEST_COUNT = 40
_COUNT_BOUND = 1 << 24
_ENOUGH_CELLS = 200
"""From so many cells on, noise that is zero in all of them has probability below 2^-200: a fault."""


def counts_of(silo: int, cells: int, seed: int) -> NDArray[np.int64]:
    """Return the counts of silo 1 or 2, from 0 to 39, shape (1, cells)."""
    return np.random.default_rng([seed, silo]).integers(0, _LARGEST_COUNT, (1, cells))


def credentials_of(parties: int) -> dict[int, Credentials]:
    """Return the credentials of parties in one process, by number."""
    signers = {number: SigningKey.create() for number in range(1, parties + 1)}
    keys = {number: (signer.public,) for number, signer in signers.items()}
    return {number: Credentials(signer, keys, source_digest()) for number, signer in signers.items()}


def proposal_for(cells: int, identities: list[tuple[str, str]]) -> Proposal:
    """Return the job for parties given by name and fingerprint; all compute, the first two are silos."""
    members = tuple(
        Member(name, True, number <= SILOS, fingerprint, _COUNT_BOUND)
        for number, (name, fingerprint) in enumerate(identities, start=1)
    )
    columns = gcd(cells, 1000)
    axes = (("row", cells // columns), ("column", columns))
    grid = Grid(tuple(Axis(name, tuple(map(str, range(size)))) for name, size in axes))
    return Proposal(
        (Groups("cells", Tally("records", grid)),),
        {},
        Fraction(EPSILON),
        EPSILON,
        None,
        Rule.NOISY,
        THRESHOLD,
        1,
        members,
        {},
    )


def check_release(published: Published, plan: Plan, seed: int) -> None:
    """Raise RuntimeError unless what a session published fits the counts of this seed; see `check`."""
    limit = plan.lines[0].allotment.table.limit
    check(published.pattern[0], published.values[0], limit, seed)


def check(shown: NDArray[np.bool_], values: NDArray[np.int64], limit: int, seed: int) -> None:
    """Raise RuntimeError unless a release fits the counts of this seed.

    What is shown must be at least k and off by no more than `limit`, the largest noise; what is hidden
    must be a count that this noise can bring below k; and there must be noise at all.
    """
    truth = sum(counts_of(silo, shown.size, seed)[0] for silo in range(1, SILOS + 1))
    noise = (values - truth)[shown]
    if np.abs(noise).max(initial=0) > limit or (truth[~shown] - limit >= THRESHOLD).any():
        raise RuntimeError("the published table does not fit the counts")
    if (values[shown] < THRESHOLD).any():
        raise RuntimeError("a value below the threshold was published")
    if noise.size >= _ENOUGH_CELLS and not noise.any():
        raise RuntimeError("the published table has no noise")
