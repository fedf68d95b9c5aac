"""What a party sets up in its operating-system process before it touches anything secret."""

from __future__ import annotations

import ctypes
import resource
from contextlib import suppress

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def harden() -> None:
    """Forbid core dumps, which would hold shares and keys."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def keep_memory() -> None:
    """Let the C library keep freed buffers of up to 256 MiB instead of returning and faulting them in again.

    Every block needs the same few buffers; getting them anew from the kernel costs more than the
    arithmetic on them. Does nothing where the C library has no such setting.
    """
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        libc.mallopt(_M_TRIM_THRESHOLD, 1 << 28)
