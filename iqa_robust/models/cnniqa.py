"""`cnniqa`: the first end-to-end convolutional no-reference model (Kang, Ye, Li and Doermann, CVPR 2014)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.models.base import ModelInfo
from iqa_robust.models.checkpoints import load, load_into, resolve
from iqa_robust.models.learned import LearnedModel

PATCH = 32
LUMA = (19595 / 65536, 38470 / 65536, 7471 / 65536)
"""BT.601 weights in the 16-bit form that Pillow's mode "L" uses."""


class CNNIQA(LearnedModel):
    """No-reference model on gray patches of 32 x 32 pixels, locally normalized; the score is the patches' mean.

    Patches do not overlap; one that would end exactly at the lower or right border is left out, as it was where the
    known scores come from. Gray values are rounded to 8 bits, because those scores were computed on 8-bit gray
    images; the slope is that of the unrounded values, because rounding itself has none.

    No weights are published here: those on the web state no license. The state dict's names are `conv1`, `fc1`, `fc2`
    and `fc3`, as in the common PyTorch implementation.

    Args:
        weights: path of a state dict (.pth, loaded without running code, or .safetensors).
        higher_is_better: False where the weights were trained on DMOS, as the known LIVE checkpoint was.
        score_range: lowest and highest score on the scale of the training labels, if known.

    Raises:
        CheckpointError: at first use, when the weights cannot be read or belong to another network.
    """

    def __init__(
        self, *, weights: str, higher_is_better: bool = False, score_range: tuple[float, float] | None = None
    ) -> None:
        super().__init__()
        self.weights = weights
        self.higher_is_better = higher_is_better
        self.score_range = score_range

    def _load(self) -> tuple[nn.Module, ModelInfo]:
        checkpoint = load(resolve(self.weights, {}, Path()))
        with torch.device("meta"):
            network = CNNIQANetwork()
        load_into(network, checkpoint)
        return network, ModelInfo(
            higher_is_better=self.higher_is_better,
            score_range=None if self.score_range is None else (float(self.score_range[0]), float(self.score_range[1])),
            min_size=PATCH,
            weights_source=Path(self.weights).name,
            weights_sha256=checkpoint.sha256,
        )


class CNNIQANetwork(nn.Module):
    """One convolution (50 filters of 7 x 7), global maximum and minimum, two hidden layers of 800 units."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 50, 7)
        self.fc1 = nn.Linear(100, 800)
        self.fc2 = nn.Linear(800, 800)
        self.fc3 = nn.Linear(800, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of images (N, 3, H, W)."""
        patches = patches_of(gray_8bit(x))
        h = self.conv1(local_normalization(patches.flatten(0, 1)))
        h = torch.cat([h.amax(dim=(2, 3)), h.amin(dim=(2, 3))], dim=1)
        h = torch.relu(self.fc1(h))
        h = F.dropout(h, 0.5, self.training)
        h = torch.relu(self.fc2(h))
        return self.fc3(h).view(patches.shape[:2]).mean(dim=1)


def gray_8bit(x: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 1, H, W) on the 8-bit grid, with the slope of the unrounded luma."""
    gray = (x * x.new_tensor(LUMA).view(1, 3, 1, 1)).sum(dim=1, keepdim=True)
    return gray + (torch.floor(gray.detach() * 255 + 0.5) / 255 - gray.detach())


def patches_of(gray: torch.Tensor) -> torch.Tensor:
    """(N, 1, H, W) -> (N, P, 1, 32, 32), row by row."""
    rows, columns = (max(1, (side - 1) // PATCH) for side in gray.shape[-2:])
    cut = gray[:, 0, : rows * PATCH, : columns * PATCH]
    grid = cut.reshape(-1, rows, PATCH, columns, PATCH).transpose(2, 3)
    return grid.reshape(-1, rows * columns, 1, PATCH, PATCH)


def local_normalization(patches: torch.Tensor) -> torch.Tensor:
    """(x - mean) / (deviation + 1) over 3 x 3 pixels, borders repeated, on values in [0, 1] (eq. 1 of the paper).

    The small constant keeps the slope of the root finite where a patch is flat; it shifts a deviation by 1e-6 at most.
    """
    padded = F.pad(patches, (1, 1, 1, 1), mode="replicate")
    mean = F.avg_pool2d(padded, 3, stride=1)
    variance = F.avg_pool2d(padded * padded, 3, stride=1) - mean * mean
    return (patches - mean) / (torch.sqrt(variance.clamp(min=0) + 1e-12) + 1)
