"""`python data/ultra_rare/draw.py`: draws the patients of this folder from those of `data/rare_cells`.

Sixty patients with unfavourable histology, without replacement, divided among five hospitals in the order in
which they were drawn. The same seed draws the same patients.
"""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

SEED = 60
SIZES = (22, 15, 11, 8, 4)
"""Patients of each hospital."""
HERE = Path(__file__).resolve().parent
SOURCE = HERE.parent / "rare_cells"


def drawn() -> list[list[dict[str, str]]]:
    """Return the patients of each hospital as rows of text by column."""
    pool: list[dict[str, str]] = []
    for hospital in range(5):
        with (SOURCE / f"silo_H{hospital}.csv").open(encoding="utf-8", newline="") as file:
            pool += [row for row in csv.DictReader(file) if row["histol"] == "UH"]
    chosen = iter(np.random.default_rng(SEED).choice(len(pool), sum(SIZES), replace=False).tolist())
    return [[pool[next(chosen)] for _ in range(size)] for size in SIZES]


def main() -> None:
    """Write the five files."""
    for hospital, rows in enumerate(drawn()):
        with (HERE / f"silo_U{hospital}.csv").open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["patient", "age_band", "stage", "rel", "edrel"])
            for number, row in enumerate(rows, start=1):
                held = [row[name] for name in ("age_band", "stage", "rel", "edrel")]
                writer.writerow([f"U{hospital}-{number:02d}", *held])


if __name__ == "__main__":
    main()
