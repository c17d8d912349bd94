"""Defenses under every attacker, from records, as Markdown: `python benchmarks/defenses/table.py DIR [DIR ...]`.

Per folder of records and radius, one line per system; then the share of purifiers whose protection against an oblivious
attacker disappears. Columns are those of `iqa_robust.tables.verdicts`; shifts are in deviations of the system's own
clean scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

from iqa_robust.records import read_records
from iqa_robust.tables.verdicts import disappeared, met, verdicts

DIGITS = {
    "clean SROCC": ("srocc_clean", 2),
    "drift": ("drift_scaled", 3),
    "ms": ("milliseconds", 0),
    "oblivious": ("shift_oblivious", 2),
    "adaptive": ("shift_adaptive", 2),
    "black-box": ("shift_black_box", 2),
}
"""Columns of numbers, and how many digits follow the point."""


def lines(found: pd.DataFrame) -> Iterator[str]:
    """The table of one folder and radius."""
    header = ["defense", *DIGITS, "strongest", "its SROCC", "seen by an oblivious attacker", "left", "flags"]
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in found.to_dict("records"):
        cells = [f"`{row['defense']}`", *(_number(row[name], digits) for name, digits in DIGITS.values())]
        cells += [f"`{row['strongest']}`, {row['strongest_knowledge']}", _number(row["srocc_strongest"], 2)]
        cells += [_number(row[name], 2) for name in ("protection_oblivious", "protection")]
        yield f"| {' | '.join([*cells, row['flags'].replace(';', ', ')])} |"


def _number(value: float, digits: int) -> str:
    return "" if pd.isna(value) else f"{value:.{digits}f}"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    text: list[str] = []
    for folder in parser.parse_args().folders:
        table = verdicts(read_records(folder))
        table = table.sort_values("defense", key=lambda names: names.where(names != "none", ""))
        for eps, found in table[met(table)].groupby("eps_255"):
            lost, had = disappeared(found)
            images = int(found["n_images"].max())
            text += [
                "",
                f"### {found['track'].iloc[0]}, {images} images, {eps:g}/255",
                "",
                *lines(found),
                "",
                f"Lose half of it or more: {lost} of {had} that keep a tenth against an oblivious attacker.",
            ]
    sys.stdout.write("\n".join([*text, ""]))


if __name__ == "__main__":
    main()
