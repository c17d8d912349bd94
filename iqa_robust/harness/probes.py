"""Measurements of a model on a few clean images, from which flags are computed."""

from __future__ import annotations

import torch

from iqa_robust.harness.system import Batch, System
from iqa_robust.models.base import score
from iqa_robust.models.randomness import content_seeds


@torch.no_grad()
def probe(system: System, batch: Batch, seed: int) -> dict[str, float]:
    """Differences of the scored model's clean scores, in native units.

    `repeat_difference`: two calls on the same images (0 for a model that declares itself randomized).
    `batch_difference`: an image among its neighbors against the same image alone, under the same seeds.
    """
    model, ref = system.scored, batch.ref if system.scored.info.full_reference else None
    seeds = content_seeds(batch.x, seed)
    together = score(model, batch.x, ref, seeds=seeds)
    alone = torch.cat(
        [
            score(model, batch.x[i : i + 1], None if ref is None else ref[i : i + 1], seeds=seeds[i : i + 1])
            for i in range(len(batch.ids))
        ]
    )
    repeated = 0.0
    if model.info.deterministic:
        repeated = float((model(batch.x, ref) - together).abs().max())
    return {"repeat_difference": repeated, "batch_difference": float((alone - together).abs().max())}
