"""Settings of methods, of the gate's and of the baselines' alike, trained and compared on validation images alone.

    python benchmarks/robust_training/tuning.py --out DIR [--settings a,b] [--databases a,b] [--seeds 0,1]

Trains what is not there yet below `DIR/tuning` and prints one line per setting, after one of its method as the
comparison has it (below `DIR`): SROCC of clean and of attacked validation images per database, means over seeds, and
the mean of all of them. No test image is looked at.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from experiment import train
from methods import METHODS, WIDE_SORT_MASK, Method, Section, gate, in_float32, weighted
from results import card


@dataclass(frozen=True)
class Setting:
    """A method with other parameters."""

    base: str
    """The method's name."""
    method: Method


def _gated(params: Section) -> Setting:
    base = "sort-mask-correlation"
    return Setting(base, replace(METHODS[base], params=params))


def _elements(where: str = "every", **params: Any) -> Setting:
    return _gated(gate("sort-mask", where, form="elements", **params))


def _ranked(where: str = "every", **params: Any) -> Setting:
    base = "soft-rank-correlation"
    return Setting(base, in_float32(base, METHODS[base].about, gate("soft-rank", where, **params)))


def _weighted(base: str, term: str, weight: float) -> Setting:
    return Setting(base, weighted(base, term, weight))


def _judged(base: str, name: str) -> Setting:
    """A setting that was chosen, and is a method of the comparison now."""
    return Setting(base, METHODS[name])


SETTINGS: dict[str, Setting] = {
    "threshold-1": _elements(threshold=1.0),
    "threshold-2": _elements(threshold=2.0),
    "last": _elements("last"),
    "last-threshold-2": _elements("last", threshold=2.0),
    "channels": _gated(gate("sort-mask")),
    "soft-rank-fp32": _ranked(),
    "soft-rank-last": _ranked("last"),
    "soft-rank-sharp": _ranked(temperature=0.1),
    "soft-rank-softsort": _ranked(operator="softsort"),
    "soft-rank-permutahedron": _ranked(operator="permutahedron"),
    "wide-sort-mask-at": Setting(
        "sort-mask-at", in_float32("sort-mask-at", METHODS["sort-mask-at"].about, WIDE_SORT_MASK)
    ),
    "correlation-4": _judged("correlation", "correlation-4"),
    "wide-sort-mask-correlation-4": _judged("wide-sort-mask-correlation", "wide-sort-mask-correlation-4"),
    "trades-2": _weighted("trades", "difference", 2.0),
    "trades-20": _judged("trades", "trades-20"),
    "nt-weaker": _judged("nt", "nt-weaker"),
    "nt-stronger": _weighted("nt", "gradient-norm", 0.25),
}
"""By name; those of one method stand together. `at` has no weight, and `at-mixed` is its other form."""


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
                status |= train(out, setting, SETTINGS[setting].method, database, seed)
    if status:
        raise SystemExit(1)
    sys.stdout.write(table(given.out, settings, databases, seeds))


def table(out: Path, settings: Sequence[str], databases: Sequence[str], seeds: Sequence[int]) -> str:
    """As Markdown."""
    lines = [f"| setting | {', clean / attacked | '.join(databases)}, clean / attacked | mean |"]
    lines.append(f"|{'---|' * (len(databases) + 2)}")
    bases = dict.fromkeys(SETTINGS[setting].base for setting in settings)
    for base in bases:
        lines.append(_line(out, base, databases, seeds))
        lines += [
            _line(out / "tuning", setting, databases, seeds) for setting in settings if SETTINGS[setting].base == base
        ]
    return "\n".join([*lines, ""])


def _line(folder: Path, name: str, databases: Sequence[str], seeds: Sequence[int]) -> str:
    found = np.array([[_both(folder / database / f"{name}-seed{k}.md") for k in seeds] for database in databases])
    texts = [f"{clean:.2f} / {attacked:.2f}" for clean, attacked in found.mean(axis=1)]
    return f"| `{name}` | {' | '.join(texts)} | {found.mean():.3f} |"


def _both(path: Path) -> tuple[float, float]:
    values = card(path)
    return values["srocc"], values["srocc_attacked"]


if __name__ == "__main__":
    main()
