"""The exception tree and the catalogue of what each failure means for the person who reads it.

Every failure that reaches a person is one of these classes. A class fixes the reason code that other
parties are told, the gRPC status code that an analyst's program sees, the exit status of the command
line, whether trying the same again may succeed, whether privacy budget was spent, and what to do next.
Messages name files, keys, parties, steps and sizes; never a value, a row or a share.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Budget = Literal["no", "held", "spent"]
"""What a failure leaves behind: nothing, a hold that is released when the session ends, or a debit."""


class EngineError(Exception):
    """Base of all failures. ``str(error)`` says what happened and where, in one sentence or two."""

    reason: ClassVar[str] = "INTERNAL"
    exit_status: ClassVar[int] = 70
    grpc_code: ClassVar[str] = "INTERNAL"
    retryable: ClassVar[bool] = False
    budget: ClassVar[Budget] = "no"
    next_step: ClassVar[str] = "Please report this as a bug, with the message above."


# --- before a session: what a person wrote or has --------------------------------------------------


class DocumentError(EngineError):
    """A file or a word of a person breaks a rule, or comes at the wrong time; names file and key."""

    reason = "DOCUMENT"
    grpc_code = "INVALID_ARGUMENT"
    exit_status = 2
    next_step = "Correct what is named above, or do first what it says, and run the command again."


class DataError(EngineError):
    """Records do not fit the mapping or the codebook, or are not registered. Shown on this machine only."""

    reason = "DATA"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 3
    next_step = (
        "Correct the mapping or the records, then run `mpc-engine data check` and `mpc-engine data register`."
    )


class PolicyError(EngineError):
    """A query asks for more than this party's configuration allows."""

    reason = "POLICY_DENIED"
    grpc_code = "PERMISSION_DENIED"
    exit_status = 4
    next_step = "Ask for less, or have the registry's policy changed by whoever is responsible for it."


class TooFewPartiesError(EngineError):
    """Fewer than three computing parties, or an even number of them: Shamir would keep no secret."""

    reason = "TOO_FEW_PARTIES"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 2
    next_step = "Bring a helper: a party without records that holds shares and follows the protocol."


class PresetError(PolicyError):
    """A query uses a preset, or a column in a way, that this party's policy does not allow."""

    reason = "PRESET_NOT_APPROVED"
    next_step = (
        "See `mpc-engine policy show` for what this party allows, or ask whoever is responsible for it."
    )


class DeniedError(PolicyError):
    """An operator declined this request."""

    reason = "REQUEST_DECLINED"
    next_step = "Read the reason that the registry gave; a changed question is a new request."


# --- agreement ------------------------------------------------------------------------------------


class MismatchError(EngineError):
    """Two parties do not hold the same plan; names the field that differs. No count was shared."""

    reason = "MISMATCH"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 5
    next_step = "Bring the named document or setting to the same version at all parties."


class RosterMismatchError(MismatchError):
    """The parties differ in the roster."""

    reason = "MISMATCH_ROSTER"


class CodebookMismatchError(MismatchError):
    """The parties differ in the codebook."""

    reason = "MISMATCH_CODEBOOK"


class QueryMismatchError(MismatchError):
    """The parties differ in the query."""

    reason = "MISMATCH_QUERY"


class PrivacyMismatchError(MismatchError):
    """The parties differ in the privacy parameters."""

    reason = "MISMATCH_DP"


class LayoutMismatchError(MismatchError):
    """The parties differ in the layout of cells."""

    reason = "MISMATCH_LAYOUT"


class EngineMismatchError(MismatchError):
    """The parties differ in the engine's version or source."""

    reason = "MISMATCH_ENGINE"
    next_step = "Install the same version of the engine at all parties; `mpc-engine --version` shows it."


class SnapshotMismatchError(MismatchError):
    """The parties differ in the registered records, or in the least k, since the session began."""

    reason = "MISMATCH_SNAPSHOT"
    retryable = True
    next_step = (
        "Nothing needs to be done: the request is tried again by itself, on the records as they are now. If "
        "it was returned all the same, submit it again once no registry is registering records."
    )


MISMATCHES: dict[str, type[MismatchError]] = {
    "roster": RosterMismatchError,
    "codebook": CodebookMismatchError,
    "query": QueryMismatchError,
    "privacy": PrivacyMismatchError,
    "layout": LayoutMismatchError,
    "engine": EngineMismatchError,
    "snapshot": SnapshotMismatchError,
}
"""The failure for each field that parties compare."""


