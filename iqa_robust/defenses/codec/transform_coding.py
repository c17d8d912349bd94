"""Coding in the cosine domain with a slope: what differentiable stand-ins of codecs have in common.

Source: Shin & Song 2017, "JPEG-resistant adversarial images": the codec's stages as matrix products, with
`round(t) + (t - round(t))^3` in place of rounding.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

UNIT = 16
"""Side of a coded unit in pixels: with 4:2:0 it holds an even number of luma blocks a side and whole chroma blocks."""

RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Luma weights of ITU-R BT.601, which JFIF uses; the chroma scales follow from them."""
CB_SCALE, CR_SCALE = 2 * (1 - BLUE), 2 * (1 - RED)


def smooth_round(t: torch.Tensor) -> torch.Tensor:
    """`round(t) + (t - round(t))^3`: at most 1/8 from the rounded value, with slope 3 (t - round(t))^2."""
    nearest = torch.round(t).detach()
    return nearest + (t - nearest) ** 3


def transform_coded(x: torch.Tensor, luma_table: torch.Tensor, chroma_table: torch.Tensor) -> torch.Tensor:
    """Encode and decode images (N, 3, H, W) in [0, 1] of any size, 4:2:0; the result may leave [0, 1] a little.

    A table (B, B), B a divisor of 8, holds the quantization steps of a block's coefficients, in gray levels of an
    orthonormal cosine transform.
    """
    height, width = x.shape[-2:]
    levels = F.pad(x * 255, (0, -width % UNIT, 0, -height % UNIT), mode="replicate")
    red, green, blue = levels.unbind(dim=1)
    luma = RED * red + GREEN * green + BLUE * blue
    chroma = torch.stack([(blue - luma) / CB_SCALE, (red - luma) / CR_SCALE], dim=1)  # around 0, not 128

    luma = _code(luma[:, None] - 128, luma_table.to(x)) + 128
    chroma = _code(F.avg_pool2d(chroma, 2), chroma_table.to(x))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)

    luma, cb, cr = luma[:, 0], chroma[:, 0], chroma[:, 1]
    red, blue = luma + CR_SCALE * cr, luma + CB_SCALE * cb
    green = (luma - RED * red - BLUE * blue) / GREEN
    return torch.stack([red, green, blue], dim=1)[..., :height, :width] / 255


def _code(plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantize (N, C, H, W), sides a multiple of the table's, in the domain of the cosine transform of its size."""
    side = table.shape[0]
    basis = _cosines(side).to(plane)
    blocks = plane.unfold(2, side, side).unfold(3, side, side)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (smooth_round(coefficients / table) * table) @ basis
    return blocks.transpose(3, 4).reshape(plane.shape)


def _cosines(side: int) -> torch.Tensor:
    """The orthonormal cosine transform of a length, one basis vector per row."""
    frequency, position = torch.arange(side)[:, None], torch.arange(side)[None, :]
    basis = torch.cos(math.pi / side * (position + 0.5) * frequency).to(torch.float64) * math.sqrt(2 / side)
    basis[0] = math.sqrt(1 / side)
    return basis
