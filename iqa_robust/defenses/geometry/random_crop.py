"""A random window of the image before the model."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import draws


class RandomCrop(DifferentiablePurifier):
    """A window of the image's own proportions at a random place, drawn anew for every image and call.

    Shape: (N, 3, H, W) in [0, 1] -> (N, 3, round(fraction H), round(fraction W)).
    Gradient: exact for the window drawn; randomized, so attacks average over draws.
    Source: cropping as an input transformation, Guo et al. 2018; randomization at inference, Xie et al. 2018.

    Args:
        fraction: side of the window as a part of the image's side.

    Raises:
        ContractError: `fraction` is not a number between 0 and 1; on wrapping, the model is full-reference.
    """

    deterministic: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False
    source = "Guo et al., ICLR 2018, arXiv:1711.00117"
    form = "adapted"

    def __init__(self, *, fraction: float = 0.9) -> None:
        if isinstance(fraction, bool) or not isinstance(fraction, (int, float)) or not 0 < fraction < 1:
            raise ContractError(f"RandomCrop: expected fraction to be a number between 0 and 1, got {fraction!r}.")
        self.fraction = fraction

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; its `min_size` is that of images whose windows `model` accepts."""
        wrapped = super().wrap(model)
        smallest = next(
            side
            for side in range(model.info.min_size, math.ceil((model.info.min_size + 1) / self.fraction) + 1)
            if self._window(side) >= model.info.min_size
        )
        wrapped.info = dataclasses.replace(wrapped.info, min_size=smallest)
        return wrapped

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """One window per image."""
        height, width = x.shape[-2:]
        h, w = self._window(height), self._window(width)
        rng = draws(x.shape[0])
        tops, lefts = rng.integers(0, height - h + 1).tolist(), rng.integers(0, width - w + 1).tolist()
        return torch.stack(
            [image[:, top : top + h, left : left + w] for image, top, left in zip(x, tops, lefts, strict=True)]
        )

    def _window(self, side: int) -> int:
        return max(1, round(self.fraction * side))
