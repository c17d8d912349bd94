"""A palette of few colors before the model."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from iqa_robust.defenses.base import Purifier
from iqa_robust.defenses.parameters import check_whole
from iqa_robust.defenses.pixels import map_uint8


class ColorQuantization(Purifier):
    """Every image painted with a palette of its own, found by an octree (Pillow), without dithering.

    Released IQA code calls evenly spaced levels per channel so; that is `bit-depth` here.

    Shape: (N, 3, H, W) in [0, 1] -> same, on the 8-bit grid.
    Gradient: identity. The color of a pixel follows the pixel over many steps, and the slope of a palette is zero
    almost everywhere.
    Source: color octrees, Gervautz & Purgathofer 1988; fewer colors as a defense, Xu, Evans & Qi 2018; BPDA, Athalye et
    al. 2018.

    Args:
        colors: in the palette, 2 to 256.

    Raises:
        ContractError: `colors` is not a whole number from 2 to 256.
    """

    source = "Gervautz, Purgathofer, 1988; Xu, Evans, Qi, NDSS 2018, arXiv:1704.01155"
    form = "adapted"

    def __init__(self, *, colors: int = 64) -> None:
        check_whole(self, "colors", colors, least=2, most=256)
        self.colors = colors

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) of at most `colors` colors."""
        return map_uint8(x, self._repaint)

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The identity."""
        return x

    def _repaint(self, image: np.ndarray) -> np.ndarray:
        painted = Image.fromarray(image).quantize(
            self.colors, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )
        return np.array(painted.convert("RGB"))
