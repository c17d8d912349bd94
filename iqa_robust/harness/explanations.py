"""What the scores of a cell's first images rest on, clean and attacked: made once the cell is done, kept beside it.

Nothing here changes a number of the record. What is explained does not depend on who ran the cell or in which batches:
each image is attacked again, alone, and explained in float32 on the model that is scored.
"""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Callable, Iterable
from typing import Any

import pandas as pd
import torch
from PIL import Image
from torch.nn import functional

from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.errors import StorageError
from iqa_robust.harness.system import Batch
from iqa_robust.images import to_uint8
from iqa_robust.models.base import IQAModel
from iqa_robust.models.gates.explain import LayerExplanation
from iqa_robust.records import (
    EXPLANATION_TABLES,
    MAP_KINDS,
    MAP_SIDE,
    PICTURE_SIDE,
    Explanations,
    RunRecord,
)

EXPLAINED_IMAGES = 4
"""Images of a cell that are explained."""
JPEG_QUALITY = 85

Rows = dict[str, list[dict[str, Any]]]
"""Rows by table."""


def with_explanations(
    record: RunRecord,
    attack: Attack,
    model: IQAModel,
    batches: Callable[[list[str]], Iterable[Batch]],
    again: Callable[[Batch], AttackResult],
) -> RunRecord:
    """The record with explanations, where an attacker who differentiates knows a model that explains itself.

    Whatever fails on the way is noted among the record's facts, and the record stays as it was.

    Args:
        record: of the cell, which did not fail.
        attack: of the cell.
        model: the one that is attacked and scored.
        batches: the images of these ids, each a batch of its own.
        again: attacks a batch as the cell did.

    Raises:
        StorageError: what the attack learned cannot be written.
    """
    knows = record.spec.knowledge == "adaptive" and attack.access == "white" and attack.perturbs == "image"
    if not knows:
        return record
    images = record.images
    ids = list(images["image_id"][images["status"] == "ok"][:EXPLAINED_IMAGES])
    rows: Rows = {name: [] for name in EXPLANATION_TABLES}
    try:
        for batch in batches(ids):
            ref = batch.ref if model.info.full_reference else None
            clean = model.explain(batch.x, ref)
            if clean is None:
                return record
            result = again(batch)
            _add(rows, batch.ids[0], "clean", batch.x, result.score_clean, clean)
            attacked = model.explain(result.images, ref) or []
            _add(rows, batch.ids[0], "attacked", result.images, result.score_adv, attacked)
    except StorageError:
        raise
    except Exception as error:  # whatever an explanation does, the numbers stand
        note = f"{type(error).__name__}: {error}"
        return dataclasses.replace(record, facts={**record.facts, "explanation_note": note})
    tables = {name: pd.DataFrame(rows[name], columns=list(columns)) for name, columns in EXPLANATION_TABLES.items()}
    return dataclasses.replace(record, explanations=Explanations(**tables))


def _add(
    rows: Rows, image_id: str, state: str, x: torch.Tensor, score: torch.Tensor, layers: list[LayerExplanation]
) -> None:
    """Add the rows of one image (1, 3, H, W) in one state."""
    key = {"image_id": image_id, "state": state}
    rows["pictures"].append({**key, "score": float(score), "picture": picture(x[0])})
    for layer in layers:
        at = {**key, "layer": layer.layer}
        columns = zip(layer.weights[0].tolist(), layer.ranks[0].tolist(), layer.importance[0].tolist(), strict=True)
        rows["channels"] += [
            {**at, "channel": channel, "weight": weight, "rank": rank, "importance": importance}
            for channel, (weight, rank, importance) in enumerate(columns)
        ]
        for kind, values in zip(MAP_KINDS, (layer.causal_map[0], layer.non_causal_map[0]), strict=True):
            peak, content = map_png(values)
            rows["maps"].append({**at, "kind": kind, "peak": peak, "map": content})


def picture(x: torch.Tensor) -> bytes:
    """An image (3, H, W) as JPEG of at most `PICTURE_SIDE` pixels a side."""
    image = Image.fromarray(to_uint8(x).permute(1, 2, 0).cpu().numpy())
    image.thumbnail((PICTURE_SIDE, PICTURE_SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=JPEG_QUALITY)
    return buffer.getvalue()


def map_png(values: torch.Tensor) -> tuple[float, bytes]:
    """A map (H, W) at least 0: its largest value, and a gray PNG of at most `MAP_SIDE` pixels a side, 255 its largest.

    A larger map is averaged over areas first.

    Raises:
        ValueError: a value is not finite.
    """
    values = values.detach().double().cpu()
    if not bool(values.isfinite().all()):
        raise ValueError("a map holds values that are not finite")
    shrink = max(values.shape) / MAP_SIDE
    if shrink > 1:
        height, width = (max(1, int(side / shrink)) for side in values.shape)
        values = functional.adaptive_avg_pool2d(values[None], (height, width))[0]
    peak = float(values.max())
    levels = to_uint8(values / peak if peak > 0 else values)
    buffer = io.BytesIO()
    Image.fromarray(levels.numpy()).save(buffer, "PNG", optimize=True)
    return peak, buffer.getvalue()
