"""Losses between predicted and subjective scores, both in units of the score scale; small means good."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch.nn import functional as F

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""`(predicted (N,), target (N,)) -> scalar`."""

EPSILON = 1e-8


def plcc(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """(1 - r) / 2 with Pearson's correlation r within the batch: 0 for a perfect line, 1 for a reversed one."""
    a, b = predicted - predicted.mean(), target - target.mean()
    r = (a * b).sum() / (a.norm() * b.norm() + EPSILON)
    return (1 - r) / 2


def norm_in_norm(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Norm-in-Norm with p = 1 and q = 2 (Li, Jiang and Jiang, 2020, eq. 5), scaled to [0, 1].

    Both sides are centered and divided by their Euclidean norm, then compared by the sum of absolute differences;
    2 * sqrt(N) bounds that sum, since each side has norm 1.
    """
    a, b = predicted - predicted.mean(), target - target.mean()
    a, b = a / (a.norm() + EPSILON), b / (b.norm() + EPSILON)
    return (a - b).abs().sum() / (2 * predicted.numel() ** 0.5)


def fidelity(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Pairwise fidelity loss (Tsai et al., SIGIR 2007; as in Zhang et al., UNIQUE, IEEE TIP 2021, eq. 5).

    The mean over the pairs of a batch of 1 - sqrt(p q) - sqrt((1 - p)(1 - q)), where q says which of the two images has
    the higher label (a half for equal ones) and p = Phi(2 (s_i - s_j) / sqrt(2)) is what the scores say. The factor 2
    takes scores in [-1, 1] to the five grades for which the papers leave out any scale. In [0, 1].
    """
    i, j = torch.triu_indices(len(predicted), len(predicted), offset=1)
    p = torch.special.ndtr(2 * (predicted[i] - predicted[j]) / 2**0.5)
    q = (torch.sign(target[i] - target[j]) + 1) / 2
    agreed = (p * q + EPSILON).sqrt() + ((1 - p) * (1 - q) + EPSILON).sqrt()
    return (1 - agreed).mean()


LOSSES: Mapping[str, Loss] = MappingProxyType(
    {"mse": F.mse_loss, "l1": F.l1_loss, "plcc": plcc, "norm-in-norm": norm_in_norm, "fidelity": fidelity}
)
"""Every loss by its name. `mse` and `l1` are torch's own; they alone fix the scale of the scores."""
