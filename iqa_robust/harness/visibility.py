"""How visible a perturbation is, per image of a batch; learned distances where their weights are on this machine."""

from __future__ import annotations

import math

import torch

from iqa_robust.attacks.perceptual.learned import FILES, distance_for
from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.measures import perturbation


def visibility(clean: torch.Tensor, adv: torch.Tensor) -> dict[str, list[float]]:
    """PSNR (dB), SSIM, LPIPS and DISTS of (N, 3, H, W) against the clean images.

    The learned ones are NaN where their weights are absent (nothing is downloaded during a run) or images too small.
    """
    x, y = clean.cpu().numpy(), adv.cpu().numpy()
    found = {"psnr": perturbation.psnr(x, y).tolist(), "ssim": perturbation.ssim(x, y).tolist()}
    for name in FILES:
        try:
            distance = distance_for(name, clean)
        except (CheckpointError, ContractError):
            found[name.lower()] = [math.nan] * len(clean)
            continue
        with torch.no_grad():
            found[name.lower()] = distance(adv, clean).tolist()
    return found
