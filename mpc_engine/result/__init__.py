"""Results: a release read again as tables, layouts, pictures and plain words, all in the clear.

A session publishes whole numbers only. What an analyst sees is a pure function of that document and of the
codebook, so anybody who holds both can make it again, here or years later. pandas and matplotlib live here
and nowhere nearer to shares; whoever starts fast imports this package late.
"""

from __future__ import annotations

from mpc_engine.result.result import Result

__all__ = ["Result"]