# --- peers and time -------------------------------------------------------------------------------


class PeerError(EngineError):
    """A peer could not be reached, was lost, or is not who the roster says."""

    reason = "PEER_UNAVAILABLE"
    grpc_code = "UNAVAILABLE"
    retryable = True
    budget: ClassVar[Budget] = "held"
    exit_status = 6
    next_step = "Check that the party named above is running, reachable and uses its enrolled certificate."


class NotRunningError(PeerError):
    """The service of this party, which the command asks, does not run."""

    reason = "NOT_RUNNING"
    retryable = False
    budget = "no"
    next_step = 'Start it with `mpc-engine party serve`, or as docs/operate.md says under "Start".'


class DeadlineError(PeerError):
    """A wait for a peer reached its deadline."""

    reason = "ROUND_TIMEOUT"
    grpc_code = "DEADLINE_EXCEEDED"


class StillWaitingError(DeadlineError):
    """A request was not answered within the time that its analyst waited. Nothing is wrong: it goes on."""

    reason = "STILL_WAITING"
    budget = "no"
    exit_status = 16
    next_step = (
        "It goes on without you. Look again with `mpc-engine query status`, or wait on with `query wait`."
    )


class SessionTimeoutError(DeadlineError):
    """A session did not come to its commit within the longest time that this party gives it."""

    reason = "SESSION_TIMEOUT"


class CertificateError(PeerError):
    """A party's certificate has expired or is not valid yet."""

    reason = "CERT_EXPIRED"
    grpc_code = "UNAUTHENTICATED"
    retryable = False
    next_step = "Renew it with `mpc-engine party rotate`, and check the clock of both machines."


class UnknownCertificateError(PeerError):
    """Who calls presents a certificate that is in nobody's place on the roster or among the analysts."""

    reason = "CERT_UNKNOWN"
    grpc_code = "UNAUTHENTICATED"
    retryable = False
    budget = "no"
    next_step = (
        "Have your card enrolled by the operator of the party that refused it (`mpc-engine party analyst "
        "add`, or `party trust add` for a party's), who compares its fingerprint with you by telephone."
    )


class PeerAbortedError(PeerError):
    """A peer ended the session and said why: ``cause`` is the reason it gave."""

    def __init__(self, message: str = "", cause: str = "") -> None:
        super().__init__(message, cause)

    def __str__(self) -> str:
        return str(self.args[0])

    @property
    def cause(self) -> str:
        """The peer's reason, one of this catalogue; empty if it gave none."""
        return str(self.args[1])

    reason = "PEER_ABORTED"
    grpc_code = "ABORTED"
    next_step = "See that party's own message; it says what to do there."


class StoppedError(EngineError):
    """This party was stopped by a signal. Connected peers were told."""

    reason = "SHUTTING_DOWN"
    grpc_code = "UNAVAILABLE"
    retryable = True
    budget = "held"
    exit_status = 130
    next_step = (
        "Start this party again: what it was asked goes on by itself. After `party run` or `simulate`, start "
        "all parties."
    )


# --- integrity ------------------------------------------------------------------------------------


class IntegrityError(EngineError):
    """An always-on check failed: a fault or a deviation somewhere. Nothing was released."""

    reason = "INTEGRITY_ABORT"
    grpc_code = "ABORTED"
    budget = "held"
    exit_status = 7
    next_step = "Compare the software versions and the machines of the parties before anybody asks again."


class InvalidShareError(IntegrityError):
    """A peer sent what cannot be a share: a value outside the field, or a message of a wrong form."""

    reason = "INVALID_SHARE"


class EquivocationError(IntegrityError):
    """A party said one thing to one peer and another to the next, or two things in one place."""

    reason = "EQUIVOCATION"


class PublicationError(EngineError):
    """A failure after the parties committed: something may be open, so the budget counts as spent."""

    reason = "PUBLICATION_ABORT"
    grpc_code = "DATA_LOSS"
    exit_status = 8
    next_step = (
        "The parties had committed, so count this release's ε as spent. Find the fault before asking again: "
        "repeating the query would spend it a second time."
    )
    budget = "spent"


class ProtocolOrderError(IntegrityError):
    """A peer sent a message that the agreed plan does not foresee at this point."""

    reason = "PROTOCOL_ORDER"
    grpc_code = "FAILED_PRECONDITION"


class StreamReuseError(IntegrityError):
    """A randomness stream would have been drawn twice; the session ends before anything depends on it."""

    reason = "STREAM_REUSE"


# --- ledger ---------------------------------------------------------------------------------------


