"""Checks of outcomes, budgets, costs and faults, and what must hold after every scenario."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from typing import Final

from mpc_engine import errors
from mpc_engine.documents import digest
from mpc_engine.errors import catalogue
from mpc_engine.harness.audit import plan_of
from mpc_engine.harness.checks import checks
from mpc_engine.harness.ledgers import SPENT
from mpc_engine.harness.notice import first_notice
from mpc_engine.harness.record import Asked, PartyRecord, Run, Verdict, Verdicts
from mpc_engine.ledger.charge import micro_words
from mpc_engine.ledger.rows import HOLDING, PUBLISHING, SessionRow
from mpc_engine.party.messages import FINAL
from mpc_engine.scenario.expectations import Budget, Cost, Detected, Outcome, Same

REASONS: Final = frozenset(cls.reason for cls in catalogue() if cls.__module__ == errors.__name__) - {
    "INTERNAL"
}
"""Documented reasons; those of failures of the harness are not among them."""
_OPENING: Final = ("PATTERN", "OPENED", "SIGNED", "RELEASED")
"""States in which a party has opened something."""
_MOST_TOLD: Final = 5


@checks(Outcome)
def outcome(run: Run, expected: Outcome) -> Verdicts:
    """Check how the requests for a question ended."""
    asked = run.of(expected.ask)
    wanted = _ending(expected.state, expected.reason)
    number = len(asked) if expected.count is None else expected.count
    name = expected.ask or run.scenario.asks[0].name
    many = "" if number == 1 == len(asked) else f" {number} of {len(asked)} times"
    right = sum(each.state == expected.state and expected.reason in ("", each.reason) for each in asked)
    ends = Counter(_ending(each.state, each.reason) for each in asked)
    found = ", ".join(f"{count} × {end}" if len(asked) > 1 else end for end, count in ends.items())
    words = {f"{each.detail}" for each in asked if each.detail and each.state != expected.state}
    told = f" {' '.join(sorted(words)[:_MOST_TOLD])}" if words else ""
    holds = bool(asked) and right == number
    return [
        Verdict(f"The question {name} ends {wanted}{many}.", holds, f"It ended {found or 'never'}.{told}")
    ]


def _ending(state: str, reason: str) -> str:
    return f"{state} ({reason})" if reason else state


@checks(Same)
def same(run: Run, expected: Same) -> Verdicts:
    """Check that a question asked again got the same release at no cost."""
    name = expected.ask or run.scenario.asks[0].name
    asked = [*run.of(expected.ask), *(() if expected.other is None else run.of(expected.other))]
    releases = {digest(each.release) for each in asked if each.release is not None}
    both = f"{name} and {expected.other}" if expected.other else f"{name}, each time it is asked,"
    unanswered = sum(each.release is None for each in asked)
    identical = Verdict(
        f"{both} have one release, the same in every byte.",
        len(asked) > 1 and len(releases) == 1 and not unanswered,
        f"{len(asked)} requests got {len(releases)} different, and {unanswered} got none.",
    )
    requests = {each.request for each in asked}
    paid = {
        party.name: sum(row.state in SPENT and row.request in requests for row in party.sessions)
        for party in run.parties.values()
    }
    most = max(paid.values(), default=0)
    return [
        identical,
        Verdict(
            f"{both} are paid for once.",
            set(paid.values()) == {1},
            "Every party debited one session."
            if set(paid.values()) == {1}
            else f"Between {min(paid.values(), default=0)} and {most} sessions were debited by each party.",
        ),
    ]


@checks(Budget)
def budget(run: Run, expected: Budget) -> Verdicts:
    """Check what the whole scenario has cost, exactly."""
    names = run.silos if expected.party is None else (expected.party,)
    wanted = Fraction(expected.spent) * 10**6
    spent = {name: run.spent(name) for name in names}
    whose = expected.party or "every silo"
    found = ", ".join(f"{name} {micro_words(micro)}" for name, micro in spent.items())
    holds = bool(spent) and all(micro == wanted for micro in spent.values())
    return [Verdict(f"It costs {whose} ε = {expected.spent} in all.", holds, f"Spent were, in ε: {found}.")]


@checks(Detected)
def detected(run: Run, expected: Detected) -> Verdicts:
    """Check that somebody noticed a fault in time."""
    if expected.fault >= len(run.faults):
        raise LookupError(f"there is no fault {expected.fault} in this scenario")
    happened = run.faults[expected.fault]
    fault = happened.fault
    reason = f" as {expected.reason}" * bool(expected.reason)
    claim = f"Others notice `{fault.kind}` at {fault.party} within {expected.within_s:g} s{reason}."
    if happened.began_s is None:
        return [Verdict(claim, False, "The fault never came.")]
    notice = first_notice(run, happened, expected.reason)
    if notice is None:
        return [Verdict(claim, False, "Nobody noted it.")]
    after_s = max(0.0, notice.at_s - happened.began_s)
    found = f"{notice.by} noted {notice.reason} after {after_s:.3g} s."
    return [Verdict(claim, after_s <= expected.within_s, found)]


@checks(Cost)
def cost(run: Run, expected: Cost) -> Verdicts:
    """Check what a question's session took."""
    asked = run.released(expected.ask)
    meters = run.further.get("meters", {}).get(asked.ticket, {})
    computing = [each.name for each in run.parties.values() if each.computing and each.name in meters]
    cells = plan_of(run, asked).cells
    if not computing:
        raise LookupError(f"nobody measured the session of {asked.name}")

    def bound(what: str, most: float, found: float, unit: str = "") -> Verdict:
        return Verdict(
            f"A session of {asked.name} takes at most {most:g} {what}.",
            found <= most,
            f"It took {found:.4g}{unit}, with {cells:,} cells.",
        )

    def mean(key: str) -> float:
        return sum(float(meters[name][key]) for name in computing) / len(computing)

    verdicts = []
    if expected.rounds is not None:
        verdicts.append(bound("rounds", expected.rounds, max(meters[name]["rounds"] for name in computing)))
    if expected.control_rounds is not None:
        most = max(meters[name]["control_rounds"] for name in computing)
        verdicts.append(bound("rounds of control messages", expected.control_rounds, most))
    if expected.bytes_per_cell is not None:
        found = mean("sent_bytes") / cells
        verdicts.append(bound("bytes sent by a computing party per cell", expected.bytes_per_cell, found))
    if expected.cpu_us_per_cell is not None:
        found = mean("cpu_s") * 1e6 / cells
        verdicts.append(bound("µs of CPU of a computing party per cell", expected.cpu_us_per_cell, found))
    if expected.rss_mib is not None:
        peak = max(each.usage.rss_mib for each in run.parties.values())
        if not peak:
            raise LookupError("memory is not measured on this stage")
        verdicts.append(bound("MiB of memory at any party", expected.rss_mib, peak))
    return verdicts


