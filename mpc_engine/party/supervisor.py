"""Telling systemd how the service stands, over the socket that it names; without systemd, nothing."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def tell_supervisor(*lines: str) -> None:
    """Send lines such as ``READY=1`` to the service manager that started this process, if there is one.

    Never raises: a service manager that does not listen is no reason not to serve.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    name = "\0" + address[1:] if address.startswith("@") else address
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
        sender.settimeout(1)
        sender.sendto("\n".join(lines).encode(), name)
