"""A small diffusion model of image patches: its noise schedule and its network, which predicts the noise."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from iqa_robust.defenses.learned.unet_body import UNetBody

STEPS = 1000
"""T: the steps of the whole schedule; `t` everywhere counts these."""


def linear_alpha_bar() -> torch.Tensor:
    """Signal power left after 0..T steps, (T + 1,), float64: betas from 1e-4 to 0.02, linearly (Ho et al., 2020)."""
    kept = 1 - torch.linspace(1e-4, 0.02, STEPS, dtype=torch.float64)
    return torch.cat([torch.ones(1, dtype=torch.float64), kept.cumprod(0)])


def forward_noise(x0: torch.Tensor, noise: torch.Tensor, alpha_bar: torch.Tensor) -> torch.Tensor:
    """Images after t steps: `sqrt(a) x0 + sqrt(1 - a) noise` (Ho et al., 2020, equation 4).

    Args:
        x0: (N, 3, H, W) in [-1, 1].
        noise: standard normal, of the same shape.
        alpha_bar: signal power left, (N,) or a scalar.
    """
    power = alpha_bar.to(x0).view(-1, 1, 1, 1)
    return power.sqrt() * x0 + (1 - power).sqrt() * noise


class DiffusionUNet(nn.Module):
    """The network of `diffpure`: noisy images in [-1, 1] and their step to the noise in them (eps-prediction).

    Args:
        widths: channels at a half, a quarter, an eighth ... of the resolution.
        blocks: residual blocks per resolution, on the way down and again on the way up.
        embedding: length of the time embedding.
        last_step: the largest step of the T that it is trained for; purification never goes near T.
    """

    def __init__(
        self, *, widths: Sequence[int] = (32, 64, 96), blocks: int = 2, embedding: int = 64, last_step: int = 200
    ) -> None:
        super().__init__()
        self.last_step = last_step
        self.embedding = embedding
        self.body = UNetBody(widths=widths, blocks=blocks, embedding=embedding)
        self.multiple = self.body.multiple
        self.time = nn.Sequential(nn.Linear(embedding, embedding), nn.SiLU(), nn.Linear(embedding, embedding))

    def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Predicted noise (N, 3, H, W) of images at steps `t` (N,)."""
        return self.body(x, self.time(step_features(t, self.embedding)))


def step_features(t: torch.Tensor, length: int) -> torch.Tensor:
    """Sines and cosines of the step (N,) at geometrically spaced frequencies, (N, length), float32."""
    half = length // 2
    frequency = torch.exp(torch.arange(half, device=t.device) * (-math.log(10_000) / half))
    angle = t.float()[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)