# --- always -----------------------------------------------------------------------------------------


def always(run: Run) -> Verdicts:
    """Check what is expected of every scenario: that faults came, all parties serve, and what follows."""
    down = [party.name for party in run.parties.values() if not party.serves]
    serves = Verdict(
        "All parties serve in the end.",
        bool(run.parties) and not down,
        f"{', '.join(down)} did not." if down else "All did.",
    )
    return [*_came(run), serves, universal(run)]


def _came(run: Run) -> Verdicts:
    """Return whether every fault came, for nothing is shown by one that did not; nothing if there is none."""
    if not run.faults:
        return []
    missing = [
        f"fault {number}, `{happened.fault.kind}` at {happened.fault.party}"
        for number, happened in enumerate(run.faults)
        if happened.began_s is None
    ]
    found = f"Never came: {'; '.join(missing)}." if missing else f"All {len(run.faults)} came."
    return [Verdict("Every fault comes.", not missing, found)]


def universal(run: Run) -> Verdict:
    """Check the universal outcome of docs/faults.md in the parties' ledgers, whatever befell them.

    Reasons are documented; nothing is half done; every chain holds; a session has one release at most, and
    whatever was opened has been paid for by all parties, with no less than the ε that its release states; no
    question was answered twice.
    """
    problems = [*_reasons(run), *_ledgers(run.parties), *_sessions(run.parties), *_debits(run)]
    more = f" And {len(problems) - _MOST_TOLD} more." if len(problems) > _MOST_TOLD else ""
    return Verdict(
        "The universal outcome: documented reasons, whole ledgers, one release for a session, paid by all.",
        not problems,
        " ".join(problems[:_MOST_TOLD]) + more if problems else "It holds.",
    )


