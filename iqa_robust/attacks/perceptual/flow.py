"""Spatial transformations: an image sampled at places moved by a field of displacements."""

from __future__ import annotations

import torch


def warp(x: torch.Tensor, flow: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W): `x` sampled bilinearly at (row, column) + `flow`; beyond the border the border is repeated.

    A flow of zero gives exactly `x`. Gradients flow to `flow`; where a displacement is whole, they are those of moving
    down or right.

    Args:
        x: (N, 3, H, W) images.
        flow: (N, 2, H, W) displacements in pixels, rows first.
    """
    height, width = x.shape[-2:]
    rows = torch.arange(height, device=x.device, dtype=flow.dtype).view(1, -1, 1)
    columns = torch.arange(width, device=x.device, dtype=flow.dtype).view(1, 1, -1)
    row, column = _between(rows + flow[:, 0], height - 1), _between(columns + flow[:, 1], width - 1)
    top = row.detach().floor().clamp(0, max(height - 2, 0))
    left = column.detach().floor().clamp(0, max(width - 2, 0))
    down, right = (row - top)[:, None], (column - left)[:, None]
    pixels = x.flatten(2)

    def at(below: int, beside: int) -> torch.Tensor:
        place = (top.long() + below).clamp(max=height - 1) * width + (left.long() + beside).clamp(max=width - 1)
        return pixels.gather(2, place.flatten(1)[:, None].expand(-1, 3, -1)).view_as(x)

    upper = at(0, 0) * (1 - right) + at(0, 1) * right
    lower = at(1, 0) * (1 - right) + at(1, 1) * right
    return upper * (1 - down) + lower * down


def _between(places: torch.Tensor, most: int) -> torch.Tensor:
    """`places` within [0, most]; unlike clamp(), with a slope at both ends, so that a border can move inward."""
    return torch.where(places < 0, 0, torch.where(places > most, most, places))


def roughness(flow: torch.Tensor) -> torch.Tensor:
    """(N,) mean over pixels of the squared differences (square pixels) to the four neighbors."""
    vertical = (flow[:, :, 1:] - flow[:, :, :-1]).square().flatten(1).sum(dim=1)
    horizontal = (flow[:, :, :, 1:] - flow[:, :, :, :-1]).square().flatten(1).sum(dim=1)
    return 2 * (vertical + horizontal) / flow[0, 0].numel()


def shorten(flow: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """`flow` with every displacement shortened until no value of its pixel in `warp(x, flow)` changes by more than eps.

    The change need not grow with the length of a displacement; bisection finds one that fits.
    """
    low = torch.zeros_like(flow[:, :1])
    high = trial = torch.ones_like(low)
    for _ in range(10):
        fits = (warp(x, trial * flow) - x).abs().amax(dim=1, keepdim=True) <= eps
        low, high = torch.where(fits, trial, low), torch.where(fits, high, trial)
        trial = (low + high) / 2
    return low * flow
