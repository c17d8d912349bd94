"""`unet`: a small U-shaped denoiser before the model."""

from __future__ import annotations

from collections.abc import Sequence
from types import MappingProxyType

import torch
from torch import nn

from iqa_robust.defenses.learned.network_purifier import NetworkPurifier
from iqa_robust.defenses.learned.unet_body import UNetBody


class UNetDenoiser(nn.Module):
    """The network of `unet`: noisy images (N, 3, H, W) to clean ones, as image minus predicted noise.

    Args:
        widths: channels at a half, a quarter, an eighth ... of the resolution.
        blocks: residual blocks per resolution, on the way down and again on the way up.
    """

    def __init__(self, *, widths: Sequence[int] = (32, 64, 96), blocks: int = 1) -> None:
        super().__init__()
        self.noise = UNetBody(widths=widths, blocks=blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Denoised images of the same shape, not clipped."""
        return x - self.noise(x - 0.5)


class UNet(NetworkPurifier):
    """Removes noise with a U-shaped network that sees noise at three resolutions (after DRUNet, Zhang et al., 2021).

    Shape: (N, 3, H, W) in [0, 1] -> same, any size. Deterministic.
    Surrogate: itself, with the exact gradient of the network; only the clip to [0, 1] is passed with slope 1.

    Args:
        weights: `"photos"` (blind to the noise level, trained by the recipe `unet-photos`), or the path of a
            checkpoint made by `iqa-robust train`.
    """

    source = "Zhang, Li, Zuo, Zhang, Van Gool, Timofte, TPAMI 2021, arXiv:2008.13751"
    form = "adapted"
    note = "a small network of our own in the form of DRUNet"
    network = UNetDenoiser
    published = MappingProxyType({"photos": "unet-photos.safetensors"})
