"""What `party doctor` looks at on a party's own machine, step by step; the peers are for the probe.

It reads documents, files and the ledger, changes nothing, and works whether the service runs or not. Unlike
the service's log it may quote files: it is for the operator's own terminal.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from mpc_engine.errors import EngineError
from mpc_engine.identity import KEY_FILE, SIGNING_FILE, Clock, expiry_warning, utc_now
from mpc_engine.ledger.charge import micro_words
from mpc_engine.ledger.ledger import Ledger
from mpc_engine.ledger.store import FILE
from mpc_engine.party.control import SOCKET_NAME, ask, served
from mpc_engine.party.dossier import DOCUMENTS, Dossier, read_dossier
from mpc_engine.party.readiness import LEAST_FREE_BYTES, free_bytes
from mpc_engine.party.recovery import is_behind
from mpc_engine.silo.registration import FILE as REGISTRATION
from mpc_engine.silo.registration import load_registration, newer
from mpc_engine.transport.endpoint import Endpoint, dialler_of
from mpc_engine.transport.probe import Step, probe

_MIB: Final = 1 << 20
_WORDS: Final = {
    "configuration": "the configuration and the policy can be read",
    "identity": "keys, certificate and card belong together",
    "roster": "every party of the roster has a trusted card",
    "codebook": "the codebook can be read",
    "analysts": "the enrolled analysts' cards and terms can be read",
}


@dataclass(frozen=True)
class Finding:
    """A step and what it belongs to: ``here``, or a peer's name."""

    place: str
    step: Step

    @property
    def verdict(self) -> str:
        """``ok``, ``warning`` (it works, but something is to be done) or ``failed``."""
        if not self.step.ok:
            return "failed"
        return "warning" if self.step.advice else "ok"

    def as_fields(self) -> dict[str, str]:
        """Return the finding for JSON."""
        step = self.step
        return {
            "place": self.place,
            "step": step.name,
            "verdict": self.verdict,
            "found": step.words,
            "advice": step.advice,
        }


HERE: Final = "here"
Show = Callable[[Finding], None]


async def examine(config_path: Path, show: Show, *, clock: Clock = utc_now) -> list[Finding]:
    """Return all findings, after telling each to `show` as it is made. Never raises for what it finds."""
    found: list[Finding] = []

    def tell(place: str, step: Step) -> None:
        found.append(Finding(place, step))
        show(found[-1])

    dossier = _documents(config_path, lambda step: tell(HERE, step), clock)
    if dossier is None:
        return found
    running = await served(dossier.state / SOCKET_NAME)
    for step in _own(dossier, running, clock):
        tell(HERE, step)
    connected = await _connected(dossier.state) if running else {}
    here, endpoints = dossier.situation, dossier.situation.directory.endpoints
    mine = endpoints[here.number - 1]
    peers = [endpoints[peer - 1] for peer in here.peers]
    results = await asyncio.gather(
        *(
            probe(
                here.identity,
                peer if _listens(peer, endpoints, here.computing) else replace(peer, accepts=False),
                dials=dialler_of(mine, peer) == mine.number,
                clock=clock,
            )
            for peer in peers
        )
    )
    for peer, steps in zip(peers, results, strict=True):
        for step in steps if dialler_of(mine, peer) == mine.number else _spared(steps):
            tell(peer.name, step)
        if peer.name in connected:
            tell(peer.name, _line(connected[peer.name]))
    return found


async def _connected(state: Path) -> dict[str, str | None]:
    """Return of each peer why the running service is not connected with it, None if it is."""
    try:
        answer = await ask(state / SOCKET_NAME, "status")
    except EngineError:
        return {}
    return {
        str(peer["name"]): None if peer["up"] else str(peer.get("trouble", "")) for peer in answer["peers"]
    }


def _line(trouble: str | None) -> Step:
    if trouble is None:
        return Step("line", True, "the running service is connected with it")
    words = "the running service is not connected with it" + (f": {trouble}" if trouble else "")
    return Step("line", False, words, "Follow the steps above; have the peer's operator run this, too.")


def _listens(peer: Endpoint, endpoints: Sequence[Endpoint], computing: int) -> bool:
    """Return whether anybody dials a peer: if not, its port need not be open."""
    others = [each for each in endpoints if min(each.number, peer.number) <= computing and each != peer]
    return any(dialler_of(peer, other) == other.number for other in others)


def _spared(steps: Sequence[Step]) -> Iterator[Step]:
    """Yield the steps towards a peer that dials this party: that it cannot be reached is not its fault."""
    for step in steps:
        if step.ok or step.name not in ("name", "tcp"):
            yield step
        else:
            advice = "Nothing need be done: this peer dials this party, and need not be reachable from here."
            yield replace(step, ok=True, advice=advice)


def _documents(config_path: Path, tell: Callable[[Step], None], clock: Clock) -> Dossier | None:
    """Read all documents; the first that is at fault ends it, for the others depend on it."""
    at: list[str] = []
    try:
        dossier = read_dossier(config_path, clock=clock, reached=at.append)
    except EngineError as error:
        for document in at[:-1]:
            tell(Step(document, True, _WORDS[document]))
        tell(Step(at[-1], False, str(error), error.next_step))
        return None
    for document in DOCUMENTS:
        tell(Step(document, True, _WORDS[document]))
    return dossier


