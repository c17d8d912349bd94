"""Small pictures to check things on, cut from a photograph that ships with scikit-image."""

from __future__ import annotations

import numpy as np
import torch
from skimage import data

STRIDE = 61
"""Distance of neighboring cuts in pixels: a prime, so that cuts do not line up with blocks of 8 or 16."""


def pictures(n: int, height: int, width: int) -> torch.Tensor:
    """`n` different cuts (n, 3, H, W) on the 8-bit grid; sides beyond 512 pixels are mirrored."""
    photo = data.astronaut()
    missing = [(0, max(0, side - len(photo))) for side in (height, width)]
    photo = np.pad(photo, [*missing, (0, 0)], mode="symmetric")
    cuts = []
    for number in range(n):
        top = (number + 1) * STRIDE % (photo.shape[0] - height + 1)
        left = (number + 2) * STRIDE % (photo.shape[1] - width + 1)
        cuts.append(photo[top : top + height, left : left + width])
    return torch.from_numpy(np.stack(cuts)).permute(0, 3, 1, 2).contiguous().float() / 255


def off_grid(x: torch.Tensor) -> torch.Tensor:
    """The pictures with distinct values away from 0 and 1: there a piecewise smooth function has a derivative."""
    grain = torch.rand(x.shape, generator=torch.Generator().manual_seed(5))
    return 0.15 + 0.4 * x + 0.3 * grain


def degraded(x: torch.Tensor) -> torch.Tensor:
    """A severely blurred and noisy version, on the 8-bit grid."""
    blurred = torch.nn.functional.avg_pool2d(x, 9, stride=1, padding=4, count_include_pad=False)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(6))
    return torch.round((blurred + 0.15 * noise).clamp(0, 1) * 255) / 255
