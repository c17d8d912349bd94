"""JPEG compression before the model."""

from __future__ import annotations

import io

import numpy as np
import torch
from PIL import Image

from iqa_robust.defenses.base import Purifier
from iqa_robust.defenses.codec.differentiable_jpeg import differentiable_jpeg
from iqa_robust.errors import ContractError
from iqa_robust.images import from_uint8, to_uint8

SUBSAMPLING = "4:2:0"


class JPEG(Purifier):
    """Compression by the real codec (libjpeg through Pillow): 8-bit rounding, baseline, 4:2:0 chroma.

    Shape: (N, 3, H, W) in [0, 1] -> same, on the 8-bit grid.
    Gradient: that of a differentiable codec with the same tables and subsampling, whose rounding is smooth.
    Source: Das et al. 2017; the differentiable codec is that of Shin & Song 2017.

    Args:
        quality: on libjpeg's scale, 1 to 100.

    Raises:
        ContractError: `quality` is not a whole number from 1 to 100.
    """

    source = "Das et al., 2017, arXiv:1705.02900"
    form = "adapted"

    def __init__(self, *, quality: int = 75) -> None:
        if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
            raise ContractError(f"JPEG: expected quality to be a whole number from 1 to 100, got {quality!r}.")
        self.quality = quality

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Decoded images (N, 3, H, W)."""
        pixels = to_uint8(x.detach()).permute(0, 2, 3, 1).cpu().numpy()
        return from_uint8(torch.stack([self._recode(image) for image in pixels])).to(x.device)

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The differentiable codec."""
        return differentiable_jpeg(x, self.quality)

    def _recode(self, image: np.ndarray) -> torch.Tensor:
        """(H, W, 3) -> (3, H, W), uint8."""
        file = io.BytesIO()
        Image.fromarray(image).save(file, format="JPEG", quality=self.quality, subsampling=SUBSAMPLING)
        with Image.open(file) as decoded:
            return torch.from_numpy(np.array(decoded)).permute(2, 0, 1)
