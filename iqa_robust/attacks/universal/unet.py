"""The generator of the learned attacks: the U-Net of pix2pix (Isola et al., CVPR 2017)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from iqa_robust.models.randomness import ImageRNG


class UNet(nn.Module):
    """Images (N, 3, H, W) of any size to patterns (N, 3, H, W) in (-1, 1).

    `depth` convolutions of 4 x 4 with stride 2 lead down and as many transposed ones up, joined level by level; widths
    are ngf, 2 ngf, 4 ngf and then 8 ngf. Instance normalization everywhere but after the first and the last of the way
    down, and at the output; leaky ReLU down, ReLU up, tanh at the end. Half of the features are dropped in training
    behind the first `depth` - 5 layers up, as in pix2pix. The sides are padded by their last row and column to a
    multiple of 2^depth. With `depth` 8 and `ngf` 64 it is the network of the released FACPA.
    """

    def __init__(self, *, ngf: int, depth: int) -> None:
        """`ngf`: width of the first level. `depth`: number of halvings, at least 1. Weights are set by `draw`."""
        super().__init__()
        widths = [ngf * min(2**level, 8) for level in range(depth)]
        with torch.device("meta"):  # `draw` or a saved state fills them; torch's own start would draw globally
            self.down = nn.ModuleList(
                nn.Conv2d(before, after, 4, 2, 1) for before, after in zip([3, *widths], widths, strict=False)
            )
            self.up = nn.ModuleList(
                nn.ConvTranspose2d(widths[level] * (1 if level == depth - 1 else 2), ([3, *widths])[level], 4, 2, 1)
                for level in reversed(range(depth))
            )
        self.to_empty(device="cpu")
        self.depth = depth

    def draw(self, rng: ImageRNG) -> UNet:
        """Weights as torch would draw them, uniform within 1 / sqrt(fan in), from the one generator of `rng`."""
        for layer in [*self.down, *self.up]:
            bound = 1 / math.sqrt(layer.weight[0].numel())
            for name, weight in list(layer.named_parameters()):
                setattr(layer, name, nn.Parameter(rng.uniform(weight.shape, -bound, bound)[0]))
        return self

    def forward(self, x: torch.Tensor, rng: ImageRNG | None = None) -> torch.Tensor:
        """Patterns (N, 3, H, W); with dropout, drawn from the one generator of `rng`, when it is given."""
        height, width = x.shape[-2:]
        step = 2**self.depth
        z = F.pad(x, (0, -width % step, 0, -height % step), mode="replicate")
        joined = []
        for level, layer in enumerate(self.down):
            z = layer(F.leaky_relu(z, 0.2) if level else z)
            if 0 < level < self.depth - 1:
                z = F.instance_norm(z)
            joined.append(z)
        for level, layer in zip(reversed(range(self.depth)), self.up, strict=True):
            z = layer(F.relu(z if level == self.depth - 1 else torch.cat([z, joined[level]], dim=1)))
            if level:
                z = F.instance_norm(z)
                if rng is not None and level > 4:
                    z = 2 * z * (rng.uniform(z.shape)[0] < 0.5)
        return torch.tanh(z)[..., :height, :width]
