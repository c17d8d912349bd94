"""What is left of every system under the strongest attack of its track, whatever the attacker knew."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from iqa_robust.measures.correlation import srocc
from iqa_robust.measures.direction import toward_better
from iqa_robust.records import KNOWLEDGE, RunRecord, RunSpec
from iqa_robust.tables.cells import BARE, defense_title, fact, flags_of, group, group_specs
from iqa_robust.tables.ranking import system

COLUMNS = (
    "track",
    "model",
    "defense",
    "norm",
    "eps_255",
    "n_images",
    "srocc_clean",
    "drift_scaled",
    "milliseconds",
    "memory_mb",
    *(f"shift_{name.replace('-', '_')}" for name in KNOWLEDGE),
    "shift_worst",
    "srocc_strongest",
    "srocc_worst",
    "strongest",
    "strongest_knowledge",
    "protection_oblivious",
    "protection",
    "flags",
)
VERDICT_NEEDS = ("image_id", "status", "mos", "score_clean", "score_def_clean", "score_adv")
"""Columns of the images that verdicts are made from."""
LEAST_PROTECTION = 0.1
"""Protection against an oblivious attacker below which there is nothing that could disappear."""
DISAPPEARED = 0.5
"""Share of the oblivious protection of which at least so much must be lost to speak of disappearing."""


def verdicts(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per system (model and defense), norm and radius; controls and failed cells are left out.

    Columns (shifts are means of |shift| from the system's own clean scores of the same seed, in units of the spread of
    all clean scores, their deviation over the images there are):

    - `srocc_clean`, `drift_scaled`: the system's own clean SROCC, and the mean absolute difference that the defense
      makes to clean scores, as a share of the score range (native units where there is none).
    - `milliseconds`, `memory_mb`: of one clean score of one image; the least over the cells of the system.
    - `shift_oblivious`, `shift_adaptive`, `shift_black_box`: of the attack of that knowledge that moves furthest.
    - `shift_worst`, `srocc_worst`: per image, the attacked score that lies furthest from its clean one in any cell.
    - `strongest`, `strongest_knowledge`, `srocc_strongest`: the single cell with the lowest attacked SROCC.
    - `protection_oblivious`, `protection`: 1 - shift / (`shift_worst` of the bare model), for the oblivious attacks and
      for `shift_worst`; negative where the defended model is easier to move.
    - `flags`: all flags of the cells.

    Raises:
        RecordError: a record is given twice, or lacks a fact.
    """
    known = {record.digest: record for cell in group(records) for record in cell}
    groups = system_groups([record.spec for record in records])
    return joined(verdict([known[spec.digest] for spec in specs]) for specs in groups)


