"""The presets there are, found among the modules of this package, and the loader of query documents."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any, get_args

import mpc_engine.statistics as package
from mpc_engine.documents import parse, read, refuse
from mpc_engine.statistics.query import Query


@cache
def presets() -> Mapping[str, type[Query]]:
    """Return the model of each preset by its name. A new preset is a new module and nothing else."""
    found: dict[str, type[Query]] = {}
    for module in iter_modules(package.__path__):
        for thing in vars(import_module(f"{package.__name__}.{module.name}")).values():
            if isinstance(thing, type) and issubclass(thing, Query) and thing is not Query:
                for name in get_args(thing.model_fields["preset"].annotation):
                    found[name] = thing
    return dict(sorted(found.items()))


def parse_query(data: Mapping[str, Any], origin: str = "query") -> Query:
    """Return the query in ``data``; raises :class:`~mpc_engine.errors.DocumentError` naming the key."""
    name = data.get("preset")
    model = presets().get(name) if isinstance(name, str) else None
    if model is None:
        state = "is required and missing" if name is None else "is not known"
        raise refuse(origin, [("preset", f"{state}; presets: {', '.join(presets())}")])
    return parse(data, model, origin)


def load_query(path: str | Path) -> Query:
    """Read the query at ``path``, TOML or JSON; errors as :func:`parse_query`."""
    return parse_query(read(path), str(path))
