"""What a plan will cost: passes counted by the attacks, seconds measured on one image of the dataset."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from iqa_robust.harness.components import make_attack, make_defense, make_model
from iqa_robust.harness.environment import pick_device, prepare_numerics
from iqa_robust.harness.plan import Plan
from iqa_robust.harness.run import group_by_attack
from iqa_robust.harness.shard import Shard, of_shard
from iqa_robust.harness.system import System
from iqa_robust.models.base import SCORE_DRAWS, IQAModel
from iqa_robust.records import RunSpec


@dataclass(frozen=True)
class CellCost:
    """A cell and the seconds its attack is expected to take; 0 where another cell's attack is reused."""

    spec: RunSpec
    seconds: float


def estimate(plan: Plan, device: str = "auto", shard: Shard | None = None) -> list[CellCost]:
    """One estimate per cell of the plan, or of a shard of it, in plan order.

    Times one forward and one backward pass per attacked model.
    """
    prepare_numerics()
    picked = pick_device(device)
    rows = plan.dataset.rows()
    item = plan.dataset.load(rows[len(rows) // 2])
    x = item.x[None].to(picked)
    ref = None if item.ref is None else item.ref[None].to(picked)
    timed: dict[str, tuple[float, float, bool]] = {}
    costs: dict[str, float] = {}
    jobs = group_by_attack(plan.cells)
    for group in jobs if shard is None else of_shard(jobs, shard):
        spec = group[0]
        defense = None if spec.knowledge == "oblivious" else spec.defense
        key = repr((spec.model, defense))
        if key not in timed:
            model = make_model(spec.model, spec.score_range).to(picked)
            attacked = System(model, make_defense(defense)).scored
            timed[key] = (*_passes(attacked, x, ref), attacked.info.deterministic)
        forward, backward, deterministic = timed[key]
        queries, gradients = make_attack(spec.attack).cost(spec.budget, spec.goal)
        draws, judged = (1, 3) if deterministic else (spec.budget.eot, 3 * SCORE_DRAWS)
        per_image = (draws * queries + judged) * forward + draws * gradients * backward
        costs[spec.digest] = per_image * len(rows)
        for other in group[1:]:
            costs[other.digest] = 3 * forward * len(rows)
    return [CellCost(spec, costs[spec.digest]) for spec in plan.cells if spec.digest in costs]


def _passes(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> tuple[float, float]:
    """Seconds of a forward pass and of a backward pass on one image, after one of each to warm up."""
    ref = ref if model.info.full_reference else None
    forward = backward = 0.0
    for _ in range(2):
        leaf = x.clone().requires_grad_(True)
        start = _now(x.device)
        score = model(leaf, ref).sum()
        middle = _now(x.device)
        if score.requires_grad:
            score.backward()
        forward, backward = middle - start, _now(x.device) - middle
    return forward, backward


def _now(device: torch.device) -> float:
    """Seconds, once the device is done: a GPU is only told what to do, and works on."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
