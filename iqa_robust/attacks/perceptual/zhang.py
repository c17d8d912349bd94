"""The perceptual attacks of Zhang et al. (NeurIPS 2022): score against similarity, over a ladder of weights."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import project
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.perceptual.adam import Adam
from iqa_robust.attacks.perceptual.learned import distance_for
from iqa_robust.attacks.perceptual.units import score_span
from iqa_robust.attacks.similarity import ssim
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

LADDER = (
    *(0, 0.2, 0.4, 0.6, 0.8, 1, 3, 5, 7, 9, 20, 40, 60, 80, 100, 300, 500, 700, 900, 2000, 4000, 6000, 8000),
    *(10_000, 30_000, 50_000, 70_000, 90_000, 200_000, 600_000, 1_000_000, 5_000_000, 9_000_000),
)
"""The 33 weights of the similarity in the authors' code."""

LENGTH = 0.005
"""Adam's step in the authors' code, of full scale."""

Similarity = Callable[[torch.Tensor], torch.Tensor]
"""From images (N, 3, H, W) to (N,): larger where they look more like the clean ones; differentiable."""


class Zhang(Attack):
    """Maximizes u |u| + weight * similarity, once per weight of a ladder; the strongest rung inside the budget counts.

    u is the objective's value on a scale of 0 to 10 for the model's range, so u |u| is the authors'
    (f(x') - f(x))^2 for the goal `away`, which is climbed once in each direction. They let viewers pick the rung; here
    a budget does: the end of every rung is brought inside it (one that is inside stays as it is) and the best is kept,
    image by image. Images met on the way count, too, when they are inside.

    Corrected: the released code builds a new Adam at every step, which makes it ascent by the sign of the gradient in
    steps of 0.005, so that its ends jitter by a gray level at any weight; here Adam keeps its moments. Left out: the
    logistic map of each model's scores to 0..10, instead of which the model's range is scaled, and a zero gradient in
    two corners of 5 x 5 pixels.

    The authors take 200 steps per rung.
    """

    norms = ("linf", "l2", "psnr", "ssim")
    source = "Zhang et al., NeurIPS 2022 (arXiv:2210.00933)"
    form = "corrected"

    def __init__(self, *, weights: Sequence[float] = LADDER) -> None:
        """`weights`: of the similarity, one run each, none negative.

        Raises:
            ContractError: there is none, or one is not a finite number >= 0.
        """
        if not isinstance(weights, (list, tuple)) or not weights:
            raise ContractError(f"{type(self).__name__}: expected weights to be a list of numbers, got {weights!r}.")
        for weight in weights:
            check_number(self, "every one of weights", weight, least=0)
        self.weights = weights

    @abstractmethod
    def similarity(self, x: torch.Tensor) -> Similarity:
        """How much images look like the clean ones `x` (N, 3, H, W)."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the strongest rung of the ladder."""
        similarity, unit = self.similarity(x), score_span(objective) / 10
        best, highest = x, torch.full_like(objective.score_clean, -torch.inf)
        for side in objective.sides():
            for weight in self.weights:
                start = (x - rng.integers(0, 2, x.shape[1:]) / 255).clamp(0, 1)
                end = _climb(side, start, budget.steps, similarity, weight, unit)
                end = project(end, x, budget.norm, budget.eps)
                value = objective(end)
                wins = value > highest
                best = torch.where(wins.view(-1, 1, 1, 1), end, best)
                highest = torch.where(wins, value, highest)
        return best

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient a step of every rung and direction, and one query at its end."""
        rungs = len(self.weights) * (2 if goal == "away" else 1)
        return rungs * (budget.steps + 1), rungs * budget.steps


def _climb(
    objective: Objective, start: torch.Tensor, steps: int, similarity: Similarity, weight: float, unit: float
) -> torch.Tensor:
    """`steps` steps of Adam from `start`; (N, 3, H, W) in [0, 1]."""
    z, adam = start, Adam()
    for _ in range(steps):
        value, slope = objective.gradient(z)
        slope = slope * (2 * value.abs() / unit**2).view(-1, 1, 1, 1)
        if weight:
            leaf = z.detach().requires_grad_(True)
            slope = slope + weight * torch.autograd.grad(similarity(leaf).sum(), leaf)[0]
        z = (z + LENGTH * adam.direction(slope)).clamp(0, 1)
    return z


class ZhangSSIM(Zhang):
    """With SSIM at full resolution, where the authors average images of 384 pixels and more over blocks first."""

    def similarity(self, x: torch.Tensor) -> Similarity:
        """SSIM. Raises `ContractError` for images smaller than its window."""
        return lambda z: ssim(z, x)


class ZhangLPIPS(Zhang):
    """With 1 - LPIPS of VGG-16 features, through piq."""

    def similarity(self, x: torch.Tensor) -> Similarity:
        """1 - LPIPS. Raises `CheckpointError` without piq's weight files, `ContractError` for small images."""
        distance = distance_for("LPIPS", x)
        return lambda z: 1 - distance(z, x)


class ZhangDISTS(Zhang):
    """With 1 - DISTS, through piq; the released code adds the distance, where a similarity was meant."""

    def similarity(self, x: torch.Tensor) -> Similarity:
        """1 - DISTS. Raises `CheckpointError` without piq's weight files, `ContractError` for small images."""
        distance = distance_for("DISTS", x)
        return lambda z: 1 - distance(z, x)
