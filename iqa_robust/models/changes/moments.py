"""Pooled statistics of remembered maps, kept up to date by what changed."""

from __future__ import annotations

from collections.abc import Hashable

import torch

from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.pooling import FLOOR


def mean_and_std(maps: Maps, memory: Memory, name: Hashable) -> torch.Tensor:
    """Means and standard deviations (N, 2C), as `pooling.mean_and_std` gives them up to rounding.

    Remembered are a point near the mean, the sum of the distances from it, and of their squares, in float64: of a
    channel that is nearly constant the deviation is the root of a small difference. What a change adds to the sums is
    summed in float32, in a fraction of the time.
    """
    count, old = maps.size[0] * maps.size[1], memory.maps.get(name)
    if old is None or maps.change is None:
        whole = maps.now()
        point = _sums(whole.double()) / count
        state = torch.stack([point, torch.zeros_like(point), _sums((whole - _wide(point)).square_().double())], dim=1)
        memory.remember(name, Kept(state))
    else:
        point, change, before = old.values[:, 0], maps.change.float(), maps.before()
        squares = torch.add(change, before, alpha=2).sub_(_wide(2 * point)).mul_(change)
        moved = torch.stack([torch.zeros_like(point), _sums(change), _sums(squares)], dim=1)
        memory.remember(name, Kept(old.values, moved))
        state = old.values + moved
    rest, squares = state[:, 1] / count, state[:, 2] / count
    deviation = (squares - rest.square()).clamp_min_(0).add_(FLOOR).sqrt_()
    return torch.cat([point + rest, deviation], dim=1).float()


def _sums(maps: torch.Tensor) -> torch.Tensor:
    """(N, C), float64, of (N, C, H, W), along memory in channels-last order."""
    return maps.permute(0, 2, 3, 1).flatten(1, 2).sum(dim=1).double()


def _wide(values: torch.Tensor) -> torch.Tensor:
    return values[:, :, None, None].float()
