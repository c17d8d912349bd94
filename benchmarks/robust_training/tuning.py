"""Settings of the gate of one method, trained and compared on validation images alone.

    python benchmarks/robust_training/tuning.py --out DIR [--settings a,b] [--databases a,b] [--seeds 0,1]

Trains what is not there yet below `DIR/tuning` and prints one line per setting, after one of the method as the
comparison has it (below `DIR`): SROCC of clean and of attacked validation images per database, means over seeds, and
the mean of all of them. No test image is looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from experiment import train
from methods import METHODS, gate
from results import card

BASE = "sort-mask-correlation"


def _setting(where: str = "every", **params: Any) -> dict[str, Any]:
    return gate("sort-mask", where, form="elements", **params)


SETTINGS: dict[str, dict[str, Any]] = {
    "threshold-quarter": _setting(threshold=0.25),
    "threshold-1": _setting(threshold=1.0),
    "threshold-2": _setting(threshold=2.0),
    "last": _setting("last"),
    "last-threshold-2": _setting("last", threshold=2.0),
    "channels": gate("sort-mask"),
}
"""Parameters of the network by the setting's name."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, then print the table; the exit status is 1 where a training failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--settings", default=",".join(SETTINGS))
    parser.add_argument("--databases", default="clive,biq2021,photos")
    parser.add_argument("--seeds", default="0")
    given = parser.parse_args(arguments)
    settings, databases = given.settings.split(","), given.databases.split(",")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    out = given.out / "tuning"
    status = 0
    for database in databases:
        for setting in settings:
            for seed in seeds:
                status |= train(out, setting, replace(METHODS[BASE], params=SETTINGS[setting]), database, seed)
    if status:
        raise SystemExit(1)
    sys.stdout.write(table(given.out, settings, databases, seeds))


def table(out: Path, settings: Sequence[str], databases: Sequence[str], seeds: Sequence[int]) -> str:
    """As Markdown."""
    lines = [f"| setting | {', clean / attacked | '.join(databases)}, clean / attacked | mean |"]
    lines.append(f"|{'---|' * (len(databases) + 2)}")
    for folder, setting in ((out, BASE), *((out / "tuning", setting) for setting in settings)):
        found = np.array(
            [[_both(folder / database / f"{setting}-seed{k}.md") for k in seeds] for database in databases]
        )
        texts = [f"{clean:.2f} / {attacked:.2f}" for clean, attacked in found.mean(axis=1)]
        lines.append(f"| `{setting}` | {' | '.join(texts)} | {found.mean():.3f} |")
    return "\n".join([*lines, ""])


def _both(path: Path) -> tuple[float, float]:
    values = card(path)
    return values["srocc"], values["srocc_attacked"]


if __name__ == "__main__":
    main()
