"""What purifiers with one network share: read at first use, frozen, applied to the whole image."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.models.checkpoints import load, resolve
from iqa_robust.models.learned import build

WEIGHTS = Path(__file__).with_name("weights")


class NetworkPurifier(DifferentiablePurifier):
    """A purifier that is a network: images (N, 3, H, W) in, images of the same shape out.

    A subclass says which network and which published weights, and has `weights` as its only parameter.
    """

    network: ClassVar[Callable[..., nn.Module]]
    """Class of the network; maps (N, 3, H, W) to the same shape, not clipped."""
    published: ClassVar[Mapping[str, str]]
    """Name of a set of weights -> its file in `weights/`."""

    def __init__(self, *, weights: str = "photos") -> None:
        self.weights = weights
        self._built: nn.Module | None = None

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """The restored images, same shape, in [0, 1].

        Raises:
            CheckpointError: at first use, when the weights cannot be read or belong to another network.
        """
        if self._built is None:
            kind = type(self)
            built = build(kind.network, load(resolve(self.weights, dict(kind.published), WEIGHTS)))
            self._built = built.eval().requires_grad_(False)
        # On a CPU, convolutions are up to half as fast again in this layout.
        layout = torch.channels_last if x.device.type == "cpu" else torch.contiguous_format
        self._built = self._built.to(x.device).to(memory_format=layout)
        return clamp_value(self._built(x))
