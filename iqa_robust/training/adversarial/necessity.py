"""Necessity of causal features: another cause must give another score (form B of the reconstruction).

Grounded in the probability of necessity and sufficiency as Yang et al. use it (CaSN, NeurIPS 2023, eqs. 4, 5 and 8): an
inner player looks for features c' at least a distance away from c that leave the prediction as it is, and the outer one
is punished for having them. Their indicator of equal signs becomes, for scores, exp(-(f(c) - f(c'))^2 / s^2) with s the
spread of the batch's scores, so that neither stretching nor shrinking all scores changes it. The player moves c' by
gradient steps on the sphere, where CaSN trains a linear map. Ours, not the text of CPRL.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

from iqa_robust.training.adversarial.settings import Latent
from iqa_robust.training.losses import EPSILON


def necessity(score: Callable[[torch.Tensor], torch.Tensor], causes: torch.Tensor, settings: Latent) -> torch.Tensor:
    """The mean of exp(-(f(c) - f(c'))^2 / s^2): 1 where some other cause gives the same score, near 0 where none does.

    Args:
        score: features (N, F) to scores (N,), in any unit.
        causes: the features of a batch (N, F), with their history.
        settings: how far c' must be, and the player's steps.
    """
    scores = score(causes)
    spread = scores.var() + EPSILON
    unit = causes.detach().std(dim=0) + EPSILON
    radius = settings.distance * causes.shape[1] ** 0.5
    direction = torch.randn_like(causes)
    for number in range(1, settings.steps + 1):
        direction = _on_sphere(direction, radius).detach().requires_grad_()
        changed = score(causes.detach() + unit * direction)
        kept = torch.exp(-(changed - scores.detach()).square() / spread.detach())
        (slope,) = torch.autograd.grad(kept.sum(), direction)
        direction = direction.detach() + radius / number * _unit(_along(direction.detach(), slope))
    changed = score(causes + unit * _on_sphere(direction, radius).detach())
    return torch.exp(-(changed - scores).square() / spread).mean()


def _unit(vectors: torch.Tensor) -> torch.Tensor:
    return vectors / (vectors.norm(dim=1, keepdim=True) + EPSILON)


def _on_sphere(direction: torch.Tensor, radius: float) -> torch.Tensor:
    return radius * _unit(direction)


def _along(direction: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """The slope's part along the sphere: the rest only leads off it."""
    normal = _unit(direction)
    return slope - (slope * normal).sum(dim=1, keepdim=True) * normal
