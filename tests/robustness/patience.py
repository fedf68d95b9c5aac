"""An analyst who asks again when told to wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from mpc_engine.errors import RateLimitError

T = TypeVar("T")


def patiently(call: Callable[[], T]) -> T:
    """Make a call again while the analyst's own quota, which these tests use up, is exhausted."""
    while True:
        try:
            return call()
        except RateLimitError:
            time.sleep(0.5)
