"""Layers of a network changed for speed: batch norm and ReLU joined to convolutions, shorter attention, bfloat16.

What the layers do is seen, not guessed from names: an example passes through the network once, and every convolution,
batch norm, ReLU and product notes what it got and what it made.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from iqa_robust.models.base import IQAModel
from iqa_robust.models.prepared.attention import SelfAttention
from iqa_robust.models.prepared.convolutions import COLORS, FrozenConvolution
from iqa_robust.models.prepared.residual import ResidualBlock

HEAVY = (nn.Conv2d, nn.ConvTranspose2d, nn.Linear, nn.MultiheadAttention)
"""Layers whose cost is worth the rounding."""
TOLERANCE = 1e-4
"""Difference of the scores that folding may make, relative and absolute: float32 sums in another order."""


def fold_batch_norms(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> IQAModel:
    """The model with each batch norm folded into the convolution before it; itself, if that changes the score of `x`.

    It would where the result of a convolution is used by something else, too.
    """
    folded = copy.deepcopy(model)
    for maker, norm in _pairs(folded, nn.BatchNorm2d, x, ref):
        if norm.track_running_stats:
            _replace(folded, maker, fuse_conv_bn_eval(maker, norm))
            _replace(folded, norm, nn.Identity())
    return folded if _agree(model, folded, x, ref) else model


def join_relus(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> IQAModel:
    """The model with each ReLU at the end of the convolution before it; itself, if that changes the score of `x`."""
    joined = copy.deepcopy(model)
    for maker, relu in _pairs(joined, nn.ReLU, x, ref):
        _replace(joined, relu, nn.Identity())
        _replace(joined, maker, _Rectified(maker, relu))
    return joined if _agree(model, joined, x, ref) else model


def unfold_residuals(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> IQAModel:
    """The model with `ResidualBlock`s wherever blocks can take that form; itself, if that changes the score of `x`."""
    unfolded = copy.deepcopy(model)
    others = {block: ResidualBlock.of(block) for block in unfolded.modules() if not _is_watched(block)}
    found = {block: other for block, other in others.items() if other is not None}
    for block, other in found.items():
        _replace(unfolded, block, other)
    return unfolded if found and _agree(model, unfolded, x, ref) else model


def straighten_attention(model: IQAModel) -> None:
    """Let self-attention take the short way where it can; see `SelfAttention`."""
    for layer in [module for module in model.modules() if SelfAttention.fits(module)]:
        assert isinstance(layer, nn.MultiheadAttention)  # `fits` says so
        _replace(model, layer, SelfAttention(layer))


def freeze_layers(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> IQAModel:
    """The model with a `FrozenConvolution` wherever a convolution fits; itself, if that changes the score of `x`."""
    frozen = copy.deepcopy(model)
    _freeze(frozen, _passes(frozen, x, ref), torch.float32)
    return frozen if _agree(model, frozen, x, ref) else model


def round_layers(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Put the heavy layers of a model that runs under autocast into bfloat16, except where rounding would do harm.

    Products of one vector per image stand after pooling: they cost nothing, and their rounding would be the score's. So
    do convolutions of images that `FrozenConvolution` does not handle.
    """
    passes = _passes(model, x, ref)
    _freeze(model, passes, torch.bfloat16)
    for call in passes:
        if _is_delicate(call):
            _replace(model, call.layer, _Float32(call.layer))
    kept = {id(module.layer) for module in model.modules() if isinstance(module, _Float32)}
    for layer in model.modules():
        if type(layer) in HEAVY and id(layer) not in kept:
            layer.to(torch.bfloat16)


def _freeze(model: IQAModel, passes: list[_Pass], kind: torch.dtype) -> None:
    joined = {id(pair[0]): pair for pair in model.modules() if isinstance(pair, _Rectified)}
    summed = {id(block.last) for block in model.modules() if isinstance(block, ResidualBlock)}
    for layer in [call.layer for call in passes]:
        if isinstance(layer, nn.Conv2d) and FrozenConvolution.fits(layer) and not _is_watched(layer):
            frozen = FrozenConvolution(layer, kind, relu=id(layer) in joined or id(layer) in summed)
            _replace(model, joined.get(id(layer), layer), frozen)


def _is_delicate(call: _Pass) -> bool:
    if isinstance(call.layer, nn.Conv2d):
        return call.layer.in_channels <= COLORS
    return isinstance(call.layer, nn.Linear) and call.given.ndim == 2


class _Rectified(nn.Sequential):
    """A convolution and the ReLU after it."""


class _Float32(nn.Module):
    """A layer in float32 among others in bfloat16."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return self.layer(x.float())


@dataclass(frozen=True)
class _Pass:
    """One call of a layer."""

    layer: nn.Module
    given: torch.Tensor
    made: torch.Tensor


def _passes(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> list[_Pass]:
    """The calls of convolutions, batch norms, ReLUs and products while the model scores `x`, in their order."""
    passes: list[_Pass] = []

    def note(layer: nn.Module, given: tuple[torch.Tensor, ...], made: torch.Tensor) -> None:
        if given:  # a layer that is called by keywords alone stays as it is
            passes.append(_Pass(layer, given[0], made))

    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear, nn.ReLU)
    hooks = [layer.register_forward_hook(note) for layer in model.modules() if type(layer) in kinds]
    try:
        model(x.clone(), None if ref is None else ref.clone())
    finally:
        for hook in hooks:
            hook.remove()
    return passes


def _pairs(
    model: IQAModel, kind: type[nn.Module], x: torch.Tensor, ref: torch.Tensor | None
) -> list[tuple[nn.Conv2d, Any]]:
    """Convolutions and layers of a kind that get their results, where each of both is called once for a score."""
    passes = _passes(model, x, ref)
    times = Counter(id(call.layer) for call in passes)
    makers = {id(call.made): call.layer for call in passes if isinstance(call.layer, nn.Conv2d)}
    found = [(makers.get(id(call.given)), call.layer) for call in passes if isinstance(call.layer, kind)]
    return [
        (maker, layer)
        for maker, layer in found
        if maker and times[id(maker)] == times[id(layer)] == 1 and not (_is_watched(maker) or _is_watched(layer))
    ]


def _is_watched(layer: nn.Module) -> bool:
    """Whether the model itself looks at what the layer gets or makes, or edits it: such a layer stays."""
    return bool(layer._forward_hooks or layer._forward_pre_hooks)


def _agree(model: IQAModel, edited: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> bool:
    try:
        before, after = (network(x.clone(), None if ref is None else ref.clone()) for network in (model, edited))
    except Exception:  # a model may ask its layers for anything; then it keeps them
        return False
    return torch.allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE)


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is a child."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
