"""Functions that the harness wraps while parties of its own run in this process, and puts back afterwards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def wrapped(owner: Any, name: str, wrapper: Callable[[Any], Any]) -> Iterator[None]:
    """Replace a function of a module or class by `wrapper` of it, until the end.

    The wrapper must do nothing of its own where it is called by others than the harness's parties.
    """
    before = getattr(owner, name)
    setattr(owner, name, wrapper(before))
    try:
        yield
    finally:
        setattr(owner, name, before)
