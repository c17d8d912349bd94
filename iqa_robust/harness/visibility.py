"""How visible a perturbation is, per image of a batch; learned distances where their weights are on this machine."""

from __future__ import annotations

import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import piq
import torch

from iqa_robust.measures import perturbation

_HUB_FILES = {
    "lpips": ("vgg16-397923af.pth", "lpips_weights.pt"),
    "dists": ("vgg16-397923af.pth", "dists_weights.pt"),
}
"""Files torch.hub keeps once piq has downloaded them; nothing is downloaded during a run."""


def visibility(clean: torch.Tensor, adv: torch.Tensor) -> dict[str, list[float]]:
    """PSNR (dB), SSIM, LPIPS and DISTS of (N, 3, H, W) against the clean images; NaN where weights are absent."""
    x, y = clean.cpu().numpy(), adv.cpu().numpy()
    found = {"psnr": perturbation.psnr(x, y).tolist(), "ssim": perturbation.ssim(x, y).tolist()}
    for name in _HUB_FILES:
        network = _network(name, str(clean.device))
        if network is None or min(clean.shape[-2:]) < 32:
            found[name] = [math.nan] * len(clean)
        else:
            with torch.no_grad():
                found[name] = network(adv, clean).flatten().tolist()
    return found


@lru_cache(maxsize=4)
def _network(name: str, device: str) -> Any:
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if not all((folder / file).is_file() for file in _HUB_FILES[name]):
        return None
    build = {"lpips": piq.LPIPS, "dists": piq.DISTS}[name]
    return build(reduction="none").to(device).eval()
