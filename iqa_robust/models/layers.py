"""Layers of a network changed for speed: batch norm folded, attention by a shorter way, arithmetic in bfloat16.

What the layers do is seen, not guessed from names: an example passes through the network once, and every convolution,
batch norm and product notes what it got and what it made.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_input
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iqa_robust.models.attention import SelfAttention
from iqa_robust.models.base import IQAModel

COLORS = 3
"""A convolution with so many channels, or fewer, reads the image."""
HEAVY = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MultiheadAttention)
"""Layers whose cost is worth the rounding."""
TOLERANCE = 1e-4
"""Difference of the scores that folding may make, relative and absolute: float32 sums in another order."""


def fold_batch_norms(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> IQAModel:
    """The model with each batch norm folded into the convolution before it; itself, if that changes the score of `x`.

    It would where the result of a convolution is used by something else, too.
    """
    folded = copy.deepcopy(model)
    passes = _passes(folded, x, ref)
    times = Counter(id(call.layer) for call in passes)
    makers = {id(call.made): call.layer for call in passes}
    for call in passes:
        maker = makers.get(id(call.given))
        if not (isinstance(maker, nn.Conv2d) and isinstance(call.layer, nn.BatchNorm2d)):
            continue
        if call.layer.track_running_stats and times[id(maker)] == times[id(call.layer)] == 1:
            _replace(folded, maker, fuse_conv_bn_eval(maker, call.layer))
            _replace(folded, call.layer, nn.Identity())
    before, after = (network(x.clone(), None if ref is None else ref.clone()) for network in (model, folded))
    return folded if torch.allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE) else model


def straighten_attention(model: IQAModel) -> None:
    """Let self-attention take the short way where it can; see `SelfAttention`."""
    for layer in [module for module in model.modules() if SelfAttention.fits(module)]:
        assert isinstance(layer, nn.MultiheadAttention)  # `fits` says so
        _replace(model, layer, SelfAttention(layer))


def round_layers(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Put the heavy layers of a model that runs under autocast into bfloat16, except where rounding would do harm.

    A convolution that reads the image sees all of its 8 bits (bfloat16 has as many for all values up to the next power
    of two, so a step of a gray level could vanish); only its slope is rounded. Products of one vector per image stand
    after pooling: they cost nothing, and their rounding would be the score's.
    """
    for call in _passes(model, x, ref):
        layer = call.layer
        if isinstance(layer, nn.Conv2d) and layer.in_channels <= COLORS:
            plain = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
            _replace(model, layer, _FirstConvolution(layer) if plain else _Float32(layer))
        elif isinstance(layer, nn.Linear) and call.given.ndim == 2:
            _replace(model, layer, _Float32(layer))
    kept = {id(module.layer) for module in model.modules() if isinstance(module, (_FirstConvolution, _Float32))}
    for layer in model.modules():
        if type(layer) in HEAVY and id(layer) not in kept:
            layer.to(torch.bfloat16)


class _Float32(nn.Module):
    """A layer in float32 among others in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.float())


class _FirstConvolution(nn.Module):
    """Computes in float32, hands its result on in bfloat16, and passes the slope back in bfloat16."""

    def __init__(self, layer: nn.Conv2d) -> None:
        super().__init__()
        self.layer = layer
        self.register_buffer("rounded", layer.weight.detach().bfloat16())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return _ExactForward.apply(x.float(), self.layer, self.rounded)


class _ExactForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, layer: nn.Conv2d, rounded: torch.Tensor) -> torch.Tensor:
        ctx.layer, ctx.shape = layer, x.shape
        ctx.save_for_backward(rounded)
        return layer(x).bfloat16()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        layer, (rounded,) = ctx.layer, ctx.saved_tensors
        like = (layer.stride, layer.padding, layer.dilation, layer.groups)
        return conv2d_input(ctx.shape, rounded, slope, *like).float(), None, None


@dataclass(frozen=True)
class _Pass:
    """One call of a layer."""

    layer: nn.Module
    given: torch.Tensor
    made: torch.Tensor


def _passes(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> list[_Pass]:
    """The calls of convolutions, batch norms and products while the model scores `x`, in their order."""
    passes: list[_Pass] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        if given:  # a layer that is called by keywords alone stays as it is
            passes.append(_Pass(layer, given[0], made))

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    hooks = [layer.register_forward_hook(note) for layer in model.modules() if type(layer) in kinds]
    try:
        model(x.clone(), None if ref is None else ref.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return passes


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is a child."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
