"""Made-up records that fit a codebook and, with a mapping, one silo's own columns and codes.

Every query can be tried on them before it is asked of patients. They are drawn from the codebook and the
mapping alone; no record is ever opened. See :mod:`~mpc_engine.silo.dummy.values` for what is plausible about
them and what is not.
"""

from __future__ import annotations

from mpc_engine.silo.dummy.files import new_seed, write_records, write_source
from mpc_engine.silo.dummy.records import (
    coded_chunks,
    dummy_records,
    dummy_source,
    record_chunks,
    source_chunks,
)

__all__ = [
    "coded_chunks",
    "dummy_records",
    "dummy_source",
    "new_seed",
    "record_chunks",
    "source_chunks",
    "write_records",
    "write_source",
]
