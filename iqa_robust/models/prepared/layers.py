"""Layers of a network changed for speed: batch norm and ReLU joined to convolutions, shorter attention, bfloat16.

What the layers do is seen, not guessed from names: an example passes through the network once, and every convolution,
batch norm, ReLU and product notes what it got and what it made.
"""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Callable, Sequence
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
Edit = Callable[[IQAModel, torch.Tensor, torch.Tensor | None], None]
"""A change of the layers of a model, for which an example and its reference pass through them."""
TOLERANCE = 1e-4
"""Difference of the scores that an edit may make, relative and absolute: float32 sums in another order or of others."""


def edited(model: IQAModel, edits: Sequence[Edit], x: torch.Tensor, ref: torch.Tensor | None) -> IQAModel:
    """A copy of the model after the edits, without those that change the score of `x`; itself, if all of them do."""
    before = _score(model, x, ref)
    made = copy.deepcopy(model)
    try:
        for edit in edits:
            edit(made, x, ref)
        after = _score(made, x, ref)
    except Exception:  # a model may ask its layers for anything; then it keeps them
        after = torch.full_like(before, math.nan)
    if torch.allclose(after, before, rtol=TOLERANCE, atol=TOLERANCE):
        return made
    if len(edits) > 1:
        for edit in edits:
            model = edited(model, [edit], x, ref)
    return model


def _score(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> torch.Tensor:
    return model(x.clone(), None if ref is None else ref.clone())


def fold_batch_norms(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Fold each batch norm into the convolution before it.

    The score changes where something else uses the result of such a convolution, too.
    """
    for maker, norm in _pairs(model, nn.BatchNorm2d, x, ref):
        if norm.track_running_stats:
            _replace(model, maker, fuse_conv_bn_eval(maker, norm))
            _replace(model, norm, nn.Identity())


def join_relus(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Put each ReLU at the end of the convolution before it."""
    for maker, relu in _pairs(model, nn.ReLU, x, ref):
        _replace(model, relu, nn.Identity())
        _replace(model, maker, _Rectified(maker, relu))


def unfold_residuals(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Put a `ResidualBlock` wherever a block can take that form."""
    others = {block: ResidualBlock.of(block) for block in model.modules() if not _is_watched(block)}
    for block, other in others.items():
        if other is not None:
            _replace(model, block, other)


def straighten_attention(model: IQAModel) -> None:
    """Let self-attention take the short way where it can; see `SelfAttention`."""
    for layer in [module for module in model.modules() if SelfAttention.fits(module)]:
        assert isinstance(layer, nn.MultiheadAttention)  # `fits` says so
        _replace(model, layer, SelfAttention(layer))


def freeze_layers(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None) -> None:
    """Put a `FrozenConvolution` wherever a convolution fits."""
    _freeze(model, _passes(model, x, ref), torch.float32)


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
        _score(model, x, ref)
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


def _replace(model: nn.Module, old: nn.Module, new: nn.Module) -> None:
    """Put `new` wherever `old` is a child."""
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child is old:
                parent._modules[name] = new
