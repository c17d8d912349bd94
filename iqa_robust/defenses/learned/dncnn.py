"""`dncnn`: a small residual denoiser before the model."""

from __future__ import annotations

from types import MappingProxyType

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.defenses.learned.network_purifier import NetworkPurifier


class ResidualDenoiser(nn.Module):
    """The network of `dncnn`: noisy images (N, 3, H, W) to clean ones, unclamped, as image minus predicted noise.

    Plain 3 x 3 convolutions with ReLU and without batch normalization, at half resolution: blocks of 2 x 2 pixels are
    moved into the channels first (Zhang, Zuo and Zhang, 2018), which loses nothing and costs a quarter.

    Args:
        depth: number of convolutions.
        width: channels between them.
    """

    def __init__(self, *, depth: int = 8, width: int = 48) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.PixelUnshuffle(2), nn.Conv2d(12, width, 3, padding=1), nn.ReLU()]
        for _ in range(depth - 2):
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
        self.noise = nn.Sequential(*layers, nn.Conv2d(width, 12, 3, padding=1), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Denoised images of the same shape."""
        height, width = x.shape[-2:]
        even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        return x - self.noise(even - 0.5)[..., :height, :width]


class DnCNN(NetworkPurifier):
    """Removes noise with a convolutional network that predicts it (DnCNN, Zhang et al., 2017), before the model.

    Shape: (N, 3, H, W) in [0, 1] -> same, any size. Deterministic.
    Surrogate: itself, with the exact gradient of the network; only the clip to [0, 1] is passed with slope 1.

    Args:
        weights: `"photos"` (blind to the noise level, trained by the recipe `dncnn-photos`), or the path of a
            checkpoint made by `iqa-robust train`.
    """

    network = ResidualDenoiser
    published = MappingProxyType({"photos": "dncnn-photos.safetensors"})