def _reasons(run: Run) -> Iterator[str]:
    for asked in run.asked:
        if asked.reason not in ("", *REASONS):
            yield f"{asked.name} ended with the undocumented reason {asked.reason}."
        if asked.state in FINAL - {"RELEASED", "WITHDRAWN"} and not asked.reason:
            yield f"{asked.name} ended {asked.state} without a reason."
        if not _complete(asked):
            yield f"{asked.name} was RELEASED without its release."


def _complete(asked: Asked) -> bool:
    return asked.state != "RELEASED" or asked.release is not None


def _ledgers(parties: dict[str, PartyRecord]) -> Iterator[str]:
    for party in parties.values():
        if not party.verified:
            yield f"The audit chain of {party.name} does not hold."
        due = sum(row.charge.micro_epsilon for row in party.sessions if row.state in SPENT)
        if party.spent != due:
            yield f"{party.name} has spent {party.spent} micro-ε where its sessions cost {due}."
        answered = Counter(row.question for row in party.sessions if row.state == "RELEASED")
        if any(count > 1 for count in answered.values()):
            yield f"{party.name} has answered a question twice."
        for row in party.sessions:
            if row.state in (*HOLDING, *PUBLISHING):
                yield f"A session is still {row.state} at {party.name}."
            if row.reason not in ("", *REASONS):
                yield f"A session of {party.name} has the undocumented reason {row.reason}."


def _sessions(parties: dict[str, PartyRecord]) -> Iterator[str]:
    rows: dict[str, dict[str, SessionRow]] = {}
    for party in parties.values():
        for row in party.sessions:
            rows.setdefault(row.ticket, {})[party.name] = row
    for ticket, found in rows.items():
        releases = {row.release_digest for row in found.values()} - {""}
        if len(releases) > 1:
            yield f"The session {ticket[:8]} has {len(releases)} releases."
        # A party that has given a session up keeps the hash of the pattern that it saw.
        if not releases and not any(row.state in _OPENING or row.pattern_hash for row in found.values()):
            continue
        unpaid = [name for name in parties if name not in found or found[name].state not in SPENT]
        if unpaid:
            yield f"The session {ticket[:8]} was opened, and {', '.join(unpaid)} had not paid."
        if len({row.charge for row in found.values()}) > 1:
            yield f"The session {ticket[:8]} did not cost all parties the same."


def _debits(run: Run) -> Iterator[str]:
    """Yield the releases for which a party debited less than the ε that they state."""
    stated = {
        asked.ticket: (asked.name, Fraction(str(asked.release["parameters"]["epsilon"])))
        for asked in run.asked
        if asked.release and "parameters" in asked.release
    }
    for ticket, (name, epsilon) in stated.items():
        for party in run.parties.values():
            paid = [
                row.charge.epsilon for row in party.sessions if row.ticket == ticket and row.state in SPENT
            ]
            if sum(paid) < epsilon:
                yield f"{party.name} debited less for {name} than its ε = {float(epsilon):g}."
