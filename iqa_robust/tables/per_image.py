"""The per-image table: one row per image of every record."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from iqa_robust.records import RunRecord
from iqa_robust.tables.cells import defense_title, group

PER_IMAGE_COLUMNS = (
    *("track", "model", "defense", "attack", "goal", "norm", "eps_255", "knowledge", "seed"),
    *("image_id", "mos", "score_clean", "score_adv", "score_def_clean", "linf_255", "l2", "psnr", "ssim"),
    *("queries", "status"),
)
"""The columns of the per-image table, in order."""
PER_IMAGE_DIGITS = 9
"""Significant digits that bring back every float32 score exactly."""


def per_image(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per image of every record, `PER_IMAGE_COLUMNS`: cells in the order of a board, then seeds, then images.

    `status` is `ok`, or `failed: ` and the reason. The image of a record keeps the dataset's order.
    """
    parts = [per_image_part(record) for cell in group(records) for record in cell]
    if not parts:
        return pd.DataFrame(columns=list(PER_IMAGE_COLUMNS))
    return pd.concat(parts, ignore_index=True)


def per_image_part(record: RunRecord) -> pd.DataFrame:
    """The rows of one record."""
    spec, images = record.spec, record.images
    constant = {
        "track": spec.track,
        "model": spec.model.title,
        "defense": defense_title(spec),
        "attack": spec.attack.title,
        "goal": spec.goal,
        "norm": spec.budget.norm,
        "eps_255": float(spec.budget.eps_255),
        "knowledge": spec.knowledge,
        "seed": spec.seed,
    }
    measured = {
        "linf_255": images["linf"].to_numpy(dtype=np.float64) * 255,
        "status": _statuses(images),
    }
    columns = {name: measured.get(name, images.get(name)) for name in PER_IMAGE_COLUMNS if name not in constant}
    frame = pd.DataFrame(columns).reset_index(drop=True)
    return frame.assign(**constant)[list(PER_IMAGE_COLUMNS)]


def _statuses(images: pd.DataFrame) -> np.ndarray:
    status, reason = (images[name].to_numpy(dtype=object) for name in ("status", "reason"))
    return np.where((status == "ok") | (reason == ""), status, status + ": " + reason)
