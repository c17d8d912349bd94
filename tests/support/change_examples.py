"""Modules that pass changes on, or that hide something from whoever looks only at their layers."""

from __future__ import annotations

import torch
from torch import nn


class Normalizing(nn.Module):
    """Hides a statistic of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return made / (1 + made.abs().mean(dim=(2, 3), keepdim=True))


class Mirroring(nn.Module):
    """Local, but not at its place."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).flip(3)


class Squeezing(nn.Module):
    """A channel's weight comes from a convolution of means, which has a kernel of one position."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.weigh = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return made * torch.sigmoid(self.weigh(made.mean(dim=(2, 3), keepdim=True)))


class Overwriting(nn.Module):
    """The ReLU writes into what the sum reads afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return self.relu(made) + made


class Adding(nn.Module):
    """Adds to what its parent goes on to use."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += self.convolution(x)
        return x


class Reusing(nn.Module):
    """Reads its maps after a part of it has edited them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.part = nn.Conv2d(3, 4, 3, padding=1), Adding()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return torch.cat([made, self.part(made)], 1)


class Asking(nn.Module):
    """Does something else when it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x) * 0.5 if isinstance(x, torch.Tensor) else self.convolution(x)


class Spreading(nn.Module):
    """Adds a map of one position to all positions, for images of 64 pixels; and the other way around."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.convolution, self.pool, self.first = nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(64), first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return self.pool(made) + made if self.first else made + self.pool(made)


class Branching(nn.Module):
    """Two branches, one of which reaches farther, summed and put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide, narrow = self.wide(x), self.narrow(x)
        return torch.cat([torch.relu(wide + narrow), narrow], 1)