class BudgetError(EngineError):
    """A release would spend more of ε or δ than is left of a budget; names the budget."""

    reason = "BUDGET_EXCEEDED"
    grpc_code = "RESOURCE_EXHAUSTED"
    exit_status = 9
    next_step = "Ask with a smaller ε, or have the registry decide about its budget; see `query cost`."


class LedgerWriteError(EngineError):
    """The ledger cannot be written, for lack of space or because of the disk. Nothing was sent."""

    reason = "LEDGER_WRITE"
    grpc_code = "RESOURCE_EXHAUSTED"
    exit_status = 10
    retryable = True
    next_step = "Make room on the disk, or replace it; the party takes up work again by itself."


class LedgerRollbackError(EngineError):
    """A party's ledger is older than one that its peers have seen, as after restoring a backup."""

    reason = "LEDGER_ROLLBACK"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 11
    next_step = (
        "At the party named above, run `mpc-engine party recover`: it adopts what its peers witnessed."
    )


class LedgerBrokenError(EngineError):
    """The ledger on this machine does not verify, is another party's, or was written by a newer engine."""

    reason = "LEDGER_BROKEN"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 11
    next_step = (
        "Do not repair it by hand. Put back the last backup and run `mpc-engine party recover`, or, if the "
        "engine is older than the ledger, install the newer engine again."
    )


class InUseError(EngineError):
    """Another process holds this party's folder."""

    reason = "IN_USE"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 12
    next_step = "Only one `mpc-engine party serve` may run for a party. Find the other one and stop either."


# --- requests and sessions of a service -----------------------------------------------------------


class IdempotencyError(EngineError):
    """A request comes under a key that this analyst has used for another question."""

    reason = "IDEMPOTENCY_MISMATCH"
    grpc_code = "ALREADY_EXISTS"
    exit_status = 13
    next_step = "Give the new question a key of its own, or leave the key out."


class UnknownRequestError(EngineError):
    """There is no such request, or it is another analyst's."""

    reason = "UNKNOWN_REQUEST"
    grpc_code = "NOT_FOUND"
    exit_status = 13
    next_step = (
        "See `mpc-engine query list` for your requests. Those handed in after the backup from which a party "
        "was restored are not there: ask again, and what was released then is served at no cost."
    )


class RequestStateError(EngineError):
    """A request is not in a state in which this can be done."""

    reason = "REQUEST_STATE"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 13
    next_step = "See `mpc-engine query status` for what has become of it."


class QuestionBusyError(RequestStateError):
    """The same question is being answered here by another session, or was; there is never a second one."""

    reason = "QUESTION_BUSY"
    retryable = True
    next_step = "It is tried again by itself. Ask again if it is returned: what was answered costs nothing."


class StaleSessionError(EngineError):
    """A message belongs to a session that has ended here; a session is never run twice."""

    reason = "STALE_SESSION"
    grpc_code = "FAILED_PRECONDITION"
    exit_status = 13
    next_step = "Nothing needs to be done: the request goes on in a new session, or says why not."


class UnknownSessionError(EngineError):
    """A message belongs to a session that this party does not know or has finished."""

    reason = "UNKNOWN_OR_FINISHED_SESSION"
    grpc_code = "NOT_FOUND"
    exit_status = 13
    next_step = "Nothing needs to be done; if it recurs, compare the clocks and backups of the parties."


class RateLimitError(EngineError):
    """An analyst asks faster, or for more at a time, than this party serves."""

    reason = "RATE_LIMITED"
    grpc_code = "RESOURCE_EXHAUSTED"
    exit_status = 14
    retryable = True
    next_step = "Wait for the time named above and try again."


class TooLargeError(EngineError):
    """A message is larger than any that is needed."""

    reason = "TOO_LARGE"
    grpc_code = "RESOURCE_EXHAUSTED"
    exit_status = 14
    next_step = "Ask for fewer cells or with fewer conditions."


class LocalComputeError(EngineError):
    """Counting failed at a party for a reason that is told on its own machine only."""

    reason = "LOCAL_COMPUTE_FAILED"
    exit_status = 15
    budget = "held"
    next_step = "Have the operator of the party named above look at its log."


def catalogue() -> list[type[EngineError]]:
    """Return every class of the tree, base first, each once."""
    found: list[type[EngineError]] = []
    waiting: list[type[EngineError]] = [EngineError]
    while waiting:
        cls = waiting.pop(0)
        found.append(cls)
        waiting.extend(cls.__subclasses__())
    return found
