"""Models without weight files to check defenses and attacks on. They compute in double precision, so that what a check
sees is the subject's rounding and not theirs.
"""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import nn

from iqa_robust.models.base import IQAModel, ModelInfo, WrappedModel

TOY_RANGE = (0.0, 100.0)


class ToyNetwork(IQAModel):
    """A fixed two-layer convolutional network: smooth, with a slope everywhere, for images of any size.

    Half of its filters see only slow changes, so a defense that removes fine detail leaves it a slope. It holds a
    batch normalization, whose state and mode a careless defense would change.
    """

    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=TOY_RANGE)
        generator = torch.Generator().manual_seed(20)  # the global generator stays where it is
        first = 0.3 * torch.randn(6, 3, 5, 5, generator=generator, dtype=torch.float64)
        first[:3] = first[:3].mean(dim=(2, 3), keepdim=True)
        second = 0.5 * torch.randn(8, 6, 3, 3, generator=generator, dtype=torch.float64)
        readout = torch.randn(8, generator=generator, dtype=torch.float64)
        self.first, self.second, self.readout = map(nn.Parameter, (first, second, readout))
        self.normalization = nn.BatchNorm2d(6, dtype=torch.float64)

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,), float64, in (0, 100)."""
        hidden = F.pad(x.double(), (2, 2, 2, 2), mode="replicate")
        hidden = F.softplus(self.normalization(F.conv2d(hidden, self.first, stride=2)))
        hidden = torch.tanh(F.conv2d(F.pad(hidden, (1, 1, 1, 1), mode="replicate"), self.second, stride=2))
        return 50 + 50 * torch.tanh(hidden.mean(dim=(2, 3)) @ self.readout)


class ToyLinear(IQAModel):
    """A weighted mean of the pixels under a fixed wave: every attack can find its way, and the best one is known."""

    def __init__(self, *, higher_is_better: bool = True) -> None:
        super().__init__()
        self.higher_is_better = higher_is_better
        self.info = ModelInfo(score_range=TOY_RANGE, higher_is_better=higher_is_better)

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,), float64, in (0, 100)."""
        row = torch.arange(x.shape[2], dtype=torch.float64, device=x.device)[:, None]
        column = torch.arange(x.shape[3], dtype=torch.float64, device=x.device)[None, :]
        wave = torch.stack([torch.cos(0.5 * row + 0.3 * column + channel) for channel in range(3)])
        return 50 + 100 * ((x.double() - 0.5) * wave).mean(dim=(1, 2, 3))


class ToyReference(IQAModel):
    """A full-reference model: 100 less the root mean square difference in percent."""

    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(full_reference=True, score_range=TOY_RANGE)

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,), float64. Raises `TypeError` without a reference."""
        if ref is None:
            raise TypeError("the reference did not arrive at the full-reference model")
        square = (x.double() - ref.double()).square().mean(dim=(1, 2, 3))
        return 100 - 100 * torch.sqrt(square + 1e-12)


class OfReference(WrappedModel):
    """A full-reference model that looks at the reference alone, for attacks on references."""

    def __init__(self, model: IQAModel) -> None:
        """`model` scores the references."""
        super().__init__(model, dataclasses.replace(model.info, full_reference=True))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of the references."""
        return self.model(ref)


class Recorder(WrappedModel):
    """A model that counts how many images it has scored, and how often somebody wanted a gradient."""

    def __init__(self, model: IQAModel) -> None:
        """`model` is called for every score."""
        super().__init__(model, model.info)
        self.images = 0
        self.differentiated = 0

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,) of the model."""
        self.images += len(x)
        self.differentiated += int(torch.is_grad_enabled() and x.requires_grad)
        return super().forward(x, ref)
