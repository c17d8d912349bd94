"""SMA, the SROCC-MSE attack on a set of images (Yang et al., 2024)."""

from __future__ import annotations

import numpy as np
import torch

from iqa_robust.attacks.gradient.ascent import ascend
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.attacks.set_level.soft_rank import soft_ranks
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

TARGETS = ("soft-rank", "reverse-ranks")
BOUNDS = ("set", "range")
SCALE = 100.0
"""Scores are planned on 0..100, as published: the strength of the soft ranks and both weights belong to it."""

_ROUNDS = 300
_FIRST_STEP = 2.0
"""The descent's first step on the scale of 0..100; the steps shrink linearly to zero."""


class SMA(SetAttack):
    """Scores for the whole set that turn its ranking around with large errors, then an attack on every image.

    Stage 1 looks for one score s' per image, given the clean scores s:

        minimize  rho(s, s') - `variance_weight` Var(s') - `error_weight` mean (s' - s)^2

    with rho the Pearson correlation of soft ranks (Blondel et al., L2, `strength`). Labels are not read. Scores are
    mapped to 0..100 by the model's range, as the paper does by the range of the opinions; where the range is unknown,
    by the lowest and the highest clean score. Stage 2 sends each image to its target by the projected steps of `pgd`,
    `budget.steps` of them. The paper's budget is L-infinity 0.005 (1.275/255) and 10 steps, which after rounding to 8
    bits is a single gray level.

    `bounds` says how far targets may go. The paper's are 0..100, the whole range (`range`): most targets then pile up
    at both ends, where images get stuck on the way, in the order of their clean scores. With `set`, the default,
    targets stay between the lowest and the highest clean score. On CLIVE, with one gray level and 10 steps, that
    reverses the ranking further for less error; docs/attacks.md has both.

    The minimizer of stage 1 is our own. The released code takes 100,000 sign steps of 0.005 from the clean scores. Of
    all orders of the same scores s', the one that falls as s rises has the lowest objective (rearrangement inequality,
    for both terms that depend on the order), so there are two starts: the clean scores in reverse order, and mirrored
    within the bounds. From each, 300 sign steps that shrink from 2 to 0 reach at least as low; the lower one counts.
    There is nothing random in it.

    `targets="reverse-ranks"` skips the objective: each image is sent to the clean score of the image at the mirrored
    rank. That asks for smaller errors and turns the ranking around completely where the images follow.
    """

    source = "Yang et al., 2024, arXiv:2404.13277"
    form = "adapted"
    note = "targets stay within the set's clean scores; the paper's bounds are `bounds=range`"
    norms = ("linf", "l2", "psnr", "ssim")

    def __init__(
        self,
        *,
        targets: str = "soft-rank",
        bounds: str = "set",
        strength: float = 1.0,
        variance_weight: float = 1e-4,
        error_weight: float = 1e-4,
        momentum: float = 0.75,
        step_ratio: float = 2.0,
    ) -> None:
        """Parameters of both stages.

        Args:
            targets: `soft-rank` or `reverse-ranks`.
            bounds: of the targets of `soft-rank`, `set` or `range`.
            strength: regularization of the soft ranks, in points of a hundred.
            variance_weight: of the variance of the targets, points squared.
            error_weight: of the mean square difference between targets and clean scores.
            momentum: of the steps of stage 2; see `pgd`.
            step_ratio: the first step of stage 2 as a fraction of eps; see `pgd`.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        for name, value, known in (("targets", targets, TARGETS), ("bounds", bounds, BOUNDS)):
            if value not in known:
                raise ContractError(f"SMA: expected {name} to be one of {', '.join(known)}, got {value!r}.")
        check_number(self, "strength", strength, above=0)
        check_number(self, "variance_weight", variance_weight, least=0)
        check_number(self, "error_weight", error_weight, least=0)
        check_number(self, "momentum", momentum, least=0)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.targets = targets
        self.bounds = bounds
        self.strength = strength
        self.variance_weight = variance_weight
        self.error_weight = error_weight
        self.momentum = momentum
        self.step_ratio = step_ratio

    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        """The score (M,) each image is sent to. Where all clean scores are equal and the range unknown: that score."""
        clean = scores.clean.double().cpu().numpy()
        if self.targets == "reverse-ranks":
            targets = reversed_ranks(clean)
        else:
            low, high = scores.score_range or (clean.min(), clean.max())
            if high == low:
                return scores.clean.clone()
            scaled = SCALE * (clean - low) / (high - low)
            least, most = (0.0, SCALE) if self.bounds == "range" else (scaled.min(), scaled.max())
            targets = low + self._descend(scaled, least, most) * (high - low) / SCALE
        return torch.from_numpy(targets).to(scores.clean)

    def loss(self, clean: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        """The objective of stage 1, on 0..100, and its gradient with respect to the targets (M,)."""
        return self._loss(clean, soft_ranks(clean, self.strength)[0], targets)

    def _loss(self, clean: np.ndarray, ranks: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
        correlation, slope = _correlation(ranks, targets, self.strength)
        deviation, error = targets - targets.mean(), targets - clean
        m = len(targets)
        variance = deviation @ deviation / max(m - 1, 1)
        slope = slope - 2 * self.variance_weight * deviation / max(m - 1, 1) - 2 * self.error_weight * error / m
        return correlation - self.variance_weight * variance - self.error_weight * (error @ error) / m, slope

    def _descend(self, clean: np.ndarray, least: float, most: float) -> np.ndarray:
        ranks = soft_ranks(clean, self.strength)[0]
        best, lowest = clean, np.inf
        for start in (reversed_ranks(clean), least + most - clean):
            targets = np.clip(start, least, most)
            for step in range(_ROUNDS):
                value, slope = self._loss(clean, ranks, targets)
                if value < lowest:
                    best, lowest = targets, value
                targets = np.clip(targets - _FIRST_STEP * (1 - step / _ROUNDS) * np.sign(slope), least, most)
        return best

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the last points of stage 2; better ones on the way are in the objective's memory."""
        return ascend(objective, x, x, budget, rng, step_ratio=self.step_ratio, momentum=self.momentum)


def reversed_ranks(clean: np.ndarray) -> np.ndarray:
    """(M,) the same scores in reverse order: the highest to the image of the lowest; equal scores by their place."""
    order = np.argsort(clean, kind="stable")
    result = np.empty_like(clean)
    result[order] = clean[order[::-1]]
    return result


def _correlation(ranks: np.ndarray, targets: np.ndarray, strength: float) -> tuple[float, np.ndarray]:
    """Pearson correlation of `ranks` with the soft ranks of `targets`, and its gradient; 0 where one is constant."""
    own, backward = soft_ranks(targets, strength)
    a, b = ranks - ranks.mean(), own - own.mean()
    lengths = np.linalg.norm(a), np.linalg.norm(b)
    if min(lengths) < 1e-9 * len(ranks):
        return 0.0, np.zeros_like(targets)
    a, b = a / lengths[0], b / lengths[1]
    correlation = float(a @ b)
    return correlation, backward((a - correlation * b) / lengths[1])
