"""A differentiable JPEG codec: what the baseline codec computes, with a rounding that has a slope.

Source: Shin & Song 2017, "JPEG-resistant adversarial images": the codec's stages as matrix products, with
`round(t) + (t - round(t))^3` in place of rounding. Tables: ITU-T T.81 annex K, scaled as in libjpeg.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

BLOCK = 8
UNIT = 16
"""Side of a coded unit in pixels: with 4:2:0 it holds four luma blocks and one block of either chroma."""

LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)

RED, GREEN, BLUE = 0.299, 0.587, 0.114
"""Luma weights of ITU-R BT.601, which JFIF uses; the chroma scales follow from them."""
CB_SCALE, CR_SCALE = 2 * (1 - BLUE), 2 * (1 - RED)


def quantization_table(base: tuple[tuple[int, ...], ...], quality: int) -> torch.Tensor:
    """The (8, 8) float64 table that libjpeg uses at `quality` (1 to 100), each entry from 1 to 255."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    entries = torch.tensor(base, dtype=torch.int64)
    return ((entries * percent + 50) // 100).clamp(1, 255).to(torch.float64)


def smooth_round(t: torch.Tensor) -> torch.Tensor:
    """`round(t) + (t - round(t))^3`: at most 1/8 from the rounded value, with slope 3 (t - round(t))^2."""
    nearest = torch.round(t).detach()
    return nearest + (t - nearest) ** 3


def differentiable_jpeg(x: torch.Tensor, quality: int) -> torch.Tensor:
    """Encode and decode images (N, 3, H, W) in [0, 1] of any size at `quality`, 4:2:0, with a slope."""
    height, width = x.shape[-2:]
    levels = F.pad(x * 255, (0, -width % UNIT, 0, -height % UNIT), mode="replicate")
    red, green, blue = levels.unbind(dim=1)
    luma = RED * red + GREEN * green + BLUE * blue
    chroma = torch.stack([(blue - luma) / CB_SCALE, (red - luma) / CR_SCALE], dim=1)  # around 0, not 128

    luma = _code(luma[:, None] - 128, quantization_table(LUMA, quality).to(x)) + 128
    chroma = _code(F.avg_pool2d(chroma, 2), quantization_table(CHROMA, quality).to(x))
    chroma = F.interpolate(chroma, scale_factor=2, mode="bilinear", align_corners=False)

    luma, cb, cr = luma[:, 0], chroma[:, 0], chroma[:, 1]
    red, blue = luma + CR_SCALE * cr, luma + CB_SCALE * cb
    green = (luma - RED * red - BLUE * blue) / GREEN
    decoded = torch.stack([red, green, blue], dim=1)[..., :height, :width]
    return (decoded / 255).clamp(0, 1)


def _code(plane: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    """Quantize (N, C, H, W), sides a multiple of 8, in the domain of the 8 x 8 cosine transform."""
    basis = _cosines().to(plane)
    blocks = plane.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)
    coefficients = basis @ blocks @ basis.T
    blocks = basis.T @ (smooth_round(coefficients / table) * table) @ basis
    return blocks.transpose(3, 4).reshape(plane.shape)


def _cosines() -> torch.Tensor:
    """The orthonormal cosine transform of length 8, one basis vector per row."""
    frequency, position = torch.arange(BLOCK)[:, None], torch.arange(BLOCK)[None, :]
    basis = torch.cos(math.pi / BLOCK * (position + 0.5) * frequency).to(torch.float64) * math.sqrt(2 / BLOCK)
    basis[0] = math.sqrt(1 / BLOCK)
    return basis
