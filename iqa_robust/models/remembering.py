"""Networks whose first layers remember their maps, and compute again only what a change of the image reaches."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.layers import replace
from iqa_robust.models.locality import Locality, Windows, chain
from iqa_robust.models.memory import Memory, cut, paste

CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2**-6}
"""Difference between a window computed alone and in the whole, as a share of the map's largest value: sums run in
another order, and bfloat16 rounds them to eight bits, layer after layer."""


class Remembering:
    """Scores by a network whose layers remember, where that can be."""

    def __init__(self) -> None:
        self.memory: Memory | None = None
        """That of the call that runs."""
        self._only_reads = False
        """Whether the first layer of the chain gets the very image, and nobody edits that."""
        self._gains: dict[torch.Size, bool] = {}

    def score(self, network: nn.Module, x: torch.Tensor, memory: Memory) -> torch.Tensor:
        """Scores (N,) of images (N, 3, H, W) by `network`, the same in every call, which is changed in the first.

        Images of a size for which nothing is gained are computed as ever. So are those of a network in which a window
        computed alone is not what it is in the whole: something between its layers, or in them, reaches farther than
        they say.
        """
        size = x.shape[-2:]
        if not self._gains:
            self._link(network, x[:1])
        if size not in self._gains:
            self._gains[size] = self._is_right(network, x[:1])
        return self.run(network, x, memory if self._gains[size] else None)

    def run(self, network: nn.Module, x: torch.Tensor, memory: Memory | None) -> torch.Tensor:
        """Scores (N,), with that memory."""
        self.memory = memory
        in_pieces = memory is not None and memory.windows is not None and self._only_reads
        try:
            scores: torch.Tensor = network(x if in_pieces else x.clone(memory_format=torch.channels_last))
        finally:
            self.memory = None
        return scores

    def _link(self, network: nn.Module, x: torch.Tensor) -> None:
        """Put a `RememberingLayer` in the place of every layer of the chain."""
        if any(_is_compiled(layer) for layer in network.modules()):
            return
        for layer in network.modules():
            if getattr(layer, "inplace", False):
                layer.inplace = False  # type: ignore[assignment]  # it would edit what is remembered
        image = x.clone()
        version = image._version
        links = chain(network, image)
        self._only_reads = bool(links) and links[0].given is image and image._version == version
        for number, link in enumerate(links):
            replace(network, link.layer, RememberingLayer(number, link.layer, link.where, self))

    def _is_right(self, network: nn.Module, x: torch.Tensor) -> bool:
        """Whether changes in some places are computed alone, and rightly."""
        alone = [self._computes_alone(network, x, windows) for windows in _places(*x.shape[-2:])]
        return None not in alone and any(alone)

    def _computes_alone(self, network: nn.Module, x: torch.Tensor, windows: Windows) -> bool | None:
        """Whether a layer computes windows of a changed image alone; None if one does so wrongly."""
        other = x.clone()
        paste(other, windows, 1 - cut(x, windows))
        whole, changed, alone = Memory(), Memory(), Memory()
        for memory, image, where in (
            (whole, x, None),
            (changed, other, None),
            (alone, x, None),
            (alone, other, windows),
        ):
            memory.propose(torch.zeros(1, dtype=torch.int64), where)
            self.run(network, image, memory)
        any_alone = False
        for number, kept in alone.maps.items():
            if kept.windows is None:
                continue
            any_alone = True
            wanted, elsewhere = changed.maps[number].now, whole.maps[number].now.clone()
            paste(elsewhere, kept.windows, cut(wanted, kept.windows))
            error, largest = (kept.now - wanted).abs().max(), wanted.abs().max()
            if not torch.equal(elsewhere, wanted) or not error <= CLOSE.get(wanted.dtype, 0) * largest:
                return None
        return any_alone


class RememberingLayer(nn.Module):
    """A layer that takes what it can from the memory of the call."""

    def __init__(self, number: int, layer: nn.Module, where: Locality, by: Remembering) -> None:
        super().__init__()
        self.number, self.layer, self.where, self.by = number, layer, where, by

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Maps of maps, as the layer makes them."""
        memory = self.by.memory
        return self.layer(x) if memory is None else memory.made(self.number, self.layer, self.where, x)


def _is_compiled(layer: nn.Module) -> bool:
    """Whether what happens inside cannot be watched, nor layers be put in other places."""
    compiled = hasattr(layer, "_orig_mod") or getattr(layer, "_compiled_call_impl", None) is not None
    return compiled or isinstance(layer, torch.jit.ScriptModule)


def _places(height: int, width: int) -> list[Windows]:
    """Windows at two corners, and one that begins at odd places."""
    side = max(min(height, width) // 16, 1)
    places = [(0, 0), (height - side, width - side), (height // 2 | 1, width // 3 | 1)]
    return [Windows([top], [left], side, side) for top, left in places]
