"""Rank flips: move an image's score just past that of another image with the same reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from iqa_robust.attacks.gradient.climbing import spread
from iqa_robust.attacks.norms import dither, dual_length, project, reach, steepest, unit_l1
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

_OVERSHOOT = 2.0
"""A step goes at most this many times the way that is left if the score were linear."""

_GOLDEN = 0.6180339887


class RankFlip(SetAttack):
    """Swap an image with its partner in the order of one content, and stop there.

    Ghildyal and Liu attack the image of a BAPPS triplet that is closer to the reference until its distance exceeds
    that of the other one: signed steps of 0.001 within 0.03 on [-1, 1] (3.825/255), at most 30, with a stop at the
    flip; on LPIPS(Alex) 79.5 % of the pairs whose better image people agree on flip. Their loss, the squared distance
    of s_other / (s_other + s_adv) from 1, falls as s_adv rises, so its sign gradient is the score's.

    Here the pairs are made of the set: the partner of an image is the image of the same reference whose clean score
    is nearest among those at least `gap` away, so that the two clearly differ; of two equally near ones, the higher.
    Each image is attacked by itself, the better as well as the worse, against the clean score of its partner. Images
    whose reference is not known are paired among each other. An image without a partner is left alone and its target
    is its clean score.

    A step is at most `step_ratio` times the radius, falling linearly to zero, and at most twice the way that is left
    over the slope; so easy flips stay small. Images leave as soon as they have flipped. For L-infinity every point is
    rounded to the 8-bit grid (see `ascent.ascend`), so a flip that was seen is a flip of the final image.

    A record holds the target, `margin` beyond the partner's score. An image has flipped when the score left its clean
    value for the target and reached it: (score_adv - target) (target - score_clean) >= 0. The share of flips is the
    share of these among the images whose target is not their clean score.
    """

    source = "Ghildyal and Liu, TMLR 2023, arXiv:2305.08840"
    form = "adapted"
    maximizes = False
    norms = ("linf", "l2", "psnr", "ssim")

    def __init__(
        self, *, gap: float = 0.1, margin: float = 0.001, momentum: float = 0.75, step_ratio: float = 2.0
    ) -> None:
        """Parameters of the pairs and of the search.

        Args:
            gap: least difference of the clean scores of two partners, as a share of the spread (highest less lowest)
                of the clean scores of the set.
            margin: how far beyond the partner's score counts as a flip, as a share of the same spread.
            momentum: of the steps; see `pgd`.
            step_ratio: the first step at most, as a fraction of eps.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_number(self, "gap", gap, above=0)
        check_number(self, "margin", margin, least=0)
        check_number(self, "momentum", momentum, least=0)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.gap = gap
        self.margin = margin
        self.momentum = momentum
        self.step_ratio = step_ratio

    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        """Just past the partner's clean score (M,); the own clean score where there is no partner."""
        clean = scores.clean.double().cpu().numpy()
        size = clean.max() - clean.min()
        found = partners(clean, scores.reference_ids, self.gap * size)
        wanted = clean[found]
        targets = wanted + self.margin * size * np.sign(wanted - clean)
        return torch.from_numpy(targets).to(scores.clean)

    def aim(self, target: torch.Tensor, score_clean: torch.Tensor) -> Goal:
        """Push (N,) toward the target; beyond it nothing counts."""
        way = target - score_clean
        return Goal(sign=way.sign(), enough=way.abs() * (1 + 1e-6))  # above the rounding of a difference in float32

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the last points; images that have flipped are in the objective's memory."""
        sign, enough = objective.goal.sign, objective.goal.enough
        assert sign is not None and enough is not None  # `aim` gives both
        offset = rng.uniform(x.shape[1:])
        z, velocity = x.clone(), torch.zeros_like(x)
        radius = x.new_zeros(len(x))
        index = sign.nonzero().squeeze(1)
        for step in range(budget.steps):
            value, slope = objective.gradient(z[index], index)
            left = ~objective.reached()[index]
            index, value, slope = index[left], value[left], slope[left]
            if len(index) == 0:
                break
            center = x[index]
            if step == 0:
                radius[index] = reach(center, steepest(slope, budget.norm), budget.norm, budget.eps)
            full = self.step_ratio * radius[index] * (1 - step / budget.steps)
            way = _OVERSHOOT * (enough[index] - value) / dual_length(slope, budget.norm)
            unit = unit_l1(slope)
            velocity[index] = self.momentum * velocity[index] + unit
            step_taken = spread(torch.fmin(full, way)) * steepest(velocity[index], budget.norm)
            point = project(z[index] + step_taken, center, budget.norm, budget.eps)
            if budget.norm == "linf":
                point = dither(point, center, budget.eps, (offset[index] + step * _GOLDEN) % 1)
            z[index] = point
        return z


def partners(clean: np.ndarray, reference_ids: Sequence[str | None], gap: float) -> np.ndarray:
    """(M,) for each image, the index of its partner, or its own: see `RankFlip`. `gap` in units of the scores."""
    found = np.arange(len(clean))
    groups: dict[str | None, list[int]] = {}
    for i, name in enumerate(reference_ids):
        groups.setdefault(name, []).append(i)
    for members in groups.values():
        own = np.array(members)[np.argsort(clean[members], kind="stable")]
        rising = clean[own]
        above = np.searchsorted(rising, rising + gap, side="left")
        below = np.searchsorted(rising, rising - gap, side="right") - 1
        up = np.where(above < len(own), rising[np.minimum(above, len(own) - 1)] - rising, np.inf)
        down = np.where(below >= 0, rising - rising[np.maximum(below, 0)], np.inf)
        chosen = np.where(up <= down, above, below)
        lonely = np.isinf(np.minimum(up, down)) | (np.minimum(up, down) == 0)
        found[own] = np.where(lonely, own, own[np.clip(chosen, 0, len(own) - 1)])
    return found
