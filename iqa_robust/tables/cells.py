"""Records -> cells: records that differ in their seed only are one cell, and one row of a board."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from iqa_robust.errors import RecordError
from iqa_robust.measures import BOARD_MEASURES, FURTHER_MEASURES, summarize
from iqa_robust.records import FLAG_NAMES, KNOWLEDGE, Component, RunRecord, RunSpec

BARE = "none"
"""What tables call the absence of a defense."""
OWN_DISTRIBUTION = "iqa-robust"

MEASURED_COLUMNS = ("mos", "score_clean", "score_adv", "score_def_clean", "linf", "l2", "psnr", "ssim", "queries")
"""Columns of the images that measures are computed from, besides `reference_id`."""

Cell = tuple[RunRecord, ...]
"""The records of one cell, one per seed, in the order of the seeds."""


def group(records: Sequence[RunRecord]) -> list[Cell]:
    """Group records into cells, in the order of a board, whatever order they come in.

    The order is: track, dataset, model, defense (bare first), attack, goal, norm, steps, queries, eps, knowledge.

    Raises:
        RecordError: one record is given twice.
    """
    twice = [digest for digest, n in Counter(record.digest for record in records).items() if n > 1]
    if twice:
        raise given_twice(min(twice))
    known = {record.digest: record for record in records}
    return [tuple(known[spec.digest] for spec in cell) for cell in group_specs([record.spec for record in records])]


def given_twice(digest: str) -> RecordError:
    """The error of a record that is there twice."""
    return RecordError(f"{digest}: given twice; expected each record once, so leave one of its copies out.")


def group_specs(specs: Sequence[RunSpec]) -> list[list[RunSpec]]:
    """The specs of each cell, in the order of `group`."""
    cells: dict[str, list[RunSpec]] = {}
    for spec in sorted(specs, key=lambda spec: (spec.seed, spec.digest)):
        cells.setdefault(dataclasses.replace(spec, seed=0).digest, []).append(spec)
    return sorted(cells.values(), key=lambda cell: _order(cell[0]))


def measure(record: RunRecord) -> dict[str, float]:
    """Every measure of one record (`BOARD_MEASURES` and `FURTHER_MEASURES`); all NaN where the record failed.

    The bootstrap behind the interval is seeded by the digest, so a rebuilt table is the same to the last byte.

    Raises:
        RecordError: the record lacks a fact that the measures need.
    """
    if record.status == "failed":
        return dict.fromkeys((*BOARD_MEASURES, *FURTHER_MEASURES), math.nan)
    columns = {name: record.images[name].to_numpy(dtype=np.float64) for name in MEASURED_COLUMNS}
    # An image that could not be read was never attacked: its 0 queries are no cost.
    columns["queries"] = np.where(np.isnan(columns["linf"]), np.nan, columns["queries"])
    if record.spec.defense is None:
        columns.pop("score_def_clean")
    mos_range = fact(record, "mos_range")
    return summarize(
        **columns,
        higher_is_better=fact(record, "higher_is_better"),
        mos_higher_is_better=fact(record, "mos_higher_is_better"),
        score_range=record.spec.score_range,
        mos_range=None if mos_range is None else tuple(mos_range),
        reference_ids=record.images["reference_id"].to_numpy(dtype=object, na_value=None),
        seed=int(record.digest, 16),
    )


def average(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Mean of each measure over the seeds that did not fail; of `linf_max_255`, which is a bound, the largest.

    A measure that is undefined for one of them is undefined.
    """
    return {
        name: float((np.max if name == "linf_max_255" else np.mean)([row[name] for row in rows])) if rows else math.nan
        for name in (*BOARD_MEASURES, *FURTHER_MEASURES)
    }


def status_of(cell: Cell) -> str:
    """`failed` where every seed failed, `ok` where every seed is, else `partial`."""
    statuses = {record.status for record in cell}
    return statuses.pop() if len(statuses) == 1 else "partial"


def flags_of(cell: Cell) -> tuple[str, ...]:
    """The flags of any seed, in the order of the documentation."""
    raised = {flag for record in cell for flag in record.flags}
    return (*(flag for flag in FLAG_NAMES if flag in raised), *sorted(raised - set(FLAG_NAMES)))


def n_failed(record: RunRecord) -> int:
    """Images of a record without a score."""
    return int((record.images["status"] != "ok").sum())


def limited(record: RunRecord) -> bool:
    """Whether `--limit` cut the images of the track: the fact `limited`, or, where that is missing, any limit."""
    said = record.facts.get("limited")
    return record.spec.dataset.params.get("limit") is not None if said is None else bool(said)


def defense_title(spec: RunSpec) -> str:
    """The defense as tables call it; `none` for the bare model."""
    return BARE if spec.defense is None else spec.defense.title


def plugins(spec: RunSpec) -> str:
    """Distribution and version of everything in a spec that is not ours, joined by `;`."""
    parts: list[Component | None] = [spec.dataset, spec.model, spec.defense, spec.attack]
    foreign = {
        f"{part.distribution} {part.version}".strip()
        for part in parts
        if part is not None and part.distribution not in ("", OWN_DISTRIBUTION)
    }
    return ";".join(sorted(foreign))


def fact(record: RunRecord, name: str) -> Any:
    """A fact that every record holds. Raises `RecordError` where it is not there."""
    try:
        return record.facts[name]
    except KeyError:
        raise RecordError(
            f"{record.digest}: expected the fact {name!r}, which is missing; run the cell again."
        ) from None


def _order(spec: RunSpec) -> tuple[Any, ...]:
    budget = spec.budget
    return (
        spec.track,
        spec.dataset.title,
        spec.manifest,
        spec.model.title.casefold(),
        spec.model.title,
        spec.defense is not None,
        defense_title(spec).casefold(),
        defense_title(spec),
        spec.attack.title.casefold(),
        spec.attack.title,
        spec.goal,
        budget.norm,
        budget.steps,
        budget.queries is not None,
        budget.queries or 0,
        budget.eps_255,
        KNOWLEDGE.index(spec.knowledge),
        spec.digest,
    )
