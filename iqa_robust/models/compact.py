"""`compact`: a small no-reference network of our own, fast on a CPU, trained on synthetic distortions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import nn

from iqa_robust.models.activations import replace_relus
from iqa_robust.models.base import ModelInfo
from iqa_robust.models.changes.pointwise import Pointwise
from iqa_robust.models.checkpoints import load, resolve
from iqa_robust.models.learned import LearnedModel, build, info_of, into_range
from iqa_robust.models.score_network import ScoreNetwork

WEIGHTS = Path(__file__).with_name("weights")
ROBUST = ("at", "correlation", "trades", "nt", "cprl-style")
"""Published weights of robust trainings, each from those of `photos`."""
PUBLISHED = {
    "photos": "compact-photos.safetensors",
    "student": "compact-student-photos.safetensors",
    **{name: f"compact-{name}-photos.safetensors" for name in ROBUST},
}
MIN_SIZE = 32
"""Three halvings after the stem leave 2 x 2 positions of 32 pixels; fewer give no spread to pool."""


class Compact(LearnedModel):
    """No-reference model with 1.3 million weights; scores from 0 to 100, higher is better.

    A convolutional network with a stride-2 stem and a few stages; global means and standard deviations of every stage
    go to a small head, so noise (early stages) and structure (late ones) are both seen. Images of any size from 32
    pixels a side.

    The published set `photos` was trained by the recipe `compact-photos` on synthetic distortions with pseudo-MOS,
    not on opinions of people; see its model card beside the weights.

    Args:
        weights: `"photos"`; `"student"` (narrow, distilled from `photos`); a name of `ROBUST`, trained on from `photos`
            against attacks by the recipe `compact-NAME-photos` (`cprl-style` is a reconstruction, docs/cprl.md);
            or the path of a checkpoint made by `iqa-robust train`.

    Raises:
        CheckpointError: at first use, when the weights cannot be read or belong to another network.
    """

    def __init__(self, *, weights: str = "photos") -> None:
        super().__init__()
        self.weights = weights

    def _load(self) -> tuple[nn.Module, ModelInfo]:
        checkpoint = load(resolve(self.weights, PUBLISHED, WEIGHTS))
        return build(CompactNetwork, checkpoint), info_of(checkpoint, min_size=MIN_SIZE)


class CompactNetwork(ScoreNetwork):
    """The network of `compact`: images (N, 3, H, W) in [0, 1] to scores (N,) inside `score_range`.

    Args:
        stem: channels of the stem, a 5 x 5 convolution with stride 2.
        widths: channels of the stages; each begins with a stride-2 convolution.
        hidden: units of the head's hidden layer.
        dropout: share of the pooled statistics dropped in training.
        score_range: lowest and highest score.
        gate: `name` of a gate, its parameters, and `where` it sits: after the `"last"` stage or `"every"` one.
        activation: `"relu"`, `"silu"`, `"softplus"` or `"elu"`, of every layer.
        feature_denoising: whether a denoising block follows every stage.

    Raises:
        RequestError: the gate or the activation is unknown, or a parameter of the gate is wrong.
    """

    def __init__(
        self,
        *,
        stem: int = 16,
        widths: Sequence[int] = (32, 64, 128),
        hidden: int = 64,
        dropout: float = 0.1,
        score_range: Sequence[float] = (0.0, 100.0),
        gate: Mapping[str, Any] | None = None,
        activation: str = "relu",
        feature_denoising: bool = False,
    ) -> None:
        super().__init__()
        self.score_range = (float(score_range[0]), float(score_range[1]))
        self.center = _Center()
        self.stem = _convolution(3, stem, size=5, stride=2)
        channels = [stem, *widths]
        self.stages = nn.ModuleList(
            nn.Sequential(_convolution(before, after, stride=2), Residual(after))
            for before, after in pairwise(channels)
        )
        pooled = 2 * sum(widths)
        self.head = nn.Sequential(
            nn.BatchNorm1d(pooled), nn.Dropout(dropout), nn.Linear(pooled, hidden), nn.ReLU(), nn.Linear(hidden, 1)
        )
        replace_relus(self, activation)
        self._add_tap_layers(widths, gate, feature_denoising)

    def steps(self) -> list[nn.Module]:
        """Centering, stem and stages."""
        return [self.center, self.stem, *self.stages]

    def taps(self) -> list[int]:
        """The stages."""
        return list(range(2, 2 + len(self.stages)))

    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of pooled statistics (N, F)."""
        return into_range(self.head(z).squeeze(1), *self.score_range)


class _Center(Pointwise):
    """Natural images in [0, 1] to about zero mean and unit spread."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x - 0.5) * 4


def _convolution(inputs: int, outputs: int, *, size: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Residual(nn.Module):
    """x + f(x) with two 3 x 3 convolutions through half the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(
            _convolution(channels, channels // 2),
            nn.Conv2d(channels // 2, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.activation = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of the shape of `x`."""
        return self.activation(x + self.inner(x))
