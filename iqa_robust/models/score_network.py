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
from iqa_robust.models.locality import Locality, locality_of
from iqa_robust.models.memory import Memory
from iqa_robust.models.pooling import mean_and_std

WHERE = ("last", "every")
EXAMPLE = 256
"""Pixels along the sides of the image in which is seen how far changes reach: large, so that sizes tell the strides."""


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
        self._localities: list[Locality | None] = []

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

    def features(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """Pooled statistics (N, F) of images (N, 3, H, W): of every tap, means first.

        With a `memory`, steps compute what the changes announced to it reach, and take the rest from it, up to the
        first that looks farther than its place.
        """
        h, taps, statistics = x, self.taps(), list[torch.Tensor]()
        for number, step in enumerate(self.steps()):
            where = None if memory is None else self._locality(number)
            if memory is not None and where is not None:
                h = memory.made(number, step, where, h)
            else:
                h = step(h if memory is None else h.clone())  # what is remembered is not to be edited
                memory = None
            if number in taps:
                tapped = self._at_tap(len(statistics), h)
                if tapped is not h:  # a gate weighs whole maps
                    h, memory = tapped, None
                statistics.append(mean_and_std(h))
        return torch.cat(statistics, dim=1)

    def _locality(self, number: int) -> Locality | None:
        """How far changes reach in a step; None from the first on of which that is unknown."""
        if not self._localities:
            self._localities = self._find_localities()
        return self._localities[number]

    @torch.no_grad()
    def _find_localities(self) -> list[Locality | None]:
        noise = torch.rand(1, 3, EXAMPLE, EXAMPLE, generator=torch.Generator().manual_seed(0))
        h = noise.contiguous(memory_format=torch.channels_last)
        found: list[Locality | None] = []
        steps = self.steps()
        for step in steps:
            where = locality_of(step, h)
            if where is None:
                break
            found.append(where)
            h = step(h.clone())
        return found + [None] * (len(steps) - len(found))

    @abstractmethod
    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of pooled statistics (N, F)."""

    def forward(self, x: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        """Scores (N,). With a `memory`, of images that were announced to it, up to rounding."""
        return self.score_features(self.features(x, memory))
