"""Named places at which tests stop or fail a party; in service they do nothing.

No setting and no environment variable reaches them: only a program that replaces `hook` does, as the
tests' own entry point.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

FAILPOINTS: Final = (
    "begin",
    "reserved",
    "counted",
    "agreed",
    "before_commit",
    "after_commit",
    "committed_sent",
    "after_pattern",
    "before_opened",
    "after_opened",
    "after_signed",
    "before_released",
    "after_released",
)
"""All of them, in the order in which a session passes them."""


def _pass(name: str) -> None:
    """Do nothing."""


hook: Callable[[str], None] = _pass
"""What happens at a failpoint."""


def reach(name: str) -> None:
    """Tell the tests that a party is at this place."""
    hook(name)
