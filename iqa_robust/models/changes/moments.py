"""Pooled statistics of remembered maps, kept up to date by what changed."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.pooling import FLOOR


def mean_and_std(maps: Maps, memory: Memory, name: Hashable) -> torch.Tensor:
    """Means and standard deviations (N, 2C), as `pooling.mean_and_std` gives them up to rounding.

    Remembered are a point near the mean, the sum of the distances from it, and of their squares.
    """
    count, windows = maps.size[0] * maps.size[1], maps.windows
    kept = memory.maps.get(name)
    if kept is None or windows is None or windows.height * windows.width == count:
        whole = maps.whole()
        point = _sums(whole) / count
        distances, squares = torch.zeros_like(point), _sums((whole - _wide(point)).square_())
    else:
        point, distances, squares = kept.values.unbind(dim=1)
        distances = distances + _sums(maps.difference)
        squares = squares + _sums((maps.before + maps.now).sub_(_wide(2 * point)).mul_(maps.difference))
    state = torch.stack([point, distances, squares], dim=1)
    memory.remember(name, Kept(state) if kept is None else Kept(kept.values, now=state))
    rest = distances / count
    deviation = (squares / count - rest.square()).clamp_min_(0).add_(FLOOR).sqrt_()
    return torch.cat([point + rest, deviation], dim=1)


def _sums(maps: torch.Tensor) -> torch.Tensor:
    """(N, C) of (N, C, H, W), along memory in channels-last order."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).sum(dim=1)


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, :, None, None]
