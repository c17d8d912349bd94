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

WHERE = ("last", "every")


class ScoreNetwork(nn.Module, ABC):
    """Images (N, 3, H, W) in [0, 1] to scores (N,): `score_features(features(x))`.

    A tap is a place whose features are pooled. A gate, or a denoising block before it, may sit at a tap; the pooled
    statistics and the next stage then see what it makes. A network without them has no weights for them.
    """

    gates: nn.ModuleList
    """One gate per gated tap, in the order of the taps; empty without gates."""
    denoisers: nn.ModuleList
    """One denoising block per tap; empty without them."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.ModuleList()
        self.denoisers = nn.ModuleList()

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
    def features(self, x: torch.Tensor) -> torch.Tensor:
        """Pooled statistics (N, F) of images (N, 3, H, W)."""

    @abstractmethod
    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of pooled statistics (N, F)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N,)."""
        return self.score_features(self.features(x))
