"""Scores by a network of ours of images that a search announces, from what changed in them."""

from __future__ import annotations

from functools import cached_property

import torch

from iqa_robust.models.changes.layers import maps_of
from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.moments import mean_and_std
from iqa_robust.models.changes.trace import GIVEN, Step, traced
from iqa_robust.models.changes.windows import Windows, cut
from iqa_robust.models.score_network import ScoreNetwork

IMAGE = "image"


class ChangeScorer:
    """A network, and those of its first steps that pass changes on; their maps are remembered in float32.

    From the first step on that does something else, and from the first gate or denoising block on, maps are computed
    whole, by the network itself.
    """

    def __init__(self, network: ScoreNetwork, *, rounded: bool) -> None:
        """`network` is frozen and in evaluation mode. With `rounded`, convolutions take changes in bfloat16."""
        self.network, self.rounded = network, rounded

    @cached_property
    def steps(self) -> list[Step]:
        """The steps that pass changes on, traced at first use."""
        steps: list[Step] = []
        for number, step in enumerate(self.network.steps()):
            found = traced(step, rounded=self.rounded)
            if found is None:
                break
            steps.append(found)
            if self.network.weighs(number):
                break
        return steps

    def __call__(self, x: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Scores (N,), up to rounding, of images (N, 3, H, W) that were announced to the memory."""
        network, maps = self.network, _image(x, memory)
        taps, statistics = network.taps(), list[torch.Tensor]()
        for number, step in enumerate(self.steps):
            maps = _through(step, number, maps, memory)
            if network.weighs(number):
                return self._rest(number, maps.now().clone(), statistics)
            if number in taps:
                statistics.append(mean_and_std(maps, memory, (number, "moments")))
        first = len(self.steps)
        if first < len(network.steps()):
            return self._rest(first, network.steps()[first](maps.now().clone()), statistics)
        return network.score_features(torch.cat(statistics, dim=1))

    def _rest(self, number: int, made: torch.Tensor, statistics: list[torch.Tensor]) -> torch.Tensor:
        """Scores from what the step of this number made, and the statistics of the taps before it."""
        pooled = self.network.features_from(number, made)
        return self.network.score_features(torch.cat([*statistics, pooled], dim=1))


def _image(x: torch.Tensor, memory: Memory) -> Maps:
    old = memory.maps.get(IMAGE)
    if old is None:
        kept = Kept(x.clone(memory_format=torch.channels_last))
    elif memory.windows is None:
        kept = Kept(old.values, x - old.values, Windows([0] * len(x), [0] * len(x), *x.shape[-2:]))
    else:
        kept = Kept(old.values, cut(x, memory.windows) - cut(old.values, memory.windows), memory.windows)
    memory.remember(IMAGE, kept)
    return maps_of(kept)


def _through(step: Step, number: int, given: Maps, memory: Memory) -> Maps:
    """What a step makes of maps."""
    results = {GIVEN: given}
    for place, operation in enumerate(step.operations):
        inputs = [results[source] for source in operation.given]
        results[place] = operation.layer(memory, (number, place), *inputs)
    return results[step.result]
