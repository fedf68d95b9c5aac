"""The guide's chapters 2 to 7, followed by three parties and an analyst on hosts of their own."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.network.guide import Guide
from tests.network.hosts import Host

PARTIES = ("uk", "us", "helper")
"""The parties of the guide, by whose names all methods here go, whatever the study calls them."""
FINGERPRINT = re.compile(r"sha256:([0-9a-f]{64})")
NOWHERE = {" -o mpc-engine -g mpc-engine": ""}
"""There is no user of that name where tests run."""


@dataclass
class Study:
    """Three parties, called `names` here, and `alice`; `changes` are what their documents have otherwise."""

    guide: Guide
    hosts: Mapping[str, Host]
    names: Mapping[str, str] = field(default_factory=lambda: {name: name for name in PARTIES})
    changes: Mapping[str, str] = field(default_factory=dict)
    silos: tuple[str, ...] = ("uk", "us")

    def host(self, party: str) -> Host:
        """Return the host of a party, or of alice."""
        return self.hosts[self.names.get(party, party)]

    def here(self, text: str) -> str:
        """Return a text of the guide with the names and documents of this study."""
        for old, new in self.changes.items():
            text = text.replace(old, new)
        return re.sub(r"\b(uk|us|helper)\b", lambda match: self.names[match[0]], text)

    def follow(self, party: str, words: str, *, fails: int = 0, typed: str = "") -> str:
        """Run the block of the guide that has these words, on a host, and return what it printed."""
        return self.host(party).run(self.here(self.guide.commands(words)), fails=fails, typed=typed)

    def everywhere(self, words: str, parties: tuple[str, ...] = PARTIES) -> dict[str, str]:
        """Run one block on several hosts at the same time."""
        return self.together(lambda party: self.follow(party, words), parties)

    def together(self, work: Callable[[str], str], parties: tuple[str, ...] = PARTIES) -> dict[str, str]:
        """Do something at several parties at the same time and return what each printed."""
        with ThreadPoolExecutor(len(parties)) as pool:
            return dict(zip(parties, pool.map(work, parties), strict=True))

    def send(self, sender: str, file: str, *receivers: str) -> None:
        """Send a file from where its host's terminal is to where the receivers' are."""
        for receiver in receivers:
            shutil.copy(self.folder(sender) / self.here(file), self.folder(receiver))

    def folder(self, party: str) -> Path:
        host = self.host(party)
        return host.path(self.here(f"/var/lib/mpc-engine/{party}")) if party != "alice" else host.home

    def tell(self, said: str, file: str, *listeners: str | Host) -> None:
        """Read the fingerprint of a card to operators, by telephone."""
        found = FINGERPRINT.search(said)
        assert found is not None, said
        for listener in listeners:
            host = listener if isinstance(listener, Host) else self.host(listener)
            host.fingerprints[self.here(file)] = found[1][-8:]

    def transcript(self) -> str:
        """Return everything that was typed and shown, in order of time."""
        shown = sorted(each for host in self.hosts.values() for each in host.shown)
        return "\n".join(f"{began - shown[0][0]:.1f} s {said}" for began, said in shown)

    # --- the chapters ---------------------------------------------------------------------------------

    def write_documents(self) -> None:
        """2. Documents."""
        folders = self.guide.commands("install -d -m 0755")
        roster = self.guide.document('name = "us"\n\n[[party]]')
        silo_policy = self.guide.document("[budget]")
        helper_policy = self.guide.document('greatest_epsilon = "1"\nleast_threshold = 5\n')
        for party in PARTIES:
            host = self.host(party)
            host.words |= NOWHERE
            host.run(self.here(folders.replace("/uk", f"/{party}")))
            place = self.here(f"/etc/mpc-engine/{party}")
            host.write(f"{place}/roster.toml", self.here(roster))
            host.write(f"{place}/party.toml", self.here(self.guide.document(f'name = "{party}"\nroster')))
            policy = silo_policy if party in self.silos else helper_policy
            host.write(f"{place}/policy.toml", self.here(policy))

    def enrol(self) -> str:
        """3. Enrol; return the roster's digest with its words, after comparing that of all."""
        made = self.together(lambda party: self.follow(party, f"C=/etc/mpc-engine/{party}/party.toml"))
        for party, said in made.items():
            others = [other for other in PARTIES if other != party]
            self.tell(said, f"{party}.card.json", *others, "alice")
            self.send(party, f"{party}.card.json", *others, "alice")
        self.together(self._trust_others)
        digests = {said.partition("Digest")[2] for said in self.everywhere("party roster").values()}
        assert len(digests) == 1
        return digests.pop()

    def _trust_others(self, party: str) -> str:
        first, second = (other for other in PARTIES if other != party)
        add = "mpc-engine party trust add"
        return self.follow(party, f"{first}.card.json --config $C\n{add} {second}.card.json")

    def register(self) -> None:
        """4. Records."""
        for said in self.everywhere("data check", self.silos).values():
            assert "registered as snapshot" in said

    def enrol_alice(self) -> None:
        """5. Analysts."""
        said = self.follow("alice", "analyst init")
        self.tell(said, "alice.card.json", *self.silos)
        self.send("alice", "alice.card.json", *self.silos)
        for said in self.everywhere("party analyst add", self.silos).values():
            assert "alice" in said

    def start(self, *parties: str) -> None:
        """7. Start, at some parties or at all; `party status` says then that all are ready."""
        for party in parties or PARTIES:
            self.host(party).serve(self.guide.commands("party serve"))
        for party in parties or PARTIES:
            self.host(party).until_ready()
        command = self.guide.commands("party status --config $C\n").rstrip()
        self.together(lambda party: self.host(party).until(command, "It is ready."))

    def prepare_alice(self) -> None:
        """The first lines of 8: cards, documents and the profile, up to the first question."""
        block = self.guide.commands("cat > profile.toml")
        before, _, _ = block.partition("mpc-engine query cost")
        self.host("alice").run(self.here(before))

    def ask_first(self) -> str:
        """The first release, with the rest of that block."""
        block = self.guide.commands("cat > profile.toml")
        _, start, rest = block.partition("mpc-engine query cost")
        return self.host("alice").run(self.here(start + rest))
