"""Where a scenario's silo finds its records: its own mapping, or a copy that serves the scenario."""

from __future__ import annotations

import json
from pathlib import Path

from mpc_engine.documents import read
from mpc_engine.errors import DocumentError
from mpc_engine.scenario.document import Scenario, ScenarioParty


def own_mapping(scenario: Scenario, party: ScenarioParty, folder: Path) -> Path:
    """Return the path of the mapping by which a silo registers its records.

    Made-up records, and a copy of the mapping for a codebook of the party's own, are written into `folder`.
    Raises DocumentError, also for a helper.
    """
    if party.mapping is None:
        raise DocumentError(f"{scenario.origin}: {party.name} is a helper and has no records")
    if party.records is not None:
        # Imported here, for most scenarios make no records.
        from mpc_engine.harness.records import generate

        return generate(scenario, party, folder)
    path = scenario.path(party.mapping)
    if party.codebook is None:
        return path
    fields = read(path)
    source = dict(fields.get("source", {}))
    if isinstance(source.get("file"), str):
        source["file"] = str((path.parent / source["file"]).resolve())
    target = folder / "mapping.json"
    changed = {**fields, "source": source, "codebook": str(scenario.path(party.codebook))}
    target.write_text(json.dumps(changed, indent=1), encoding="utf-8")
    return target
