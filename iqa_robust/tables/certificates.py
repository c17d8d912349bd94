"""The table of certificates: what was promised of each cell's images, and what the attack made of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from iqa_robust.measures import certificates as measures
from iqa_robust.records import RunRecord
from iqa_robust.tables.cells import Cell, defense_title, group
from iqa_robust.tables.page import Line, Section

CERTIFICATE_TABLE_COLUMNS = (
    *("track", "model", "defense", "attack", "goal", "norm", "eps_255", "knowledge", "n_images"),
    *("radius_mean", "abstention_share", "width_mean"),
    *("shift_certified_mean", "shift_attacked_mean", "shift_attacked_max", "violations"),
)
"""The columns of the table, in order. Shifts are absolute, in native units, of the defended model against itself."""


def certified(record: RunRecord) -> bool:
    """Whether the scored model gave certificates."""
    return record.status != "failed" and "cert_low" in record.images


def certificates(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per cell that has certificates, `CERTIFICATE_TABLE_COLUMNS`, in the order of a board.

    Means over all images of all seeds. `shift_certified_mean` is over those that have a finite interval, and
    `shift_attacked_mean` over the same ones, so the two can be compared; `shift_attacked_max` is of all images, and
    `violations` counts images whose attacked score lies outside.

    Raises:
        RecordError: a record is given twice.
    """
    cells = group([record for record in records if certified(record)])
    return pd.DataFrame([certificate_row(cell) for cell in cells], columns=list(CERTIFICATE_TABLE_COLUMNS))


def certified_lines(section: Section) -> list[tuple[Line, dict[str, Any]]]:
    """The lines of a report that have certificates, with their rows."""
    found = []
    for line in section.lines:
        cell = tuple(record for record in line.cell if certified(record))
        if cell:
            found.append((line, certificate_row(cell)))
    return found


def certificate_row(cell: Cell) -> dict[str, Any]:
    """The row of one cell."""
    spec = cell[0].spec
    images = pd.concat([record.images for record in cell], ignore_index=True)
    clean, adv, low, high = (
        images[name].to_numpy(dtype=np.float64) for name in ("score_def_clean", "score_adv", "cert_low", "cert_high")
    )
    allowed = measures.shift_certified(clean, low, high)
    finite = np.isfinite(allowed)
    shift = np.abs(adv - clean)
    return {
        "track": spec.track,
        "model": spec.model.title,
        "defense": defense_title(spec),
        "attack": spec.attack.title,
        "goal": spec.goal,
        "norm": spec.budget.norm,
        "eps_255": float(spec.budget.eps_255),
        "knowledge": spec.knowledge,
        "n_images": int((~np.isnan(low)).sum()),
        "radius_mean": float(images["cert_radius"].mean()),
        "abstention_share": measures.abstention_share(low, high),
        "width_mean": measures.width_mean(low, high),
        "shift_certified_mean": float(allowed[finite].mean()) if finite.any() else np.nan,
        "shift_attacked_mean": float(shift[finite].mean()) if finite.any() else np.nan,
        "shift_attacked_max": float(np.nanmax(shift)) if np.isfinite(shift).any() else np.nan,
        "violations": int(measures.outside(adv, low, high).sum()),
    }
