"""`super-resolution`: the image is halved, and a small network makes the fine detail anew."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.defenses.learned.network_purifier import NetworkPurifier
from iqa_robust.defenses.learned.unet_body import ResidualBlock, zero_convolution


class HalfSizeNetwork(nn.Module):
    """The network of `super-resolution`: images (N, 3, H, W) to images of the same shape, through half the size.

    The mean of every 2 x 2 pixels is all that the network sees. It adds to their bicubic enlargement what residual
    blocks (EDSR, Lim et al., 2017) and a sub-pixel convolution (ESPCN, Shi et al., 2016) make of them. Odd sides are
    filled up with a copy of the last row or column.

    Args:
        width: channels.
        blocks: residual blocks.
    """

    def __init__(self, *, width: int = 48, blocks: int = 6) -> None:
        super().__init__()
        last = zero_convolution(width, 12)
        self.detail = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1),
            *(ResidualBlock(width) for _ in range(blocks)),
            nn.ReLU(),
            last,
            nn.PixelShuffle(2),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Re-synthesized images of the same shape, not clipped."""
        height, width = x.shape[-2:]
        half = F.avg_pool2d(F.pad(x, (0, width % 2, 0, height % 2), mode="replicate"), 2)
        return (enlarged(half) + self.detail(half - 0.5))[..., :height, :width]


def enlarged(half: torch.Tensor) -> torch.Tensor:
    """Bicubic interpolation to twice the size, aligned with the 2 x 2 means: what the network starts from."""
    return F.interpolate(half, scale_factor=2, mode="bicubic", align_corners=False)


class SuperResolution(NetworkPurifier):
    """Halves the image, which averages fine perturbations away, and re-synthesizes it at its size.

    In the manner of "Image super-resolution as a defense against adversarial attacks" (Mustafa et al., 2019), which
    enlarges; here the size is kept, as a score depends on it.

    Shape: (N, 3, H, W) in [0, 1] -> same, any size. Deterministic.
    Surrogate: itself, with the exact gradient of the network; only the clip to [0, 1] is passed with slope 1.

    Args:
        weights: `"photos"` (trained by the recipe `super-resolution-photos` on slightly noisy photographs), or the
            path of a checkpoint made by `iqa-robust train`.
    """

    source = "Mustafa, Khan, Hayat, Shen, Shao, IEEE TIP 2019, arXiv:1901.01677"
    form = "adapted"
    network = HalfSizeNetwork
    published = MappingProxyType({"photos": "super-resolution-photos.safetensors"})