def system_groups(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """The specs behind each row of `verdicts`, in the order of a board; a row may turn out to have no verdict."""
    groups: dict[tuple[str, str, str, str, float], list[RunSpec]] = {}
    for cell in group_specs(specs):
        spec = cell[0]
        key = (spec.track, spec.manifest, system(spec), spec.budget.norm, spec.budget.eps_255)
        groups.setdefault(key, []).extend(cell)
    return list(groups.values())


def verdict(records: Sequence[RunRecord]) -> dict[str, Any] | None:
    """The row of one of the `system_groups` for `joined`; None where all are controls or failed."""
    counted = [record for record in records if record.status != "failed" and not record.facts.get("control")]
    return _row(counted) if counted else None


def joined(found: Iterable[dict[str, Any] | None]) -> pd.DataFrame:
    """Rows as a table, with the protection that each defense gives to its bare model."""
    rows = [row for row in found if row is not None]
    for row in rows:
        bare = [
            other["shift_worst"]
            for other in rows
            if other["defense"] == BARE and all(other[name] == row[name] for name in ("manifest", *_CONTEST))
        ]
        if row["defense"] != BARE and bare and bare[0] > 0:
            row["protection_oblivious"] = 1 - row["shift_oblivious"] / bare[0]
            row["protection"] = 1 - row["shift_worst"] / bare[0]
    return pd.DataFrame([{name: row[name] for name in COLUMNS} for row in rows], columns=list(COLUMNS))


_CONTEST = ("track", "model", "norm", "eps_255")


def met(table: pd.DataFrame) -> pd.Series:
    """Per row, whether somebody attacked that system itself; a row is not robust because nobody did."""
    return table[["shift_adaptive", "shift_black_box"]].notna().any(axis=1)


def disappeared(table: pd.DataFrame) -> tuple[int, int]:
    """Of the rows protected against oblivious attackers: how many lose half of that or more, and how many there are.

    A row that no attacker met who attacks the defended model itself is neither: what it would lose is not known.
    """
    had = table[met(table) & (table["protection_oblivious"] >= LEAST_PROTECTION)]
    lost = 1 - had["protection"] / had["protection_oblivious"]
    return int((lost >= DISAPPEARED).sum()), len(had)


def _row(records: Sequence[RunRecord]) -> dict[str, Any]:
    first = records[0]
    spec = first.spec
    column = _own_clean_column(first)
    clean, mos = _over_seeds(records, column), _over_seeds(records, "mos")
    spread = float(clean.std(ddof=0))  # NaN, without a warning, where no image has a score
    sign = fact(first, "higher_is_better")
    adv = {record.digest: _by_image(record, "score_adv").reindex(clean.index) for record in records}
    # A randomized defense has other clean scores for every seed.
    moved = {record.digest: adv[record.digest] - _by_image(record, column).reindex(clean.index) for record in records}
    means = {digest: float(shift.abs().mean()) / spread if spread else math.nan for digest, shift in moved.items()}
    correlations = {digest: _srocc(first, mos, scores, sign) for digest, scores in adv.items()}
    strongest = min(records, key=lambda record: (_or_top(correlations[record.digest]), record.digest))
    shifts, reached = (pd.DataFrame(columns).to_numpy() for columns in (moved, adv))
    furthest = np.where(np.isnan(shifts), -1.0, np.abs(shifts)).argmax(axis=1)[:, None]
    worst, worst_adv = (
        pd.Series(np.take_along_axis(values, furthest, axis=1)[:, 0], index=clean.index) for values in (shifts, reached)
    )
    by_knowledge = {name: _top(means[r.digest] for r in records if r.spec.knowledge == name) for name in KNOWLEDGE}
    span = 1.0 if spec.score_range is None else spec.score_range[1] - spec.score_range[0]
    drift = 0.0 if spec.defense is None else float((clean - _over_seeds(records, "score_clean")).abs().mean()) / span
    return {
        "manifest": spec.manifest,
        "track": spec.track,
        "model": spec.model.title,
        "defense": defense_title(spec),
        "norm": spec.budget.norm,
        "eps_255": spec.budget.eps_255,
        "n_images": len(clean),
        "srocc_clean": _srocc(first, mos, clean, sign),
        "drift_scaled": drift,
        "milliseconds": -_top(-record.probes.get("milliseconds", math.nan) for record in records),
        "memory_mb": -_top(-record.probes.get("memory_mb", math.nan) for record in records),
        **{f"shift_{name.replace('-', '_')}": value for name, value in by_knowledge.items()},
        "shift_worst": float(worst.abs().mean()) / spread if spread else math.nan,
        "srocc_strongest": correlations[strongest.digest],
        "srocc_worst": _srocc(first, mos, worst_adv, sign),
        "strongest": strongest.spec.attack.title,
        "strongest_knowledge": strongest.spec.knowledge,
        "protection_oblivious": math.nan,
        "protection": math.nan,
        "flags": ";".join(flags_of(tuple(records))),
    }


def _top(values: Iterable[float]) -> float:
    """The largest of those that are known; NaN where none is."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


def _over_seeds(records: Sequence[RunRecord], column: str) -> pd.Series:
    """By image, the mean over the seeds of what any cell knows: a cell that failed on an image does not hide it."""
    by_seed: dict[int, pd.Series] = {}
    for record in records:
        found = _by_image(record, column)
        known = by_seed.get(record.spec.seed)
        by_seed[record.spec.seed] = found if known is None else known.combine_first(found)
    return pd.DataFrame(by_seed).mean(axis=1)


def _own_clean_column(record: RunRecord) -> str:
    return "score_clean" if record.spec.defense is None else "score_def_clean"


def _by_image(record: RunRecord, column: str) -> pd.Series:
    good = record.images[record.images["status"] == "ok"]
    return pd.Series(good[column].to_numpy(dtype=float), index=good["image_id"].to_numpy())


def _srocc(record: RunRecord, mos: pd.Series, scores: pd.Series, higher_is_better: bool) -> float:
    return srocc(
        toward_better(scores.to_numpy(dtype=float), higher_is_better),
        toward_better(mos.reindex(scores.index).to_numpy(dtype=float), fact(record, "mos_higher_is_better")),
    )


def _or_top(value: float) -> float:
    return math.inf if math.isnan(value) else value
