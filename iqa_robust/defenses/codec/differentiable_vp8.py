"""What WebP drops, with a slope: the transform and the quantizer of VP8, without its prediction and its filters.

VP8 codes what is left of a block of 4 x 4 after a prediction from its neighbors. Without the prediction the rounding
points of single coefficients are not those of the codec, but the slope is one in the same subspace: coefficients that
the quantizer's step swallows have little, those it lets through much.

Source: RFC 6386 (VP8), sections 9.6 and 14; the index of the quantizer as libwebp derives it from the quality.
"""

from __future__ import annotations

import torch

from iqa_robust.defenses.codec.transform_coding import transform_coded

AC_STEPS = (
    *range(4, 58), *range(58, 116, 2), *range(116, 173, 3), *range(173, 229, 4),
    229, 234, 239, 245, 249, 254, 259, 264, 269, 274, 279, 284,
)  # fmt: skip
"""Quantization steps of the 128 indices for all coefficients but the first, RFC 6386 section 14.1."""
GAIN = 2.0
"""Of VP8's integer transform over the orthonormal one."""
COARSER = 1.25
"""How much coarser a photograph is quantized than the index of the quality says: WebP's luma has 219 levels, which
makes every step 255 / 219 = 1.16 times as wide, and libwebp's spatial noise shaping widens those of most blocks.
Measured at quality 75 on 24 photographs: of the steps that lose as much as the codec, those of 1.2 to 1.3 times the
index's are nearest to the decoded luma, and an attack through them went 10 % further than through 1.07 times."""


def quantizer_step(quality: int) -> float:
    """Step in gray levels of an orthonormal 4 x 4 transform at `quality` (1 to 100)."""
    share = quality / 100
    linear = share * 2 / 3 if share < 0.75 else 2 * share - 1
    index = int(127 * (1 - linear ** (1 / 3)))
    return COARSER * AC_STEPS[index] / GAIN


def differentiable_vp8(x: torch.Tensor, quality: int) -> torch.Tensor:
    """Images (N, 3, H, W) in [0, 1] of any size, less what VP8 drops at `quality`, 4:2:0; for its slope only."""
    table = torch.full((4, 4), quantizer_step(quality))
    return transform_coded(x, table, table)
