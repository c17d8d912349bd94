"""Small models with known answers, and images, for the tests of the attacks."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import draws


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class Linear(IQAModel):
    """f(x) = <w, x> + 50, so every answer has a closed form."""

    def __init__(self, w: torch.Tensor, info: ModelInfo | None = None) -> None:
        super().__init__()
        self.w = nn.Parameter(w)
        self.info = info or ModelInfo(score_range=(0, 100))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return (x * self.w).flatten(1).sum(dim=1) + 50


class Convolutional(IQAModel):
    """A random convolutional network with batch norm and dropout; its parts can be in different modes."""

    def __init__(self, info: ModelInfo | None = None) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            self.layers = nn.Sequential(
                nn.Conv2d(3, 8, 3, padding=1),
                nn.BatchNorm2d(8),
                nn.ReLU(),
                nn.Conv2d(8, 16, 3, stride=2, padding=1),
                nn.ReLU(),
                nn.Dropout(0.3),
                nn.Conv2d(16, 16, 3, padding=1),
                nn.Tanh(),
                nn.AdaptiveAvgPool2d(2),
                nn.Flatten(),
                nn.Linear(64, 1),
            )
        self.info = info or ModelInfo(score_range=(-2, 2))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return self.layers(10 * (x - 0.5)).flatten()


class FullReference(IQAModel):
    """Minus the mean squared difference from the reference, plus a slope, so that it rises somewhere."""

    info = ModelInfo(full_reference=True, score_range=(-1, 1))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        assert ref is not None
        return -(x - ref).square().flatten(1).mean(dim=1) + x.flatten(1).mean(dim=1) / 10


class Noisy(IQAModel):
    """f(x) = (1 + s) <w, x>, with one standard normal s per image and call."""

    info = ModelInfo(deterministic=False, score_range=(0, 1))

    def __init__(self, w: torch.Tensor) -> None:
        super().__init__()
        self.w = w
        self.seen: list[torch.Tensor] = []
        """The factors 1 + s of every call."""

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        factor = 1 + draws(len(x), x.device).normal()
        self.seen.append(factor)
        return factor * (x * self.w).flatten(1).sum(dim=1)


class Function(IQAModel):
    """A model of any function of the images."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor], info: ModelInfo | None = None) -> None:
        super().__init__()
        self.function = function
        self.info = info or ModelInfo(score_range=(0, 1))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return self.function(x)


@pytest.fixture()
def images() -> Callable[..., torch.Tensor]:
    """`images(n, size, low, high, seed)`: random images on the 8-bit grid, gray levels in [low, high]."""

    def make(n: int = 4, size: int = 16, low: int = 0, high: int = 255, seed: int = 0) -> torch.Tensor:
        levels = torch.randint(low, high + 1, (n, 3, size, size), generator=_seeded(seed))
        return levels.float() / 255

    return make


@pytest.fixture()
def weights() -> torch.Tensor:
    """(3, 16, 16) weights without zeros."""
    w = torch.randn(3, 16, 16, generator=_seeded(1))
    return w + 0.01 * w.sign()


@pytest.fixture()
def linear(weights: torch.Tensor) -> Linear:
    return Linear(weights)


@pytest.fixture()
def make_linear() -> type[Linear]:
    return Linear


@pytest.fixture()
def convolutional() -> Convolutional:
    return Convolutional().eval()


@pytest.fixture()
def full_reference() -> FullReference:
    return FullReference()


@pytest.fixture()
def noisy(weights: torch.Tensor) -> Noisy:
    return Noisy(weights)


@pytest.fixture()
def make_model() -> type[Function]:
    return Function
