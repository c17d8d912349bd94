"""Adam as an ascent direction, for any tensor whose first dimension is the image."""

from __future__ import annotations

import torch

_BETA1, _BETA2, _TINY = 0.9, 0.999, 1e-8


class Adam:
    """The bias-corrected direction m / sqrt(v) of Kingma and Ba (ICLR 2015), about 1 per value.

    The caller multiplies it by a length of its own, which may differ from image to image and shrink. Each gradient is
    brought to unit L2 length per image first (Zhang et al. 2022), so that its scale cannot meet Adam's epsilon. Values
    that are not numbers count as zero. All arithmetic is per value or per image: the batch does not matter.
    """

    def __init__(self) -> None:
        self._mean: torch.Tensor | float = 0.0
        self._square: torch.Tensor | float = 0.0
        self._steps = 0

    def direction(self, gradient: torch.Tensor) -> torch.Tensor:
        """The direction (N, ...) after seeing one more `gradient` (N, ...)."""
        gradient = torch.nan_to_num(gradient, posinf=0.0, neginf=0.0)
        largest = gradient.flatten(1).abs().amax(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        gradient = gradient / torch.where(largest > 0, largest, 1)  # squares of very small values would be 0
        length = gradient.flatten(1).norm(dim=1).clamp_min(1).view_as(largest)
        gradient = gradient / length
        self._steps += 1
        self._mean = _BETA1 * self._mean + (1 - _BETA1) * gradient
        self._square = _BETA2 * self._square + (1 - _BETA2) * gradient.square()
        mean = self._mean / (1 - _BETA1**self._steps)
        square = self._square / (1 - _BETA2**self._steps)
        return mean / (square.sqrt() + _TINY)
