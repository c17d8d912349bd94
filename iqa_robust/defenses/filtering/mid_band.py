"""Removal of the middle frequencies of every block before the model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.errors import ContractError

BLOCK = 16


class MidBand(DifferentiablePurifier):
    """Sets a band of the DCT coefficients of all 16 x 16 blocks to zero, in every color channel.

    Made against triggers that add such coefficients (BAIQA). It removes one completely where the blocks are the same:
    like there, an image that is no multiple of 16 is padded evenly on both sides, here by repeating its border. A
    trigger on another grid keeps the part of its energy that falls outside the band.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact, except that values which the removal carries out of [0, 1] keep their slope.
    Source: frequency filtering as a defense after training, named by Yu et al., AAAI 2025; the band is the one their
    paper poisons, and the form is ours.

    Args:
        low: first zigzag rank that is removed, from 0 (the mean) to 255.
        high: first rank after the band.

    Raises:
        ContractError: not 1 <= low < high <= 256 in whole numbers.
    """

    source = "Yu et al., AAAI 2025"
    form = "reconstructed"

    def __init__(self, *, low: int = 96, high: int = 160) -> None:
        whole = all(isinstance(rank, int) and not isinstance(rank, bool) for rank in (low, high))
        if not whole or not 1 <= low < high <= BLOCK * BLOCK:
            raise ContractError(
                f"MidBand: expected whole ranks 1 <= low < high <= {BLOCK * BLOCK}, got {low!r} and {high!r}."
            )
        self.low = low
        self.high = high

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Filtered images (N, 3, H, W)."""
        height, width = x.shape[-2:]
        above, before = (-height % BLOCK) // 2, (-width % BLOCK) // 2
        below, after = -height % BLOCK - above, -width % BLOCK - before
        padded = F.pad(x, (before, after, above, below), mode="replicate")
        blocks = padded.unflatten(3, (-1, BLOCK)).unflatten(2, (-1, BLOCK)).transpose(3, 4)
        transform = _dct().to(x)
        coefficients = transform @ blocks @ transform.T
        band = transform.T @ (coefficients * _band(self.low, self.high).to(x)) @ transform
        removed = band.transpose(3, 4).flatten(4, 5).flatten(2, 3)
        filtered = x - removed[..., above : above + height, before : before + width]
        # Only the value is clamped, so that an attacker does not lose white and black regions to rounding.
        return filtered + (filtered.clamp(0, 1) - filtered).detach()


def _dct() -> torch.Tensor:
    """The orthonormal DCT-II as a matrix (16, 16), float64: rows are frequencies."""
    points = torch.arange(BLOCK, dtype=torch.float64)
    basis = torch.cos(math.pi / (2 * BLOCK) * torch.outer(points, 2 * points + 1)) * math.sqrt(2 / BLOCK)
    basis[0] /= math.sqrt(2)
    return basis


def _band(low: int, high: int) -> torch.Tensor:
    """(16, 16): one at the coefficients of zigzag ranks low <= rank < high, as JPEG counts them."""

    def rank(place: tuple[int, int]) -> tuple[int, int]:
        row, column = place
        return row + column, row if (row + column) % 2 else column

    band = torch.zeros(BLOCK, BLOCK)
    for place in sorted(((row, column) for row in range(BLOCK) for column in range(BLOCK)), key=rank)[low:high]:
        band[place] = 1
    return band
