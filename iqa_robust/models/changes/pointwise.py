"""Layers that make each position of a map from the one at its place, whatever lies around it."""

from __future__ import annotations

import copy

from torch import nn


class Pointwise(nn.Module):
    """Such a layer of our own; it leaves its input as it is."""


ACTIVATIONS = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Hardswish, nn.Hardsigmoid,
    nn.Sigmoid, nn.Tanh,
)  # fmt: skip
"""Such layers of torch; most can be told to edit their input."""


def is_pointwise(layer: nn.Module) -> bool:
    """Whether a layer is such a one in evaluation mode."""
    if type(layer) is nn.BatchNorm2d:
        return layer.track_running_stats
    return isinstance(layer, Pointwise) or type(layer) in ACTIVATIONS


def edits(layer: nn.Module) -> bool:
    """Whether a layer writes its result into its input."""
    return bool(getattr(layer, "inplace", False))


def harmless(layer: nn.Module) -> nn.Module:
    """The same layer, leaving its input as it is."""
    if not edits(layer):
        return layer
    twin = copy.copy(layer)
    twin.__dict__["inplace"] = False
    return twin
