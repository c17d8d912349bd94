"""Median filtering before the model."""

from __future__ import annotations

import torch

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.filtering.padding import pad_reflect, require_room
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel


class Median(DifferentiablePurifier):
    """The median of a square window around every pixel, per channel, mirrored about the outermost pixels.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact; it goes to the pixel of the window that is the median (a subgradient where pixels tie).
    Source: feature squeezing by local smoothing, Xu, Evans & Qi 2018, section III.

    Args:
        size: side of the window in pixels, odd.

    Raises:
        ContractError: `size` is not an odd whole number >= 3; on use, an image is smaller than half a window.
    """

    source = "Xu, Evans, Qi, NDSS 2018, arXiv:1704.01155"
    form = "adapted"

    def __init__(self, *, size: int = 3) -> None:
        if isinstance(size, bool) or not isinstance(size, int) or size < 3 or size % 2 == 0:
            raise ContractError(f"Median: expected size to be an odd whole number >= 3, got {size!r}.")
        self.size = size

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; images must be larger than half a window."""
        return require_room(super().wrap(model), self.size // 2)

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Filtered images (N, 3, H, W)."""
        height, width = x.shape[-2:]
        padded = pad_reflect(x, self.size // 2, "Median")
        shifts = [padded[..., i : i + height, j : j + width] for i in range(self.size) for j in range(self.size)]
        return torch.stack(shifts).median(dim=0).values
