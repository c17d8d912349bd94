"""Total-variation denoising before the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.memory import recomputed
from iqa_robust.defenses.parameters import check_number, check_whole
from iqa_robust.defenses.pixels import clamp_value

STEP = 0.25
"""Of the dual variable: 1 / (2 x dimensions)."""
STRETCH = 10
"""Iterations between two stored states of the backward pass."""
FLAT = 1e-12
"""Added to the squared length of a gradient, whose root has no slope at zero."""


class TotalVariation(DifferentiablePurifier):
    """A fixed number of Chambolle's steps toward the image y that minimizes |y - x|^2 / 2 + weight TV(y).

    Every color channel on its own, with the isotropic total variation; flat regions lose their texture, edges stay.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact, through all steps.
    Source: Rudin, Osher & Fatemi 1992; Chambolle 2004; as a defense (with missing pixels), Guo et al. 2018.

    Args:
        weight: of the total variation; larger is smoother.
        iterations: steps.

    Raises:
        ContractError: `weight` is not a finite number > 0, or `iterations` not a whole number >= 1.
    """

    source = "Chambolle, JMIV 2004; Guo et al., ICLR 2018, arXiv:1711.00117"
    form = "adapted"

    def __init__(self, *, weight: float = 0.05, iterations: int = 40) -> None:
        check_number(self, "weight", weight, above=0)
        check_whole(self, "iterations", iterations, least=1)
        self.weight = weight
        self.iterations = iterations

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Denoised images (N, 3, H, W)."""
        down, right = torch.zeros_like(x), torch.zeros_like(x)
        for start in range(0, self.iterations, STRETCH):
            count = min(STRETCH, self.iterations - start)
            down, right = recomputed(self._iterate, x, down, right, count)
        return clamp_value(x + _divergence(down, right))

    def _iterate(
        self, x: torch.Tensor, down: torch.Tensor, right: torch.Tensor, count: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """`count` steps of the dual variable, whose two components have the shape of the images."""
        for _ in range(count):
            y = x + _divergence(down, right)
            along_down, along_right = F.pad(y.diff(dim=2), (0, 0, 0, 1)), F.pad(y.diff(dim=3), (0, 1))
            length = (along_down.square() + along_right.square() + FLAT).sqrt()
            shrink = 1 + STEP / self.weight * length
            down, right = (down + STEP * along_down) / shrink, (right + STEP * along_right) / shrink
        return down, right


def _divergence(down: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Minus the adjoint of the forward differences; the last row of `down` and column of `right` are zero."""
    return down - F.pad(down, (0, 0, 1, -1)) + right - F.pad(right, (1, -1))
