"""Hosts as network namespaces on one bridge: each has its address, its folders, its terminal, its service."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mpc_engine.harness import namespaces
from tests.network.guide import ROOT, replaced
from tests.network.terminal import loaded, write_shim
from tests.party.machines import ENGINE
from tests.party.nursery import environment

PATIENCE_S = 60.0
"""So long anything may take here; far more than any needs."""


@dataclass
class Host:
    """One machine. `words` are what the guide calls things, and what they are called here."""

    name: str
    network: str
    address: str
    folder: Path
    words: dict[str, str] = field(default_factory=dict)
    services: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    shown: list[tuple[float, str]] = field(default_factory=list)
    """What was typed and what was printed then, with the time at which it began."""
    fingerprints: dict[str, str] = field(default_factory=dict)
    """What this host's operator was told by telephone, by the card's file."""

    @property
    def home(self) -> Path:
        """The folder in which the operator works when a terminal is opened."""
        return self.folder / "home"

    def path(self, path: str) -> Path:
        """Return where a path of the guide is here."""
        return Path(replaced(path, self.words))

    def write(self, path: str, text: str) -> None:
        """Write a document of the guide."""
        target = self.path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(replaced(text, self.words))

    def run(self, commands: str, *, fails: int = 0, typed: str = "") -> str:
        """Run a block of commands in the operator's terminal and return what it printed.

        Variables and folder stay from block to block. Where the guide's reader would type the end of a
        fingerprint, `--fingerprint` gives it, as the guide says for scripts.
        """
        text = re.sub(r"^(mpc-engine party (?:trust|analyst) add (\S+))", self._told, commands, flags=re.M)
        kept = self.folder / "terminal.sh"
        keep = f'{{ declare -p C 2>/dev/null || true; echo cd "$PWD"; }} > {kept}'
        body = f"{replaced(text, self.words)}\n{keep}\n"
        if not kept.exists():
            kept.write_text(f"cd {self.home}\n")
        began = time.monotonic()
        done = subprocess.run(
            ["ip", "netns", "exec", self.network, "bash", "-e", "-c", f". {kept}\n{body}"],
            input=typed,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            env=environment(PATH=f"{self.folder / 'opt/bin'}:{os.environ['PATH']}"),
        )
        said = done.stdout + done.stderr
        took = time.monotonic() - began
        self.shown.append((began, f"--- {self.name}, {took:.2f} s\n{text.rstrip()}\n---\n{said}"))
        assert done.returncode == fails, f"{done.returncode}: {self.shown[-1][1]}"
        assert "Traceback" not in said, said
        return said

    def _told(self, match: re.Match[str]) -> str:
        told = self.fingerprints.get(Path(match[2]).name)
        return match[1] if told is None else f"{match[1]} --fingerprint {told}"

    # --- its service ----------------------------------------------------------------------------------

    def serve(self, commands: str, name: str = "") -> None:
        """Run the guide's `mpc-engine party serve …` as a process of its own."""
        (line,) = replaced(commands, self.words).splitlines()
        program, *arguments = line.split()
        assert program == "mpc-engine" and arguments[:2] == ["party", "serve"]
        config = re.search(r"declare -- C=\"(.*)\"", (self.folder / "terminal.sh").read_text())
        assert config is not None
        with self.log(name or self.name).open("ab") as log:
            self.services[name or self.name] = subprocess.Popen(
                ["ip", "netns", "exec", self.network, *ENGINE]
                + [config[1] if each == "$C" else each for each in arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=environment(),
            )

    def until_ready(self, name: str = "") -> None:
        """Wait until the service that was started last has written that it is ready."""
        process, log = self.services[name or self.name], self.log(name or self.name)
        end = time.monotonic() + PATIENCE_S
        while '"party.ready"' not in log.read_text().rpartition('"party.starting"')[2]:
            assert process.poll() is None and time.monotonic() < end, log.read_text()
            time.sleep(0.02)

    def stop(self, how: signal.Signals = signal.SIGTERM, name: str = "") -> int:
        """Signal the service and return its exit status."""
        process = self.services.pop(name or self.name)
        process.send_signal(how)
        return process.wait(PATIENCE_S)

    def reload(self, name: str = "") -> None:
        """Have the service read its documents again, and wait until its log says so."""
        before = self.log(name or self.name).read_text().count("party.reloaded")
        self.services[name or self.name].send_signal(signal.SIGHUP)
        end = time.monotonic() + PATIENCE_S
        while self.log(name or self.name).read_text().count("party.reloaded") == before:
            assert time.monotonic() < end, self.log(name or self.name).read_text()
            time.sleep(0.02)

    def log(self, name: str) -> Path:
        """Return the file of what a service wrote to standard error."""
        return self.folder / f"{name}.log"

    def until(self, command: str, *words: str) -> str:
        """Repeat a command until it says all these words, and return what it said."""
        end = time.monotonic() + PATIENCE_S
        while True:
            for name, process in self.services.items():
                assert process.poll() is None, self.log(name).read_text()
            said = self.run(f"{command} || true")
            if all(word in " ".join(said.split()) for word in words):
                return said
            self.shown.pop()
            assert time.monotonic() < end, f"{self.name}: {words} not in: {said}"
            time.sleep(0.2)

    def sockets(self) -> list[tuple[str, str, str]]:
        """Return the TCP sockets of the host: own and other address as HEX:PORT, and the kernel's state."""
        listed = subprocess.run(
            ["ip", "netns", "exec", self.network, "cat", "/proc/net/tcp", "/proc/net/tcp6"],
            check=True,
            capture_output=True,
            text=True,
            timeout=30,
        )
        rows = [line.split() for line in listed.stdout.splitlines() if "local_address" not in line]
        # An IPv4 address within IPv6 ends with itself.
        return [(row[1][-13:], row[2][-13:], row[3]) for row in rows]


@contextmanager
def hosts(folder: Path, names: Sequence[str], words: Mapping[str, str]) -> Iterator[dict[str, Host]]:
    """Make a host for each name, on one bridge; at the end nothing of them is left.

    `words` are more that is called otherwise here than in the guide.
    """
    namespaces.sweep()
    with ExitStack() as stack:
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        wait = stack.enter_context(loaded(str(sockets / "s")))
        hub = namespaces.make(stack, "hub")
        namespaces.ip("-n", hub, "link", "add", "hub", "type", "bridge")
        namespaces.ip("-n", hub, "link", "set", "hub", "up")
        made = {}
        for number, name in enumerate(names, start=1):
            host = Host(name, namespaces.make(stack, name), f"10.83.7.{number}", folder / name)
            namespaces.plug(host.network, host.address, hub, number)
            _furnish(host, str(sockets / "s"))
            stack.callback(_end_services, host)
            made[name] = host
        for host in made.values():
            host.words |= {f"{other.name}.example": other.address for other in made.values()} | dict(words)
        wait()
        yield made


def _furnish(host: Host, address: str) -> None:
    """Make the folders that the guide names, below the host's own, with the engine as if installed."""
    for path in ("etc", "var", "opt/bin", "backup", "home"):
        (host.folder / path).mkdir(parents=True)
    write_shim(host.folder / "opt/bin/mpc-engine", address, host.network)
    host.words |= {
        "/etc/mpc-engine": str(host.folder / "etc"),
        "/var/lib/mpc-engine": str(host.folder / "var"),
        "/opt/mpc-engine/src": str(ROOT),
        "/opt/mpc-engine/bin": str(host.folder / "opt/bin"),
        "/backup/": f"{host.folder / 'backup'}/",
    }


def _end_services(host: Host) -> None:
    for process in host.services.values():
        process.kill()
        process.wait()
