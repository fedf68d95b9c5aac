"""Network namespaces as machines: each has its own interfaces, addresses and settings of TCP.

Making them needs the rights of root on Linux, and iproute2. Whatever is made here is deleted at the end; what
a process that was killed left behind is deleted by the next one.
"""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Final

FOLDER = Path("/run/netns")
_OWN = re.compile(r"mpc([0-9]+)-[\w-]+")
_COMMAND_S = 30.0
_CLONE_NEWNET: Final = 0x40000000
TUN = Path("/dev/net/tun")


def ip(*arguments: str) -> None:
    """Run iproute2's `ip`. Raises CalledProcessError, OSError if there is none."""
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=_COMMAND_S)


@cache
def obstacle() -> str:
    """Return why there can be no network namespaces here, "" if there can."""
    name = f"mpc{os.getpid()}-probe"
    try:
        subprocess.run(["unshare", "-n", "true"], check=True, capture_output=True, timeout=_COMMAND_S)
        ip("netns", "add", name)
        try:
            ip("link", "add", "eth0", "netns", name, "type", "veth", "peer", "name", "eth1", "netns", name)
            ip("-n", name, "link", "add", "hub", "type", "bridge")
        finally:
            ip("netns", "delete", name)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", None) or str(error)
        words = said.decode() if isinstance(said, bytes) else str(said)
        return f"no network namespaces: {words.strip().splitlines()[0]}"
    return ""


@cache
def relay_obstacle() -> str:
    """Return why there can be no relay between namespaces here, "" if there can."""
    if found := obstacle():
        return found
    if not (TUN.exists() and os.access(TUN, os.R_OK | os.W_OK)):
        return f"no relay: {TUN} cannot be opened"
    return ""


def path_of(network: str) -> Path:
    """Return the file that stands for a namespace."""
    return FOLDER / network


def enter(namespace: str | Path) -> None:
    """Move this process, which has one thread, into a network namespace by the file that stands for it.

    Raises OSError.
    """
    handle = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(handle, _CLONE_NEWNET):
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), str(namespace))
    finally:
        os.close(handle)


def within(network: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs another one in a namespace."""
    return ["ip", "netns", "exec", network, *command]


def make(stack: ExitStack, name: str) -> str:
    """Make a namespace, which `stack` deletes with all that runs in it, and return its whole name."""
    network = f"mpc{os.getpid()}-{name}"
    ip("netns", "add", network)
    stack.callback(delete, network)
    ip("-n", network, "link", "set", "lo", "up")
    return network


@contextmanager
def machines(names: Sequence[str]) -> Iterator[Mapping[str, str]]:
    """Make a namespace for each name, without connections, and give their whole names by name."""
    sweep()
    with ExitStack() as stack:
        yield {name: make(stack, name) for name in names}


def plug(network: str, address: str, hub: str, number: int) -> None:
    """Connect a namespace with the bridge `hub` of the namespace of that name, by a cable of its own."""
    port = f"port{number}"
    ip("link", "add", "eth0", "netns", network, "type", "veth", "peer", "name", port, "netns", hub)
    ip("-n", hub, "link", "set", port, "master", "hub", "up")
    ip("-n", network, "address", "add", f"{address}/24", "dev", "eth0")
    ip("-n", network, "link", "set", "eth0", "up")


def configure(network: str, settings: Mapping[str, str]) -> None:
    """Set kernel parameters of a namespace, such as ``net.ipv4.tcp_congestion_control``."""
    if settings:
        words = [f"{name}={value}" for name, value in settings.items()]
        subprocess.run(
            within(network, ["sysctl", "-q", "-w", *words]),
            check=True,
            capture_output=True,
            text=True,
            timeout=_COMMAND_S,
        )


def delete(network: str) -> None:
    """End what still runs in a namespace of ours, and delete it."""
    listed = subprocess.run(
        ["ip", "netns", "pids", network], capture_output=True, text=True, timeout=_COMMAND_S
    )
    for pid in listed.stdout.split():
        with suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    ip("netns", "delete", network)


def sweep() -> None:
    """Delete what processes left behind that were killed themselves."""
    for path in FOLDER.glob("mpc*-*") if FOLDER.is_dir() else ():
        owner = _OWN.fullmatch(path.name)
        if owner is not None and not Path(f"/proc/{owner[1]}").exists():
            with suppress(subprocess.SubprocessError):
                delete(path.name)
