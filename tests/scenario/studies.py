"""Made-up scenarios: a codebook, records of silos that are drawn from a printed seed, and their truth."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from tests.party.machines import CODEBOOK, MAPPING, QUERY

Truth = dict[tuple[str, str], int]
STAGES, SEXES = ("I", "II", "III"), ("female", "male")


def write_scenario(
    folder: Path,
    *,
    computing: int = 2,
    helpers: int = 1,
    input_only: int = 0,
    query: str = QUERY,
    seed: int = 1,
) -> tuple[Path, Truth]:
    """Write a scenario of so many computing silos, helpers and input-only silos; return its path and truth.

    The cell (III, female) is empty, all others hold at least ten patients of every silo.
    """
    print(f"seed {seed}")
    draw = random.Random(seed)
    (folder / "codebook.toml").write_text(CODEBOOK)
    (folder / "query.toml").write_text(query)
    truth: Counter[tuple[str, str]] = Counter()
    text = (
        'query = "query.toml"\ncodebook = "codebook.toml"\n'
        '[policy]\ngreatest_epsilon = "1"\nleast_threshold = 5\n'
    )
    for number in range(computing + input_only):
        lines: list[str] = []
        for stage in (1, 2, 3):
            for sex in "fm":
                if (stage, sex) != (3, "f"):
                    patients = draw.randint(10, 60)
                    truth[STAGES[stage - 1], SEXES["fm".index(sex)]] += patients
                    lines += [f"{stage},{sex}"] * patients
        draw.shuffle(lines)
        (folder / f"rows{number}.csv").write_text("\n".join(["stage,sex", *lines]) + "\n")
        (folder / f"mapping{number}.toml").write_text(MAPPING.replace("rows.csv", f"rows{number}.csv"))
        only = "computing = false\n" if number >= computing else ""
        text += f'[[party]]\nname = "silo-{number}"\nmapping = "mapping{number}.toml"\n{only}'
    for number in range(helpers):
        text += f'[[party]]\nname = "helper-{number}"\n'
    path = folder / "scenario.toml"
    path.write_text(text)
    return path, {(stage, sex): truth[stage, sex] for stage in STAGES for sex in SEXES}
