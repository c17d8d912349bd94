"""IOI: one gradient, moved to where the image is busy and fine (Shumitskaya et al., ICML 2024)."""

from __future__ import annotations

from functools import partial

import torch
from torch.nn import functional as F

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import steepest
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.perceptual.matching import largest_scale
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

TRIALS = 8
"""Lengths tried toward a target."""


class IOI(Attack):
    """x' = x + busy * H(x_p - x), where x_p = clip(x + step * sign(gradient)) and H keeps an image's weak frequencies.

    H leaves out the frequencies at which the clean image is strongest: per channel, the share `keep` of its Fourier
    coefficients with the largest magnitude. `busy` is the square root of the local contrast of 3 x 3 pixels (standard
    deviation over mean), divided by its maximum over the image; it is 0 below 0.01 and on the border. An image without
    any contrast is left alone.

    The authors take a step of 0.1 and let it end where it may; here the step is, per image, the largest whose result
    is inside the budget. One gradient serves all goals; `away` tries the other sign, too, and toward a target eight
    lengths up to it are tried, since the whole one may pass.

    Corrected against the released code: the two sets of frequencies cover all of them (the code drops those exactly
    at the threshold), and x_p is not truncated to whole gray levels, which darkens it by half a level.
    """

    norms = ("linf", "l2", "psnr", "ssim")
    source = "Shumitskaya, Antsiferova, Vatolin, ICML 2024 (arXiv:2403.05955)"
    form = "corrected"

    def __init__(self, *, keep: float = 0.07) -> None:
        """`keep`: share of the Fourier coefficients left as they are, in [0, 1).

        Raises:
            ContractError: `keep` is not such a number.
        """
        check_number(self, "keep", keep, least=0, most=0.999)
        self.keep = keep

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the perturbed images; the best one where several are tried."""
        _, slope = objective.gradient(x)
        sign = steepest(slope, "linf")
        weak, busy = weak_frequencies(x, self.keep), contrast(x)
        two_sided = objective.goal.sign is None and objective.goal.target is None
        parts = 1 if objective.goal.target is None else TRIALS
        ends = []
        for direction in (sign, -sign) if two_sided else (sign,):
            make = partial(_moved, x, direction, weak, busy)
            step = largest_scale(make, x, budget.norm, budget.eps, torch.ones_like(x[:, 0, 0, 0]))
            ends += [make(step * part / parts) for part in range(1, parts + 1)]
        return best_of(objective, ends)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One gradient; `away` compares two images, goals with a target eight."""
        return {"up": 1, "down": 1, "away": 3}.get(goal, 1 + TRIALS), 1


def _moved(
    x: torch.Tensor, direction: torch.Tensor, weak: torch.Tensor, busy: torch.Tensor, step: torch.Tensor
) -> torch.Tensor:
    """The images after a step (N,) along `direction`, of which the weak frequencies stay, where the image is busy."""
    pushed = (x + step.view(-1, 1, 1, 1) * direction).clamp(0, 1)
    return (x + busy * filtered(pushed - x, weak)).clamp(0, 1)


def weak_frequencies(x: torch.Tensor, keep: float) -> torch.Tensor:
    """(N, 3, H, W) bool over Fourier coefficients: all but the share `keep` of the largest, per channel.

    Two frequencies that mirror each other have one magnitude and stay together, whatever rounding makes of it: the
    machine must not decide which of them is cut.
    """
    magnitude = torch.fft.fft2(x.double()).abs()
    ordered = magnitude.flatten(2).sort(dim=2).values
    threshold = ordered[..., min(int((1 - keep) * ordered.shape[2]), ordered.shape[2] - 1)]
    return magnitude <= threshold[..., None, None] * (1 + 1e-9)


def filtered(difference: torch.Tensor, weak: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W): the part of `difference` at the frequencies `weak`."""
    return torch.fft.ifft2(torch.fft.fft2(difference.double()) * weak).real.float()


def contrast(x: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1]: square root of the local coefficient of variation over its maximum."""
    mean = F.avg_pool2d(x.double(), 3, stride=1)
    variance = F.avg_pool2d(x.double().square(), 3, stride=1) - mean.square()
    ratio = variance.clamp_min(0).sqrt() / torch.where(mean == 0, 1, mean)
    ratio = F.pad(ratio, (1, 1, 1, 1))
    highest = ratio.flatten(1).amax(dim=1).view(-1, 1, 1, 1)
    ratio = ratio / torch.where(highest > 0, highest, 1)
    return torch.where(ratio < 0.01, 0, ratio).sqrt().float()
