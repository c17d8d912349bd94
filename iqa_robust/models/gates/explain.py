"""What a gated network's score rests on: channels by importance, and the regions of the image they stand for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.models.gates.base import Gate
from iqa_robust.models.modes import evaluation_mode


@dataclass(frozen=True)
class LayerExplanation:
    """One gate at N images, with h (N, C, H, W) what it gets, h' what it makes, and g the slope of the score by h'.

    h' is the gate's weight times h; of `sort-mask` with the form `elements`, the channel's mean plus the weight times
    the deviation from it. Of an `ensemble`, h' and the weights are the means of its members'.
    """

    layer: str
    """Name of the gate in the network."""
    weights: torch.Tensor
    """(N, C) in [0, 1]: how much of a channel, or of its deviations, passes; the mean over the positions where a gate
    weighs every value."""
    importance: torch.Tensor
    """(N, C) at least 0, units of the score: |sum of g h' over the positions|. Where h' is the gate's weight times h,
    it is that weight times what the channel would contribute ungated."""
    ranks: torch.Tensor
    """(N, C) from 1, the most important channel of the image, to C."""
    causal_map: torch.Tensor
    """(N, H, W) at least 0, units of the score: positive part of the sum of g h' over the channels, that is Grad-CAM
    of what the gate makes, with slopes that are not averaged."""
    non_causal_map: torch.Tensor
    """(N, H, W) likewise of g (h - h'): what the gate blocks."""


def has_gates(network: nn.Module) -> bool:
    """Whether there is anything to explain."""
    return any(isinstance(module, Gate) for module in network.modules())


def explain(network: nn.Module, x: torch.Tensor) -> list[LayerExplanation]:
    """Explanations of the scores of images (N, 3, H, W), one per gate, in the order the image passes them.

    Slopes are those of the true score, through all gates, in evaluation mode; the network is left as it was.

    Raises:
        ContractError: the network has no gate that the images pass, or it cuts them into patches before one.
    """
    passes: list[tuple[Gate, torch.Tensor, torch.Tensor]] = []

    def note(gate: nn.Module, given: tuple[Any, ...], made: torch.Tensor) -> None:
        assert isinstance(gate, Gate)  # hooked below
        passes.append((gate, given[0], made))

    names = _names(network)
    hooks = [gate.register_forward_hook(note) for gate in names]
    try:
        with evaluation_mode(network), torch.enable_grad():
            # the images need slopes, or features of a network with frozen weights have none; the copy may be edited
            scores = network(x.detach().requires_grad_().clone())
            if not passes:
                raise ContractError("explain: the network has no gate; build it with one, such as 'soft-rank'.")
            for gate, given, _ in passes:
                if len(given) != len(x):
                    raise ContractError(
                        f"explain: gate {names[gate]!r}: expected a feature map per image, {len(x)}, got {len(given)}."
                    )
            slopes = torch.autograd.grad(scores.sum(), [made for _, _, made in passes])
        with evaluation_mode(network), torch.no_grad():
            return [_layer(names[gate], gate, h, made, g) for (gate, h, made), g in zip(passes, slopes, strict=True)]
    finally:
        for hook in hooks:
            hook.remove()


def _names(network: nn.Module) -> dict[Gate, str]:
    """The network's gates; an ensemble speaks for its members."""
    found = {module: name for name, module in network.named_modules() if isinstance(module, Gate)}
    members = {member for gate in found for part in gate.children() for member in part.modules()}
    return {gate: name for gate, name in found.items() if gate not in members}


def _layer(name: str, gate: Gate, h: torch.Tensor, made: torch.Tensor, slope: torch.Tensor) -> LayerExplanation:
    passed, blocked = slope * made, slope * (h - made)
    importance = passed.sum(dim=(2, 3)).abs()
    return LayerExplanation(
        layer=name,
        weights=gate.weights(h).mean(dim=(2, 3)),
        importance=importance,
        ranks=importance.argsort(dim=1, descending=True, stable=True).argsort(dim=1) + 1,
        causal_map=passed.sum(dim=1).relu(),
        non_causal_map=blocked.sum(dim=1).relu(),
    )
