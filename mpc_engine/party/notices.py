"""What each party publishes of itself, as all others have it: policy, snapshot, what is left of budgets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from mpc_engine.ledger.charge import Charge, Scope
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.party.lines import Notice
from mpc_engine.party.messages import Amounts, PolicyAnswer, publish_policy
from mpc_engine.party.post import Post
from mpc_engine.party.situation import Situation

_GREATEST_K = 1_000_000
_SNAPSHOT = re.compile(r"([0-9a-f]{32})?")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?")
_VERSION = re.compile(r"[0-9A-Za-z.+!-]{1,40}")


class Notices:
    """The notices of all parties, this one's among them. Party 1 passes on those of parties not connected."""

    def __init__(
        self,
        ledger: Ledger,
        post: Post,
        situation: Callable[[], Situation],
        snapshot: Callable[[], str],
        changed: Callable[[], None],
    ) -> None:
        self._ledger, self._post, self._situation = ledger, post, situation
        self._snapshot, self._changed = snapshot, changed
        self._held: dict[str, Notice] = {}
        self._said: Notice | None = None
        self._signed: tuple[Situation, str, PolicyAnswer] | None = None
        self._checked: dict[int, tuple[Situation, PolicyAnswer]] = {}
        post.handle({}, {"notice": self._take})

    def own(self) -> Notice:
        """Return this party's notice as it is now."""
        here = self._situation()
        analysts = {each.name: fingerprint for fingerprint, each in here.analysts.items()}
        projects = sorted(here.policy.budget.projects)
        return Notice(
            published=self._published(here),
            dataset=self._left(Scope("dataset", here.dataset)) if here.dataset else None,
            projects={project: self._left(Scope("project", project)) for project in projects},
            analysts={name: self._left(Scope("analyst", name)) for name in sorted(analysts)},
        )

    def _published(self, here: Situation) -> PolicyAnswer:
        """Return the signed policy, made anew only if documents or records have changed."""
        snapshot = self._snapshot()
        if self._signed is None or self._signed[0] is not here or self._signed[1] != snapshot:
            self._signed = (here, snapshot, publish_policy(here.published(snapshot), here.identity))
        return self._signed[2]

    def of(self, party: str) -> Notice | None:
        """Return a party's notice, None if it has not come yet."""
        return self.own() if party == self._situation().name else self._held.get(party)

    def thresholds(self) -> dict[str, int]:
        """Return the least k of those who have published it, by name."""
        here = self._situation()
        others = {
            name: int(each.published.policy["least_threshold"]) for name, each in self._others().items()
        }
        return {here.name: here.policy.least_threshold, **others}

    def known(self) -> tuple[Mapping[str, int], Mapping[str, str]] | None:
        """Return least k and snapshot ids of all parties by name, None while a notice is missing."""
        here = self._situation()
        thresholds = self.thresholds()
        if set(thresholds) != set(here.names.values()):
            return None
        snapshots = {name: str(each.published.policy["snapshot"]) for name, each in self._others().items()}
        snapshots[here.name] = self._snapshot()
        return thresholds, {name: each for name, each in snapshots.items() if each}

    def spread(self, again: bool = False) -> None:
        """Tell all peers this party's notice if it has changed, or in any case."""
        mine = self.own()
        if again or mine != self._said:
            self._said = mine
            for peer in self._situation().peers:
                self._post.say(peer, mine)

    def greet(self, peer: int) -> None:
        """Tell one peer this party's notice, and those of others that the peer is not connected with."""
        here = self._situation()
        self._post.say(peer, self.own())
        for number, name in here.names.items():
            if self._relays(number, peer) and name in self._held:
                self._post.say(peer, self._held[name])

    # --- within -------------------------------------------------------------------------------------

    def _others(self) -> dict[str, Notice]:
        here = self._situation()
        names = set(here.names.values()) - {here.name}
        return {name: notice for name, notice in self._held.items() if name in names}

    def _relays(self, origin: int, receiver: int) -> bool:
        """Tell whether this party passes on what `origin` says to `receiver`."""
        here = self._situation()
        return here.number == 1 and min(origin, receiver) > here.computing and origin != receiver

    def _take(self, sender: int, notice: Notice) -> None:
        here = self._situation()
        numbers = {name: number for number, name in here.names.items()}
        origin = numbers.get(notice.published.party, 0)
        passed_on = sender == 1 and min(origin, here.number) > here.computing
        named = notice.published.policy.get("party") == notice.published.party and origin not in (
            0,
            here.number,
        )
        self._post.check_sender(sender, named and (origin == sender or passed_on))
        signed = self._is_signed(notice.published, here, origin)
        self._post.check_sender(sender, signed and _is_usable(notice.published.policy))
        if self._held.get(notice.published.party) != notice:
            self._held[notice.published.party] = notice
            for peer in here.peers:
                if self._relays(origin, peer):
                    self._post.say(peer, notice)
            self._changed()

    def _is_signed(self, answer: PolicyAnswer, here: Situation, origin: int) -> bool:
        """Tell whether a card trusted for a party signed its policy; the same is not checked twice."""
        known = self._checked.get(origin)
        if known is not None and known[0] is here and known[1] == answer:
            return True
        signed = any(answer.signed_by(card) for card in here.directory.cards[origin - 1])
        if signed:
            self._checked[origin] = (here, answer)
        return signed

    def _left(self, scope: Scope) -> Amounts:
        """Return what is left of a budget; None where nothing is limited."""
        here = self._situation()
        analyst = scope.name if scope.kind == "analyst" else ""
        project = scope.name if scope.kind == "project" else ""
        fingerprints = [each for each, enrolled in here.analysts.items() if enrolled.name == analyst]
        card = fingerprints[0] if fingerprints else ""
        for row in self._ledger.budgets(here.limits(card, analyst, project)):
            if row.scope == scope:
                delta = row.remaining_delta
                return Amounts(
                    micro_epsilon=row.remaining_micro_epsilon, delta=None if delta is None else str(delta)
                )
        return Amounts.of(Charge(0, 0))


def _is_usable(policy: Mapping[str, Any]) -> bool:
    """Tell whether what this party reads of another's policy has the form that it has in every policy."""
    k, engine = policy.get("least_threshold"), policy.get("engine")
    version = engine.get("version") if isinstance(engine, Mapping) else None
    return (
        type(k) is int
        and 1 <= k <= _GREATEST_K
        and _matches(_SNAPSHOT, policy.get("snapshot"))
        and _matches(_DECIMAL, policy.get("greatest_epsilon"))
        and _matches(_VERSION, version)
    )


def _matches(form: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and form.fullmatch(value) is not None
