"""Budgets that bound where an image changes: a share of its pixels (`l0`), or one square (`patch`)."""

from __future__ import annotations

import math

import torch
from torch.nn import functional as F

from iqa_robust.models.randomness import ImageRNG

NORMS = ("l0", "patch")

_UNCHANGED = 1e-6
"""Values that differ by less are the same: float32 rounding of k/255."""


def pixels_allowed(x: torch.Tensor, eps: float) -> int:
    """Pixels of an image that a share `eps` of them makes."""
    return min(math.floor(eps * x.shape[-2] * x.shape[-1] + 1e-6), x.shape[-2] * x.shape[-1])


def side_allowed(x: torch.Tensor, eps: float) -> int:
    """Side in pixels of the largest square within a share `eps` of the area, at most the shorter side."""
    return min(math.floor(math.sqrt(eps * x.shape[-2] * x.shape[-1]) + 1e-6), *x.shape[-2:])


def changed(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool: pixels that differ in any channel."""
    return ((z - x).abs_() > _UNCHANGED).any(dim=1)


def share(z: torch.Tensor, x: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) share of the pixels that differ, or of the area of the smallest square that holds them."""
    return _count(changed(z, x), norm).to(z.dtype) / (x.shape[-2] * x.shape[-1])


def shares(z: torch.Tensor, x: torch.Tensor) -> dict[str, torch.Tensor]:
    """`share` of both norms, float64 (N,)."""
    mask = changed(z, x)
    return {norm: _count(mask, norm).double() / (x.shape[-2] * x.shape[-1]) for norm in NORMS}


def _count(mask: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) number of true pixels of (N, H, W), or of those of the smallest square that holds them."""
    return mask.flatten(1).sum(dim=1) if norm == "l0" else _side(mask).square()


def inside(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """(N,) bool, exact: numbers of pixels are compared, not shares."""
    mask = changed(z, x)
    if norm == "l0":
        return _count(mask, norm) <= pixels_allowed(x, eps)
    return _side(mask) <= side_allowed(x, eps)


def _side(mask: torch.Tensor) -> torch.Tensor:
    """(N,) the longer side of the bounding box of the true pixels of (N, H, W)."""
    return torch.maximum(_extent(mask.any(dim=2)), _extent(mask.any(dim=1)))


def _extent(line: torch.Tensor) -> torch.Tensor:
    """(N,) number of places from the first to the last true one of (N, L)."""
    places = torch.arange(line.shape[1], device=line.device)
    first = torch.where(line, places, line.shape[1]).amin(dim=1)
    last = torch.where(line, places, -1).amax(dim=1)
    return (last - first + 1).clamp_min(0)


def project(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """`z` where it changes `x` most (the pixels, or the square, of the largest squared change), else `x`."""
    energy = (z - x).square().sum(dim=1)
    if norm == "l0":
        order = energy.flatten(1).argsort(dim=1, descending=True, stable=True)[:, : pixels_allowed(x, eps)]
        kept = torch.zeros_like(energy, dtype=torch.bool).flatten(1).scatter(1, order, True).view_as(energy)
    else:
        side = side_allowed(x, eps)
        if side == 0:
            return x.clone()
        sums = F.avg_pool2d(energy[:, None].double(), side, stride=1)[:, 0]
        kept = square_mask(sums.flatten(1).argmax(dim=1), side, x)
    return torch.where(kept[:, None], z, x)


def square_mask(corner: torch.Tensor, side: int, x: torch.Tensor) -> torch.Tensor:
    """(N, H, W) bool: squares of `side` pixels, their corners (N,) counted row by row among the possible ones."""
    height, width = x.shape[-2:]
    top, left = (part.view(-1, 1, 1) for part in (corner // (width - side + 1), corner % (width - side + 1)))
    rows = torch.arange(height, device=x.device).view(1, -1, 1)
    columns = torch.arange(width, device=x.device).view(1, 1, -1)
    return (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)


def random_mask(x: torch.Tensor, norm: str, eps: float, rng: ImageRNG) -> torch.Tensor:
    """(N, H, W) bool: a uniform draw of as many pixels, or of a square as large, as the budget allows."""
    height, width = x.shape[-2:]
    if norm == "l0":
        order = rng.uniform((height * width,)).argsort(dim=1)[:, : pixels_allowed(x, eps)]
        mask = torch.zeros((len(x), height * width), dtype=torch.bool, device=x.device)
        return mask.scatter(1, order, True).view(len(x), height, width)
    side = side_allowed(x, eps)
    if side == 0:
        return torch.zeros((len(x), height, width), dtype=torch.bool, device=x.device)
    return square_mask(rng.integers(0, (height - side + 1) * (width - side + 1)), side, x)


def random_start(x: torch.Tensor, norm: str, eps: float, rng: ImageRNG) -> torch.Tensor:
    """Uniform colors at a random draw of the places the budget allows."""
    mask = random_mask(x, norm, eps, rng)
    return torch.where(mask[:, None], rng.uniform(x.shape[1:]), x)
