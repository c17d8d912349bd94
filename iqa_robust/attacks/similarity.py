"""Structural similarity, the measure behind budgets of equal visibility."""

from __future__ import annotations

import torch

from iqa_robust.errors import ContractError

WINDOW = 11
"""Pixels a side; a smaller image has no window."""


def ssim(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """SSIM (N,) of images (N, 3, H, W) in [0, 1], differentiable, at most 1.

    Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, the mean over windows and the three channels, at
    full resolution (Wang, Bovik, Sheikh and Simoncelli, IEEE TIP 2004): the form that records hold.

    Raises:
        ContractError: a side below 11 pixels.
    """
    if min(x.shape[-2:]) < WINDOW:
        raise ContractError(f"norm 'ssim': expected images of at least {WINDOW} pixels a side, got {tuple(x.shape)}.")
    import piq

    return piq.ssim(z, x, data_range=1.0, reduction="none", downsample=False)
