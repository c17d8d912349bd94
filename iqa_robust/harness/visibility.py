"""How visible a perturbation is, per image of a batch; learned distances where their weights are on this machine."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_robust.attacks import similarity
from iqa_robust.attacks.perceptual.learned import FILES, distance_for
from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.measures import perturbation


def visibility(clean: torch.Tensor, adv: torch.Tensor) -> dict[str, list[float]]:
    """PSNR (dB), SSIM, LPIPS and DISTS of (N, 3, H, W) against the clean images.

    The learned ones are NaN where their weights are absent (nothing is downloaded during a run) or images too small.
    """
    x, y = (images.cpu().numpy().astype(np.float64) for images in (clean, adv))  # once for both
    found = {"psnr": perturbation.psnr(x, y).tolist(), "ssim": _ssim(clean, adv, x, y)}
    for name in FILES:
        try:
            distance = distance_for(name, clean)
        except (CheckpointError, ContractError):
            found[name.lower()] = [math.nan] * len(clean)
            continue
        with torch.no_grad():
            found[name.lower()] = distance(adv, clean).tolist()
    return found


def _ssim(clean: torch.Tensor, adv: torch.Tensor, x: NDArray[np.float64], y: NDArray[np.float64]) -> list[float]:
    """By the reference implementation; on a GPU, next to which that would be the slowest part of a cell, by ours."""
    if clean.is_cuda and min(clean.shape[-2:]) >= perturbation.SSIM_WINDOW:
        return similarity.ssim(adv.double(), clean.double()).tolist()
    return perturbation.ssim(x, y).tolist()
