"""The board: one row per cell, derived from records and from nothing else."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from iqa_robust.measures import BOARD_MEASURES, FURTHER_MEASURES
from iqa_robust.records import Budget, RunRecord
from iqa_robust.tables.cells import (
    average,
    defense_title,
    flags_of,
    group,
    measure,
    n_failed,
    plugins,
    status_of,
)
from iqa_robust.tables.ranking import ranks

BOARD_COLUMNS = (
    *("track", "rank", "model", "defense", "attack", "goal", "norm", "eps_255", "knowledge", "n_images", "n_failed"),
    *BOARD_MEASURES,
    *("seconds", "flags", "status", "plugin", "run"),
)
"""The columns of a board, in order."""
TEXT_COLUMNS = ("track", "model", "defense", "attack", "goal", "norm", "knowledge", "flags", "status", "plugin", "run")
INTEGER_COLUMNS = ("n_images", "n_failed")
"""The other columns are float64."""


def board(records: Sequence[RunRecord]) -> pd.DataFrame:
    """The board of records: one row per cell, `BOARD_COLUMNS`, in an order that does not depend on that of `records`.

    Records that differ in their seed only share a row: measures are means over the seeds that did not fail (of
    `linf_max_255` the largest), `n_images` is that of one seed, `n_failed` that of the worst, `seconds` the sum,
    `flags` the union, `run` all digests joined by `;`. `status` is `failed` where every seed failed and `partial`
    where any seed failed or is partial. A failed row has no measures: NaN.

    `rank` counts within one track, attack, goal and budget, by `srocc_adv`, 1 is the most robust; see
    `iqa_robust.tables.ranking.ranks` for which rows compete.

    Raises:
        RecordError: a record is given twice or lacks a fact that the measures need.
    """
    return assemble([reduced(record) for record in records])


@dataclass(frozen=True)
class Reduced:
    """A record without its images, and what a board needs to know of them."""

    record: RunRecord
    measures: dict[str, float]
    n_images: int
    n_failed: int


def reduced(record: RunRecord) -> Reduced:
    """What is left of a record when its images are dropped. Raises `RecordError` as `board` does."""
    empty = dataclasses.replace(record, images=record.images.iloc[:0])
    return Reduced(empty, measure(record), len(record.images), n_failed(record))


def assemble(everything: Sequence[Reduced]) -> pd.DataFrame:
    """The board of reduced records; see `board`."""
    cells = group([one.record for one in everything])
    by_digest = {one.record.digest: one for one in everything}
    rows = [_row([by_digest[record.digest] for record in cell]) for cell in cells]
    for values, rank in zip(rows, ranks(cells, rows), strict=True):
        values["rank"] = rank
    frame = pd.DataFrame(rows, columns=list(BOARD_COLUMNS))
    return frame.astype({name: _dtype(name) for name in BOARD_COLUMNS if name not in TEXT_COLUMNS})


def row(record: RunRecord) -> dict[str, Any]:
    """The board's columns of a single record, and the measures a board has no room for. A single record has no rank."""
    return _row([reduced(record)])


def summary_rows(board: pd.DataFrame) -> list[dict[str, str]]:
    """The columns a person looks at first, as text for a terminal; one dict per row, the same keys in each."""
    goals = board.groupby("attack")["goal"].nunique()
    return [_summary(values, goals[values["attack"]] > 1) for values in board.to_dict("records")]


def _row(seeds: Sequence[Reduced]) -> dict[str, Any]:
    cell = tuple(one.record for one in seeds)
    spec = cell[0].spec
    measures = average([one.measures for one in seeds if one.record.status != "failed"])
    seconds = [record.seconds for record in cell if math.isfinite(record.seconds)]
    values: dict[str, Any] = {
        "track": spec.track,
        "rank": math.nan,
        "model": spec.model.title,
        "defense": defense_title(spec),
        "attack": spec.attack.title,
        "goal": spec.goal,
        "norm": spec.budget.norm,
        "eps_255": float(spec.budget.eps_255),
        "knowledge": spec.knowledge,
        "n_images": max(one.n_images for one in seeds),
        "n_failed": max(one.n_failed for one in seeds),
        "seconds": sum(seconds) if seconds else math.nan,
        "flags": ";".join(flags_of(cell)),
        "status": status_of(cell),
        "plugin": plugins(spec),
        "run": ";".join(record.digest for record in cell),
        **measures,
    }
    return {name: values[name] for name in (*BOARD_COLUMNS, *FURTHER_MEASURES)}


def _dtype(name: str) -> type:
    return np.int64 if name in INTEGER_COLUMNS else np.float64


def _summary(values: dict[Any, Any], several_goals: bool) -> dict[str, str]:
    failed = f" ({values['n_failed']} failed)" if values["n_failed"] else ""
    interval = f" [{_short(values['srocc_adv_lo'])}, {_short(values['srocc_adv_hi'])}]"
    return {
        "model": values["model"],
        "defense": values["defense"],
        "attack": values["attack"] + (f" ({values['goal']})" if several_goals else ""),
        "budget": Budget(norm=values["norm"], eps_255=float(values["eps_255"])).size,
        "knowledge": values["knowledge"],
        "images": f"{values['n_images']}{failed}",
        "SROCC": _short(values["srocc_clean"]),
        "attacked": _short(values["srocc_adv"]) + ("" if math.isnan(values["srocc_adv_lo"]) else interval),
        "shift/range": _short(values["shift_abs_scaled"]),
        "shift/sd": _short(values["shift_abs_sd"]),
        "flags": values["flags"].replace(";", ", "),
        "status": values["status"],
    }


def _short(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.3f}"
