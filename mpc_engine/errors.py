"""The exception tree and the catalogue of what each failure means for the person who reads it.

Every failure that reaches a person is one of these classes. A class fixes the reason code that other
parties are told, the exit status of the command line, whether privacy budget was spent, and what to
do next. Messages name files, keys, parties, steps and sizes; never a value, a row or a share.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Base of all failures. ``str(error)`` says what happened and where, in one sentence or two."""

    reason: ClassVar[str] = "INTERNAL"
    exit_status: ClassVar[int] = 70
    next_step: ClassVar[str] = "Please report this as a bug, with the message above."
    budget_spent: ClassVar[bool] = False


# --- before a session: what a person wrote or has --------------------------------------------------


class DocumentError(EngineError):
    """A file that a person wrote is missing, unreadable or breaks a rule; names file and key."""

    reason = "DOCUMENT"
    exit_status = 2
    next_step = "Correct the file at the place named above and run the command again."


class DataError(EngineError):
    """Records do not fit the mapping or the codebook, or are not registered. Shown on this machine only."""

    reason = "DATA"
    exit_status = 3
    next_step = (
        "Correct the mapping or the records, then run `mpc-engine data check` and `mpc-engine data register`."
    )


class PolicyError(EngineError):
    """A query asks for more than this party's configuration allows."""

    reason = "POLICY_DENIED"
    exit_status = 4
    next_step = "Ask for less, or have the registry's policy changed by whoever is responsible for it."


class TooFewPartiesError(EngineError):
    """Fewer than three computing parties, or an even number of them: Shamir would keep no secret."""

    reason = "TOO_FEW_PARTIES"
    exit_status = 2
    next_step = "Bring a helper: a party without records that holds shares and follows the protocol."


# --- agreement ------------------------------------------------------------------------------------


class MismatchError(EngineError):
    """Two parties do not hold the same plan; names the field that differs. No count was shared."""

    reason = "MISMATCH"
    exit_status = 5
    next_step = "Bring the named document or setting to the same version at all parties."


# --- peers and time -------------------------------------------------------------------------------


class PeerError(EngineError):
    """A peer could not be reached, was lost, or is not who the roster says."""

    reason = "PEER_UNAVAILABLE"
    exit_status = 6
    next_step = "Check that the party named above is running, reachable and uses its enrolled certificate."


class DeadlineError(PeerError):
    """A wait for a peer reached its deadline."""

    reason = "TIMEOUT"


class PeerAbortedError(PeerError):
    """A peer ended the session and said why."""

    reason = "PEER_ABORTED"
    next_step = "See that party's own message; it says what to do there."


class StoppedError(EngineError):
    """This party was stopped by a signal. Connected peers were told."""

    reason = "SHUTTING_DOWN"
    exit_status = 130
    next_step = "To make the release, start all parties again."


# --- integrity ------------------------------------------------------------------------------------


class IntegrityError(EngineError):
    """An always-on check failed: a fault or a deviation somewhere. Nothing was released."""

    reason = "INTEGRITY_ABORT"
    exit_status = 7
    next_step = "Nothing was released. Run again; if it recurs, compare software versions and machines."


class PublicationError(EngineError):
    """A failure after the parties committed: something may be open, so the budget counts as spent."""

    reason = "PUBLICATION_ABORT"
    exit_status = 8
    next_step = (
        "The parties had committed, so count this release's ε as spent. Find the fault before asking again: "
        "repeating the query would spend it a second time."
    )
    budget_spent = True


class ProtocolOrderError(IntegrityError):
    """A peer sent a message that the agreed plan does not foresee at this point."""

    reason = "PROTOCOL_ORDER"


class StreamReuseError(IntegrityError):
    """A randomness stream would have been drawn twice; the session ends before anything depends on it."""

    reason = "STREAM_REUSE"


def catalogue() -> list[type[EngineError]]:
    """Return every class of the tree, base first, each once."""
    found: list[type[EngineError]] = []
    waiting: list[type[EngineError]] = [EngineError]
    while waiting:
        cls = waiting.pop(0)
        found.append(cls)
        waiting.extend(cls.__subclasses__())
    return found
