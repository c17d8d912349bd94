"""A differentiable JPEG codec: what the baseline codec computes, with a rounding that has a slope.

Source: Shin & Song 2017, "JPEG-resistant adversarial images". Tables: ITU-T T.81 annex K, scaled as in libjpeg.
"""

from __future__ import annotations

import torch

from iqa_robust.defenses.codec.transform_coding import transform_coded

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


def quantization_table(base: tuple[tuple[int, ...], ...], quality: int) -> torch.Tensor:
    """The (8, 8) float64 table that libjpeg uses at `quality` (1 to 100), each entry from 1 to 255."""
    percent = 5000 // quality if quality < 50 else 200 - 2 * quality
    entries = torch.tensor(base, dtype=torch.int64)
    return ((entries * percent + 50) // 100).clamp(1, 255).to(torch.float64)


def differentiable_jpeg(x: torch.Tensor, quality: int) -> torch.Tensor:
    """Encode and decode images (N, 3, H, W) in [0, 1] of any size at `quality`, 4:2:0, with a slope."""
    decoded = transform_coded(x, quantization_table(LUMA, quality), quantization_table(CHROMA, quality))
    return decoded.clamp(0, 1)