def _own(dossier: Dossier, running: bool, clock: Clock) -> Iterator[Step]:
    config = dossier.config
    yield from _keys(config.path(config.identity))
    yield _state(dossier.state)
    yield _disk(dossier.state)
    for cards in dossier.situation.directory.cards:
        warning = expiry_warning(cards[0], clock())
        if warning is not None:
            advice = "`mpc-engine party rotate` at that party makes a new one; the old goes on meanwhile."
            yield Step("certificate", True, warning.message, advice)
    end = dossier.situation.identity.certificate.not_after
    yield Step("certificate", True, f"this party's certificate ends on {end:%Y-%m-%d}")
    if dossier.data is not None:
        yield _data(dossier.data, dossier.count_bound, dossier.situation.codebook.digest())
    yield from _ledger(dossier)
    yield _service(dossier, running)


def _keys(folder: Path) -> Iterator[Step]:
    for name in (KEY_FILE, SIGNING_FILE):
        mode = (folder / name).stat().st_mode & 0o777
        if mode & 0o077:
            yield Step("keys", False, f"{name} has mode {mode:o}", f"chmod 600 {folder / name}")
            return
    yield Step("keys", True, "only their owner may read them")


def _state(folder: Path) -> Step:
    if not folder.is_dir():
        return Step("state", True, f"{folder} is not there yet: the first start makes it")
    mode = folder.stat().st_mode & 0o777
    if mode & 0o077:
        return Step("state", False, f"{folder} has mode {mode:o}", f"chmod 700 {folder}")
    return Step("state", True, "only its owner may enter the ledger's folder")


def _disk(folder: Path) -> Step:
    while not folder.exists():
        folder = folder.parent
    free = free_bytes(folder)
    words = f"{free // _MIB:,} MiB are free for the ledger"
    if free < LEAST_FREE_BYTES:
        return Step("disk", False, words, f"Make room: at least {LEAST_FREE_BYTES // _MIB} MiB are needed.")
    return Step("disk", True, words)


def _data(folder: Path, bound: int, codebook: str) -> Step:
    advice = "Run `mpc-engine data check`, then `mpc-engine data register`, both with this configuration."
    if not (folder / REGISTRATION).is_file():
        return Step("data", False, f"no data are registered in {folder}", advice)
    try:
        registration = load_registration(folder)
    except EngineError as error:
        return Step("data", False, str(error), advice)
    if registration.codebook_digest != codebook:
        return Step("data", False, "the data were registered with another codebook", advice)
    if registration.count_bound > bound:
        words = f"the data were registered with a bound of {registration.count_bound} on counts"
        return Step(
            "data", False, f"{words}; the roster allows {bound}", "Have the roster or mapping changed."
        )
    words = f"snapshot {registration.snapshot_id} is whole; {registration.words}"
    changed = newer(registration)
    if changed:
        words += f"; {', '.join(each.words for each in changed)}"
        advice = "`mpc-engine data register` takes what is new; until then what was registered is counted."
        return Step("data", True, words, advice)
    return Step("data", True, words)


def _ledger(dossier: Dossier) -> Iterator[Step]:
    if not (dossier.state / FILE).is_file():
        yield Step("ledger", True, "there is none yet: the first start begins it")
        return
    here = dossier.situation
    try:
        ledger = Ledger.open(dossier.state, party=here.name, read_only=True)
    except EngineError as error:
        yield Step("ledger", False, str(error), error.next_step)
        return
    try:
        verified = f"its chain of {ledger.head().seq} entries verifies"
        if is_behind(ledger):
            words = f"{verified}, but peers have seen more entries, as after a restored backup"
            advice = "Run `mpc-engine party recover`; until then no session with this party goes through."
            yield Step("ledger", False, words, advice)
        else:
            yield Step("ledger", True, verified)
        (row,) = [each for each in ledger.budgets(here.limits("", "", "")) if each.scope.kind == "dataset"]
        left, of = row.remaining_micro_epsilon, row.limit.micro_epsilon
        if left is None or of is None:
            yield Step("budget", True, f"no ε is set for the data set; {row.spent.words} spent")
        else:
            words = f"ε {micro_words(left)} of {micro_words(of)} is left for the data set"
            advice = "" if left > 0 else "No release can be made until whoever is responsible decides."
            yield Step("budget", True, words, advice)
    except EngineError as error:
        yield Step("budget", False, str(error), error.next_step)
    finally:
        ledger.close()


def _service(dossier: Dossier, running: bool) -> Step:
    if running:
        return Step("service", True, "it runs; `mpc-engine party status` shows more")
    service = dossier.config.service
    own = dossier.config.listen or dossier.situation.directory.endpoints[dossier.situation.number - 1].address
    for address in (own, service.analysts, service.health, service.metrics):
        if address and not _free(address):
            advice = "Find what uses it (`ss -ltnp`), or change the address in the configuration."
            return Step("service", False, f"it does not run, and {address} cannot be listened on", advice)
    advice = "Start it with `mpc-engine party serve`."
    return Step("service", True, "it does not run; its ports are free", advice)


def _free(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        with socket.create_server(found[0][4][:2], family=found[0][0]):
            return True
    except OSError:
        return False
