"""The rows of a record: one per image, from what the attack reached and what the models say of it."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
import torch

from iqa_robust.attacks.base import AttackResult
from iqa_robust.attacks.norms import measures
from iqa_robust.datasets.base import Row
from iqa_robust.harness.flags import NOT_FINITE
from iqa_robust.harness.system import Batch, BatchScores
from iqa_robust.harness.visibility import visibility
from iqa_robust.models.base import Certificate
from iqa_robust.records import CERTIFICATE_COLUMNS, IMAGE_COLUMNS


def attack_columns(
    batch: Batch, result: AttackResult, perturbs: str, planned: torch.Tensor | None, target: float | None
) -> dict[str, list[Any]]:
    """Columns that do not depend on who scores: how far the image moved, what it cost, where it was sent."""
    before = batch.ref if perturbs == "reference" and batch.ref is not None else batch.x
    distances = measures(result.images, before, ("linf", "l2", "l0", "patch"))
    aims = [math.nan if target is None else target] * len(batch.ids) if planned is None else planned.tolist()
    return {
        **{name: values.tolist() for name, values in distances.items()},
        **visibility(before, result.images),
        "queries": result.queries.tolist(),
        "gradients": result.gradients.tolist(),
        "zero_gradient": result.zero_gradient.tolist(),
        "target": aims,
        "curve_queries": [[queries for queries, _ in points] for points in result.curve],
        "curve_scores": [[value for _, value in points] for points in result.curve],
    }


def image_rows(
    batch: Batch, columns: dict[str, list[Any]], scores: BatchScores, certificate: Certificate | None
) -> list[dict[str, Any]]:
    """One row per image of the batch; one whose score is not finite has failed."""
    rows = []
    if certificate is not None:
        promised = (certificate.low, certificate.high, certificate.radius)
        columns = columns | {name: part.tolist() for name, part in zip(CERTIFICATE_COLUMNS, promised, strict=True)}
    for i, image_id in enumerate(batch.ids):
        values = {"score_clean": float(scores.clean[i]), "score_adv": float(scores.adv[i])}
        if scores.defended_clean is not None:
            values["score_def_clean"] = float(scores.defended_clean[i])
        finite = all(math.isfinite(value) for value in values.values())
        rows.append(
            {
                "image_id": image_id,
                "reference_id": batch.reference_ids[i],
                "mos": float(batch.mos[i]),
                "score_def_clean": math.nan,
                **values,
                **{name: column[i] for name, column in columns.items()},
                "status": "ok" if finite else "failed",
                "reason": "" if finite else NOT_FINITE,
            }
        )
    return rows


def failed_row(row: Row, reason: str) -> dict[str, Any]:
    """The row of an image that was not attacked."""
    blank = {"float64": math.nan, "int64": 0, "bool": False, "string": ""}
    filled: dict[str, Any] = {name: blank.get(kind, []) for name, kind in IMAGE_COLUMNS.items()}
    return {
        **filled,
        "image_id": row.image_id,
        "reference_id": row.reference_id,
        "mos": row.mos,
        "status": "failed",
        "reason": reason,
    }


def image_frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The per-image table of a record, with certificates where a row has one."""
    certified = any(CERTIFICATE_COLUMNS.keys() & row.keys() for row in rows)
    return pd.DataFrame(rows, columns=[*IMAGE_COLUMNS, *(CERTIFICATE_COLUMNS if certified else ())])
