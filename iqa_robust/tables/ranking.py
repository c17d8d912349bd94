"""Who is how robust: ranks within one attack at one budget."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from iqa_robust.records import RunSpec
from iqa_robust.tables.cells import Cell, flags_of

UNRANKED_FLAGS = frozenset({"degenerate", "collapsed", "not-finite"})
"""Flags of rows whose correlation under attack does not measure robustness."""


def ranks(cells: Sequence[Cell], rows: Sequence[Mapping[str, Any]]) -> list[float]:
    """The rank of each row among the rows of the same track, images, attack, goal and whole budget; NaN: not ranked.

    Rows are ordered by `srocc_adv`, the highest first, on the six digits a board shows; equal values share the
    better rank. One row per system competes: the only row of a bare model, and of a defended model the one where
    it does worst among `adaptive` and `black-box`. Oblivious rows of a defended model never rank: a defense is only
    as good as its evaluation by an attacker who knows it. A row that failed, has no `srocc_adv`, or carries
    `degenerate`, `collapsed` or `not-finite` does not rank, and neither does its system by its other row: the worst
    case is then not known.
    """
    contests: dict[str, dict[str, list[int]]] = {}
    for index, cell in enumerate(cells):
        spec = cell[0].spec
        if spec.defense is not None and spec.knowledge == "oblivious":
            continue
        contests.setdefault(contest(spec), {}).setdefault(system(spec), []).append(index)
    found = [math.nan] * len(cells)
    for systems in contests.values():
        values = {}
        for indices in systems.values():
            if all(_can_rank(cells[index], rows[index]) for index in indices):
                value, index = min((float(f"{rows[index]['srocc_adv']:.6g}"), index) for index in indices)
                values[index] = value
        for index, value in values.items():
            found[index] = 1.0 + sum(other > value for other in values.values())
    return found


def contest(spec: RunSpec) -> str:
    """What rows must share to be compared: track, images, attack, goal and budget."""
    return _canonical(
        [
            spec.track,
            spec.manifest,
            dataclasses.asdict(spec.attack),
            spec.goal,
            spec.target,
            dataclasses.asdict(spec.budget),
        ]
    )


def system(spec: RunSpec) -> str:
    """What competes: a model with its weights and, possibly, a defense."""
    defense = None if spec.defense is None else dataclasses.asdict(spec.defense)
    return _canonical([dataclasses.asdict(spec.model), spec.weights_sha256, spec.score_range, defense])


def _can_rank(cell: Cell, row: Mapping[str, Any]) -> bool:
    return row["status"] != "failed" and not math.isnan(row["srocc_adv"]) and not UNRANKED_FLAGS & set(flags_of(cell))


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, default=str)
