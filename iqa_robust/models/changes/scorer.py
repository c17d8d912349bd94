"""Scores by a network of ours of images that a search announces, from what changed in them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import nn

from iqa_robust.models.changes.convolution import Convolution
from iqa_robust.models.changes.layers import maps_of
from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.moments import mean_and_std
from iqa_robust.models.changes.trace import GIVEN, Step, traced
from iqa_robust.models.changes.windows import covering, cut, part_of
from iqa_robust.models.score_network import ScoreNetwork

IMAGE = "image"
LARGE = 0.06
"""The share of an image in a window beyond which the whole is faster in float32, as measured."""
SAME = 1e-4
"""Difference between what a step makes and what its layers make, as a share of its largest value: float32 sums."""


class ChangeScorer:
    """A network, and those of its first steps that pass changes on; their maps are remembered in float32.

    From the first step on that does something else, and from the first gate or denoising block on, maps are computed
    whole, by the network itself.
    """

    def __init__(self, network: ScoreNetwork, *, rounded: bool, rivaled: bool = False) -> None:
        """`network` is frozen and in evaluation mode. With `rounded`, convolutions take changes in bfloat16.

        A `rivaled` one stands beside a twin that scores whole images in bfloat16: changes are faster only where all
        steps pass them on.
        """
        self.network, self.rounded, self.rivaled = network, rounded, rivaled
        self.steps: list[Step] = []
        """The steps that pass changes on, found at first use."""
        self._gains: bool | None = None

    def serves(self, x: torch.Tensor) -> bool:
        """Whether anything is gained over scores of whole images (N, 3, H, W).

        However many there are: the two ways round differently, and a score must not hang on who stands beside an image.
        """
        if self._gains is None:
            self._find_steps(x[:1])
            layers = [operation.layer for step in self.steps for operation in step.operations]
            passes_on = any(isinstance(layer, Convolution) for layer in layers)
            self._gains = passes_on and not (self.rivaled and self._rest)
        return self._gains

    def pays(self, x: torch.Tensor, memory: Memory) -> bool:
        """Whether it is faster for these images; if not yet, nothing is remembered, and a later call begins."""
        if self.rounded or memory.maps or memory.kept is None:
            return True
        windows = memory.windows
        return windows is not None and windows.height * windows.width <= LARGE * x[0, 0].numel()

    @torch.no_grad()
    def _find_steps(self, x: torch.Tensor) -> None:
        maps = x.clone(memory_format=torch.channels_last)
        for number, step in enumerate(self.network.steps()):
            found, made = traced(step, rounded=self.rounded), step(maps.clone())
            if found is None or not _agrees(found, maps, made):
                break
            self.steps.append(found)
            if self.network.weighs(number):
                break
            maps = made

    @cached_property
    def _weighed(self) -> frozenset[int]:
        """The taps where a gate or a denoising block stands."""
        return frozenset(number for number in self.network.taps() if self.network.weighs(number))

    @cached_property
    def _pooled(self) -> frozenset[int]:
        """The others."""
        return frozenset(self.network.taps()) - self._weighed

    @cached_property
    def _rest(self) -> list[nn.Module]:
        """The steps after these, which the network computes whole."""
        return self.network.steps()[len(self.steps) :]

    @torch.no_grad()
    def __call__(self, x: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Scores (N,), up to rounding, of images (N, 3, H, W) that were announced to the memory; see `serves`."""
        if not memory.maps and memory.windows is not None and memory.kept is not None:
            windows, memory.windows = memory.windows, None
            self._score(memory.kept(), memory)
            memory.windows = windows
        return self._score(x, memory)

    def _score(self, x: torch.Tensor, memory: Memory) -> torch.Tensor:
        maps, statistics = _image(x, memory), list[torch.Tensor]()
        for number, step in enumerate(self.steps):
            maps = _through(step, number, maps, memory)
            if number in self._pooled:
                statistics.append(mean_and_std(maps, memory, (number, "moments")))
        last = len(self.steps) - 1
        if self._rest or last in self._weighed:
            number, whole = last, maps.now().clone()  # what is remembered is not to be edited
            if last not in self._weighed:
                number, whole = last + 1, self._rest[0](whole)
            statistics.append(self.network.features_from(number, whole))
        return self.network.score_features(torch.cat(statistics, dim=1))


def _image(x: torch.Tensor, memory: Memory) -> Maps:
    old = memory.maps.get(IMAGE)
    if old is None:
        kept = Kept(x.clone(memory_format=torch.channels_last))
    else:
        windows = covering(*x[:, 0].shape) if memory.windows is None else memory.windows
        here = torch.stack([part_of(x, windows, row) for row in range(len(x))])  # images have the channels first
        kept = Kept(old.values, here.contiguous(memory_format=torch.channels_last) - cut(old.values, windows), windows)
    memory.remember(IMAGE, kept)
    return maps_of(kept)


def _agrees(step: Step, given: torch.Tensor, made: torch.Tensor) -> bool:
    """Whether the layers of a step make what it makes: one that looks at more than its maps may be traced wrongly."""
    found = _through(step, 0, maps_of(Kept(given)), Memory()).now()
    return found.shape == made.shape and bool((found - made).abs().max() <= SAME * made.abs().max())


def _through(step: Step, number: int, given: Maps, memory: Memory) -> Maps:
    """What a step makes of maps."""
    results = {GIVEN: given}
    for place, operation in enumerate(step.operations):
        inputs = [results[source] for source in operation.given]
        results[place] = operation.layer(memory, (number, place), *inputs)
    return results[step.result]
