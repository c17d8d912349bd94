"""The table of the comparison, from its records and cards, as Markdown.

    python benchmarks/robust_training/table.py --out DIR [--databases a,b] [--against at]

One line per method and database; means over the seeds, with the lowest and the highest where there are several. Images,
boards and flags are those of the runs below `DIR/results`.

- validation: SROCC of clean and of attacked images on the held-out part of the training split, from the cards.
- 1, 2, 4 of 255: SROCC of the test images under the attack that leaves the least (one cell, the whole set).
- worst-case: SROCC under that attack alone, 2/255, through a purifier or around it; `-` where it was not run.
- shift / sd: mean over the images of the largest shift in any cell at 2/255, in deviations of the model's own clean
  scores.
- shift, % MOS: mean shift under the attack at 2/255 that moves furthest, in percent of the scale of the labels, through
  the logistic from the bare model's clean scores to labels.
- minus AT: SROCC under the strongest attack at 2/255, less that of the method `--against` under its own strongest
  attack, on the same images and seed, with its 95 % interval (paired bootstrap over images, or over whole contents
  where images share one; ends are means over seeds).
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from databases import DATABASES
from results import EPS, attacked_srocc, card, is_worst_case, method, records_of, shift_in_labels, sign, systems

from iqa_robust.measures import paired_interval
from iqa_robust.records import RunRecord
from iqa_robust.tables.cells import defense_title

COLUMNS = (
    "method", "seeds", "validation: clean", "attacked", "test: clean", "1/255", "2/255", "4/255", "worst-case",
    "shift / sd", "shift, % MOS", "minus AT", "flags",
)  # fmt: skip


def lines(database: str, out: Path, against: str) -> tuple[int, list[dict[str, str]]]:
    """Images judged, and one dict per method keyed by `COLUMNS`."""
    records = records_of(database, out)
    if not records:
        return 0, []
    found = systems(records)
    rows = [
        _line(str(name), database, out, part, records, against) for name, part in found.groupby("method", sort=False)
    ]
    return int(found["n_images"].max()), rows


def _line(
    name: str, database: str, out: Path, found: pd.DataFrame, records: Sequence[RunRecord], against: str
) -> dict[str, str]:
    two = found[found["eps_255"] == EPS]
    models = sorted(set(found["model"]))
    cards = [card(out / database / f"{model}.md") for model in models] if "behind" not in name else []
    worst: dict[str, float] = {}  # through a purifier and around it, whichever leaves less
    for record in records:
        model = record.spec.model.title
        if is_worst_case(record) and method(model, defense_title(record.spec)) == name:
            worst[model] = min(attacked_srocc(record), worst.get(model, 1.0))
    flags = sorted({flag for cell in found["flags"] if cell for flag in str(cell).split(";")})
    return {
        "method": f"`{name}`",
        "seeds": str(len(models)),
        "validation: clean": _mean([card["srocc"] for card in cards if "srocc" in card]),
        "attacked": _mean([card["srocc_attacked"] for card in cards if "srocc_attacked" in card]),
        "test: clean": _mean(two["srocc_clean"]),
        **{f"{eps}/255": _mean(found[found["eps_255"] == eps]["srocc_strongest"]) for eps in (1, 2, 4)},
        "worst-case": _mean(list(worst.values())),
        "shift / sd": _mean(two["shift_worst"]),
        "shift, % MOS": _mean([_furthest(str(row.model), str(row.defense), records) for row in two.itertuples()]),
        "minus AT": _difference(two, records, against),
        "flags": ", ".join(flags),
    }


def _mean(values: Sequence[float] | pd.Series) -> str:
    given = np.asarray(values, dtype=float)
    if not given.size:
        return "-"
    if np.isnan(given).any():
        return "undefined"
    spread = f" ({given.min():.2f} to {given.max():.2f})" if given.size > 1 else ""
    return f"{given.mean():.2f}{spread}"


def _difference(two: pd.DataFrame, records: Sequence[RunRecord], against: str) -> str:
    """Over the seeds that both methods have."""
    found = []
    for row in two.itertuples():
        seed = re.search(r"-seed\d+$", str(row.model))
        own = _strongest(str(row.model), str(row.defense), records)
        other = None if seed is None else _strongest(f"{against}{seed[0]}", "none", records)
        if own is None or other is None or own is other:
            continue
        images = own.images.set_index("image_id")
        rival = other.images.set_index("image_id").reindex(images.index)
        interval = paired_interval(
            "srocc",
            images["score_adv"],
            rival["score_adv"],
            sign(own) * images["mos"],
            clusters=images["reference_id"].to_numpy(),
        )
        found.append((attacked_srocc(own) - attacked_srocc(other), interval.lo, interval.hi))
    if not found:
        return ""
    value, low, high = np.mean(found, axis=0)
    return "undefined" if np.isnan(value) else f"{value:+.2f} ({low:+.2f} to {high:+.2f})"


def _strongest(model: str, defense: str, records: Sequence[RunRecord]) -> RunRecord | None:
    """The cell at `EPS` with the lowest attacked SROCC."""
    return min(_attacked(model, defense, records), key=attacked_srocc, default=None)


def _furthest(model: str, defense: str, records: Sequence[RunRecord]) -> float:
    return max(map(shift_in_labels, _attacked(model, defense, records)))


def _attacked(model: str, defense: str, records: Sequence[RunRecord]) -> list[RunRecord]:
    """The cells of a system at `EPS`; controls are no attacks."""
    return [
        record
        for record in records
        if record.spec.model.title == model
        and defense_title(record.spec) == defense
        and record.spec.budget.eps_255 == EPS
        and not record.facts.get("control")
    ]


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--databases", default=",".join(DATABASES))
    parser.add_argument("--against", default="at")
    given = parser.parse_args()
    for database in given.databases.split(","):
        images, rows = lines(database, given.out, given.against)
        if not rows:
            continue
        table = [f"| {' | '.join(COLUMNS)} |", f"|{'---|' * len(COLUMNS)}"]
        table += [f"| {' | '.join(row[name] for name in COLUMNS)} |" for row in rows]
        sys.stdout.write("\n".join(["", f"### {database}, {images} test images", "", *table, ""]))


if __name__ == "__main__":
    main()
