"""What our trainable networks share: pooled statistics of taps, a head on them, and layers put in at the taps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import RequestError
from iqa_robust.models.feature_denoising import FeatureDenoising
from iqa_robust.models.gates import create_gate
from iqa_robust.models.pooling import mean_and_std

WHERE = ("last", "every")


class ScoreNetwork(nn.Module, ABC):
    """Images (N, 3, H, W) in [0, 1] to scores (N,): `score_features(features(x))`.

    An image passes the steps of the network one after the other. A tap is a step after which features are pooled. A
    gate, or a denoising block before it, may sit at a tap; the pooled statistics and the next step then see what it
    makes. A network without them has no weights for them.
    """

    gates: nn.ModuleList
    """One gate per gated tap, in the order of the taps; empty without gates."""
    denoisers: nn.ModuleList
    """One denoising block per tap; empty without them."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList()
        self.denoisers = nn.ModuleList()
        self._first_gate = 0

    def _add_tap_layers(self, channels: Sequence[int], gate: Mapping[str, Any] | None, feature_denoising: bool) -> None:
        """Fill `gates` and `denoisers` for taps of these channels.

        Call it last: so weights drawn before are those of a network without such layers.

        Raises:
            RequestError: `gate` does not describe a gate.
        """
        if gate is not None:
            params = dict(gate)
            where = params.pop("where", "last")
            if where not in WHERE:
                raise RequestError(f"gate: where: expected one of {', '.join(WHERE)}, got {where!r}.")
            if not isinstance(params.get("name"), str):
                raise RequestError(f"gate: expected the name of a gate under 'name', got {params.get('name')!r}.")
            self.gates.extend(
                create_gate(channels=n, **params) for n in (channels if where == "every" else channels[-1:])
            )
        if feature_denoising:
            self.denoisers.extend(FeatureDenoising(n) for n in channels)
        self._first_gate = len(channels) - len(self.gates)

    def _at_tap(self, number: int, h: torch.Tensor) -> torch.Tensor:
        """The features of a tap after its denoising block and its gate, where it has them."""
        if self.denoisers:
            h = self.denoisers[number](h)
        if self.gates and number >= self._first_gate:
            h = self.gates[number - self._first_gate](h)
        return h

    @abstractmethod
    def steps(self) -> list[nn.Module]:
        """What an image passes, in order, to the last features."""

    @abstractmethod
    def taps(self) -> list[int]:
        """The numbers of the steps after which features are pooled."""

    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled statistics (N, F) of images (N, 3, H, W): of every tap, means first."""
        return self.features_from(0, self.steps()[0](x))

    def features_from(self, number: int, h: torch.Tensor) -> torch.Tensor:
        """Pooled statistics (N, F') of the taps from the step of this number on, of which `h` is the result."""
        taps, statistics = self.taps(), list[torch.Tensor]()
        for place, step in enumerate(self.steps()[number:], start=number):
            h = step(h) if place > number else h
            if place in taps:
                h = self._at_tap(taps.index(place), h)
                statistics.append(mean_and_std(h))
        return torch.cat(statistics, dim=1)

    def weighs(self, number: int) -> bool:
        """Whether a gate or a denoising block follows the step of this number."""
        taps = self.taps()
        gated = number in taps and taps.index(number) >= self._first_gate
        return (bool(self.denoisers) and number in taps) or (bool(self.gates) and gated)

    @abstractmethod
    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of pooled statistics (N, F)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N,)."""
        return self.score_features(self.features(x))
