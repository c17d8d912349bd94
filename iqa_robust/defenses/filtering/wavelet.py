"""Wavelet shrinkage before the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.parameters import check_number, check_whole
from iqa_robust.defenses.pixels import clamp_value


class Wavelet(DifferentiablePurifier):
    """Soft thresholding of Haar details, averaged over all shifts of the grid, per channel.

    The border is repeated outward.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact; details below the threshold have none.
    Source: Donoho & Johnstone 1994; the average over shifts, Coifman & Donoho 1995.

    Args:
        threshold: by which the coefficients of an orthonormal transform shrink, fraction of full scale.
        levels: of the transform; the coarsest looks at 2^levels pixels.

    Raises:
        ContractError: `threshold` is not a finite number > 0, or `levels` not a whole number from 1 to 6.
    """

    source = "Donoho, Johnstone, Biometrika 1994; Coifman, Donoho, 1995"
    form = "adapted"

    def __init__(self, *, threshold: float = 0.05, levels: int = 3) -> None:
        check_number(self, "threshold", threshold, above=0)
        check_whole(self, "levels", levels, least=1, most=6)
        self.threshold = threshold
        self.levels = levels

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Denoised images (N, 3, H, W)."""
        margin = 2**self.levels
        padded = F.pad(x, (margin,) * 4, mode="replicate")
        shrunk = shrink(padded, self.threshold, self.levels)
        return clamp_value(shrunk[..., margin:-margin, margin:-margin])


def shrink(x: torch.Tensor, threshold: float, levels: int) -> torch.Tensor:
    """The mean, over all shifts, of periodic images (N, C, H, W) with their orthonormal Haar details softened.

    Undecimated form: the steps of level k are 2^k pixels apart, and halving sums instead of dividing them by the root
    of two makes the coefficients of level k smaller by 2^(k + 1).
    """
    smooth = x
    kept: list[list[torch.Tensor]] = []
    for level in range(levels):
        smooth, *details = _split(smooth, 2**level)
        kept.append([F.softshrink(detail, threshold / 2 ** (level + 1)) for detail in details])
    for level in reversed(range(levels)):
        smooth = _join(smooth, *kept[level], step=2**level)
    return smooth


def _split(x: torch.Tensor, step: int) -> tuple[torch.Tensor, ...]:
    """Half sums and half differences along both sides: one smooth and three detail images of the shape of `x`."""
    below = x.roll(-step, 2)
    rows = ((x + below) / 2, (x - below) / 2)
    return tuple(part for row in rows for part in ((row + row.roll(-step, 3)) / 2, (row - row.roll(-step, 3)) / 2))


def _join(smooth: torch.Tensor, *details: torch.Tensor, step: int) -> torch.Tensor:
    """The mean of the two images that `_split` keeps along each side."""
    across, down, both = details
    rows = [((low + high) + (low - high).roll(step, 3)) / 2 for low, high in ((smooth, across), (down, both))]
    return ((rows[0] + rows[1]) + (rows[0] - rows[1]).roll(step, 2)) / 2
