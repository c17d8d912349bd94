"""Soft thresholding of the finest Haar details before the model (Donoho & Johnstone 1994)."""

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.errors import ContractError

HAAR = torch.tensor([[1, 1, 1, 1], [1, -1, 1, -1], [1, 1, -1, -1], [1, -1, -1, 1]]) / 2


class Wavelet(DifferentiablePurifier):
    """Details of each 2 x 2 block shrink by `threshold` (fraction of full scale); the gradient is exact."""

    def __init__(self, *, threshold: float = 0.03) -> None:
        if not 0 <= threshold <= 1:
            raise ContractError(f"Wavelet: expected threshold to be from 0 to 1, got {threshold!r}.")
        self.threshold = threshold

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        height, width = x.shape[-2:]
        blocks = F.pixel_unshuffle(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        bands = torch.einsum("ij,ncjhw->ncihw", HAAR.to(x), blocks.unflatten(1, (3, 4)))
        bands = torch.cat([bands[:, :, :1], F.softshrink(bands[:, :, 1:], self.threshold)], dim=2)
        blocks = torch.einsum("ij,ncihw->ncjhw", HAAR.to(x), bands).flatten(1, 2)
        return F.pixel_shuffle(blocks, 2)[..., :height, :width].clamp(0, 1)
