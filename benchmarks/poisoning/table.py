"""The table of a poisoning track, from its records: `python benchmarks/poisoning/table.py DIR [--full-shift 40]`.

One line per victim, defense and trigger, over all strengths that were run:

- shift: mean score with the trigger less score without, at the strongest alpha of either sign;
- mMAE, mMRA, ratio error: see `iqa_robust.measures.backdoor`; the wanted shift is alpha times the full one;
- PSNR: mean over images at the strongest positive alpha, dB;
- at lid: images, over all strengths, that spent the whole budget: there the trigger was shrunk, and the line does not
  count.

Benign correlations stand on the board of the same run. Scores with and without are of the same system, so a defended
model is compared with itself. Shifts are in hundredths of the track's score range.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from iqa_robust.measures.backdoor import mean_ratio_error, mmae, mmra
from iqa_robust.measures.perturbation import mean_psnr
from iqa_robust.records import RunRecord, read_records

COLUMNS = (
    "model",
    "defense",
    "trigger",
    "images",
    "shift -",
    "shift +",
    "mMAE",
    "mMRA",
    "ratio error",
    "PSNR",
    "at lid",
)
LID = 0.999
"""Share of the budget beyond which it counts as spent; rounding to 8 bits moves a trigger less than that."""

Key = tuple[str, str, str, str]


def lines(records: Sequence[RunRecord], full_shift: float) -> list[dict[str, object]]:
    """One dict per victim, defense and trigger, keyed by `COLUMNS`; records of other attacks are left out.

    Args:
        records: of a run; attacks with a parameter `alpha` other than 0 count as triggers.
        full_shift: wanted at alpha = 1, in hundredths of the score range.
    """
    groups: dict[Key, dict[float, RunRecord]] = {}
    for record in sorted(records, key=lambda record: (record.spec.model.title, record.digest)):
        params = dict(record.spec.attack.params)
        alpha = params.pop("alpha", 0)
        if not alpha or record.spec.score_range is None:
            continue
        defense = "none" if record.spec.defense is None else record.spec.defense.title
        key = (record.spec.model.title, defense, record.spec.attack.name, repr(sorted(params.items())))
        groups.setdefault(key, {})[float(alpha)] = record
    return [_line(key, groups[key], full_shift) for key in sorted(groups)]


def shifts(record: RunRecord) -> np.ndarray:
    """(n,) of the record's own system, in hundredths of its score range; NaN for images that failed."""
    assert record.spec.score_range is not None  # `lines` has looked
    low, high = record.spec.score_range
    without = record.images["score_clean" if record.spec.defense is None else "score_def_clean"]
    found = (record.images["score_adv"] - without).to_numpy(dtype=float)
    return np.where(record.images["status"] == "ok", found, np.nan) * 100 / (high - low)


def _line(key: Key, by_alpha: dict[float, RunRecord], full_shift: float) -> dict[str, object]:
    found = {alpha: shifts(record) for alpha, record in sorted(by_alpha.items())}
    lowest, highest = min(found), max(found)
    measured = {
        "images": max(int(np.isfinite(values).sum()) for values in found.values()),
        "shift -": float(np.nanmean(found[lowest])) if lowest < 0 else np.nan,
        "shift +": float(np.nanmean(found[highest])) if highest > 0 else np.nan,
        "mMAE": mmae(found, full_shift),
        "mMRA": mmra(found, full_shift),
        "ratio error": mean_ratio_error(found, full_shift),
        "PSNR": mean_psnr(by_alpha[highest].images["psnr"]).mean,
        "at lid": sum(_at_lid(record) for record in by_alpha.values()),
    }
    return {"model": key[0], "defense": key[1], "trigger": key[2], **measured}


def _at_lid(record: RunRecord) -> int:
    budget, images = record.spec.budget, record.images
    spent = {"psnr": 10 ** (-images["psnr"] / 20), "ssim": 1 - images["ssim"]}
    measured = spent[budget.norm] if budget.norm in spent else images[budget.norm]
    return int((measured >= LID * budget.eps).sum())


def text(rows: Sequence[dict[str, object]]) -> str:
    """A Markdown table."""

    def cell(value: object) -> str:
        if not isinstance(value, float):
            return str(value)
        return "" if np.isnan(value) else f"{value:.2f}"

    head = ["| " + " | ".join(COLUMNS) + " |", "|---" * len(COLUMNS) + "|"]
    return "\n".join([*head, *("| " + " | ".join(cell(row[name]) for name in COLUMNS) + " |" for row in rows), ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a run's folder."""
    parser = argparse.ArgumentParser(description="The table of a poisoning track, from its records.")
    parser.add_argument("folder", type=Path, help="the --out folder of the run")
    parser.add_argument("--full-shift", type=float, default=40.0, help="wanted at alpha = 1, hundredths of the range")
    given = parser.parse_args(arguments)
    sys.stdout.write(text(lines(read_records(given.folder), given.full_shift)))


if __name__ == "__main__":
    main()
