"""Reflect padding for the filters of this room, with an error a user can act on."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel


def pad_reflect(x: torch.Tensor, radius: int, who: str) -> torch.Tensor:
    """(N, 3, H, W) -> (N, 3, H + 2 radius, W + 2 radius), mirrored about the outermost pixels.

    Raises:
        ContractError: a side has no more than `radius` pixels, so there is nothing left to mirror.
    """
    if min(x.shape[-2:]) <= radius:
        raise ContractError(
            f"{who}: expected images of at least {radius + 1} pixels a side for a filter of radius {radius},"
            f" got {x.shape[-2]} x {x.shape[-1]}."
        )
    return F.pad(x, (radius, radius, radius, radius), mode="reflect")


def require_room(wrapped: IQAModel, radius: int) -> IQAModel:
    """`wrapped`, freshly made by a filter of this radius, with its `min_size` raised to what mirroring needs."""
    wrapped.info = dataclasses.replace(wrapped.info, min_size=max(wrapped.info.min_size, radius + 1))
    return wrapped
