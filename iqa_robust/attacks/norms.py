"""Balls around an image: distance, projection, random start, steepest step, and the 8-bit grid inside."""

from __future__ import annotations

import torch

from iqa_robust.errors import ContractError
from iqa_robust.images import LEVELS, on_8bit_grid, to_8bit_grid
from iqa_robust.models.randomness import ImageRNG

TOLERANCE = 1e-6
"""Slack for float32 rounding when a distance is compared with eps; a thousandth of a gray level is 4e-6."""

_LEVEL_SLACK = 1e-4
"""Slack in gray levels for float32 rounding of k/255 +- eps; in [0, 1] units it is below `TOLERANCE`."""


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def distance(z: torch.Tensor, x: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) L-infinity or L2 distance of image batches in [0, 1] units."""
    difference = (z - x).flatten(1)
    if norm == "linf":
        return difference.abs().amax(dim=1)
    if norm == "l2":
        return torch.linalg.vector_norm(difference, dim=1, dtype=torch.float64).float()
    raise ContractError(f"norm: expected 'linf' or 'l2', got {norm!r}.")


def measure(z: torch.Tensor, x: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) float64 distance for the record; where both images lie on the 8-bit grid, of their whole gray levels.

    k/255 in float32 is off by up to 3e-8, which would show as a distance beyond the budget.
    """
    levels = _moved(z, x)
    lengths = levels.abs().amax(dim=1) if norm == "linf" else levels.square().sum(dim=1).sqrt()
    return lengths / LEVELS


def _moved(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(N, 3 H W) float64 differences in gray levels, whole ones where both images lie on the grid."""
    levels = (z.double() - x.double()).flatten(1) * LEVELS
    on_grid = on_8bit_grid(z) & on_8bit_grid(x)
    return torch.where(on_grid.view(-1, 1), levels.round(), levels)


def inside(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """(N,) bool: whether `z` is within eps of `x`, up to float32 rounding (relative where eps exceeds 1)."""
    return distance(z, x, norm) <= eps + TOLERANCE * max(1.0, eps)


def project(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """The nearest image to `z` inside [0, 1] and the eps-ball around `x` (for L2: ball first, then clamp)."""
    if norm == "linf":
        return torch.minimum(torch.maximum(z, x - eps), x + eps).clamp(0, 1)
    lengths = distance(z, x, norm).clamp_min(1e-12)
    return (x + (z - x) * _per_image((eps / lengths).clamp(max=1))).clamp(0, 1)


def random_start(x: torch.Tensor, norm: str, eps: float, rng: ImageRNG) -> torch.Tensor:
    """A uniform draw from the ball around `x`, clamped to [0, 1]."""
    if norm == "linf":
        return (x + rng.uniform(x.shape[1:], -eps, eps)).clamp(0, 1)
    direction = rng.normal(x.shape[1:])
    direction = direction / _per_image(direction.flatten(1).norm(dim=1))
    radius = eps * rng.uniform() ** (1 / x[0].numel())
    return (x + _per_image(radius) * direction).clamp(0, 1)


def steepest(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """The unit step of the norm that rises fastest: the sign for L-infinity, the normalized gradient for L2.

    It does not depend on the gradient's scale. Where the gradient is zero or not a number there is no step.
    """
    gradient = torch.nan_to_num(gradient)
    if norm == "linf":
        return gradient.sign()
    largest = _per_image(gradient.flatten(1).abs().amax(dim=1))
    scaled = gradient / torch.where(largest > 0, largest, 1)  # squares of very small or large values would be 0 or inf
    return scaled / _per_image(scaled.flatten(1).norm(dim=1).clamp_min(1))


def dual_length(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) the rise of a linear function per unit step: the L1 length for L-infinity, else the L2 length."""
    return torch.linalg.vector_norm(gradient.flatten(1), ord=1 if norm == "linf" else 2, dim=1)


def snap(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """The image on the 8-bit grid, inside the ball, that keeps the projection of `z` best.

    For L-infinity it is the nearest one; for L2 see `_snap_l2`. Clean images on the grid always have one. A
    clean image off the grid has one when eps reaches the next grid point.

    Raises:
        ContractError: an image off the grid has no grid point within eps.
    """
    z = project(z, x, norm, eps)
    return _levels_inside(torch.round(z * LEVELS), x, eps) if norm == "linf" else _snap_l2(z, x, eps)


def dither(z: torch.Tensor, x: torch.Tensor, eps: float, offset: torch.Tensor) -> torch.Tensor:
    """A grid point of the L-infinity ball beside `z`: each value goes up with the probability of its fraction.

    `offset` (N, 3, H, W) is uniform in [0, 1). The mean of the rounding is `z`, so a step shorter than half a
    gray level is not lost, as it is when every value is rounded to the nearest level. Raises as `snap` does.
    """
    return _levels_inside(torch.floor(z * LEVELS + offset), x, eps)


def _levels_inside(levels: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    low = torch.ceil((x - eps) * LEVELS - _LEVEL_SLACK)
    high = torch.floor((x + eps) * LEVELS + _LEVEL_SLACK)
    if bool((low > high).any()):
        raise _off_grid(eps)
    return torch.minimum(torch.maximum(levels, low), high).clamp(0, LEVELS) / LEVELS


def _snap_l2(z: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """Round, and give the perturbation the length back that rounding took.

    A dense perturbation that is small everywhere would round to nothing. Its direction is therefore stretched
    until its rounding is as long as the perturbation was, or shrunk where rounding left the ball. The length
    of the rounding grows with the scale, so bisection finds the longest one that fits. Values of the same
    size round up together, so there may be nothing between too short and too long: what the next scale would
    add is then added value by value (see `_fill`).
    """
    best = to_8bit_grid(x)
    if bool((distance(best, x, "l2") > eps + TOLERANCE).any()):
        raise _off_grid(eps)
    direction, whole = z - x, to_8bit_grid(z)
    wanted, length = measure(z, x, "l2"), measure(whole, x, "l2")
    most = eps + 1e-9 * max(1.0, eps)  # distances on the grid are exact up to float64 rounding
    fits = length <= most
    best = torch.where(_per_image(fits), whole, best)
    unfinished = ~fits | (length < wanted)
    limit = torch.where(fits, wanted + TOLERANCE, eps).clamp(max=most)
    largest = direction.flatten(1).abs().amax(dim=1).clamp_min(TOLERANCE)
    low = fits.to(z.dtype)
    high = torch.where(fits, (2 * wanted.to(z.dtype) / largest).clamp_min(1), torch.ones_like(low))
    if not bool(unfinished.any()):
        return best
    for _ in range(16):
        middle = (low + high) / 2
        candidate = to_8bit_grid(x + _per_image(middle) * direction)
        short = measure(candidate, x, "l2") <= limit
        best = torch.where(_per_image(short & unfinished), candidate, best)
        low, high = torch.where(short, middle, low), torch.where(short, high, middle)
    filled = _fill(best, to_8bit_grid(x + _per_image(high) * direction), x, direction, limit)
    return torch.where(_per_image(unfinished), filled, best)


def _fill(
    short: torch.Tensor, long: torch.Tensor, x: torch.Tensor, direction: torch.Tensor, limit: torch.Tensor
) -> torch.Tensor:
    """`short` with the values of `long`, largest |direction| first (ties: the first index), while they fit."""
    begin, end = _moved(short, x).square(), _moved(long, x).square()
    order = (direction.abs() * (short != long)).flatten(1).argsort(dim=1, descending=True, stable=True)
    total = begin.sum(dim=1, keepdim=True) + (end - begin).gather(1, order).cumsum(dim=1)
    fits = (total > (limit * LEVELS).square().view(-1, 1)).cumsum(dim=1) == 0
    return torch.where(torch.zeros_like(fits).scatter(1, order, fits).view_as(x), long, short)


def _off_grid(eps: float) -> ContractError:
    return ContractError(
        f"images: a budget of eps = {eps * LEVELS:.3g}/255 reaches no point of the 8-bit grid from these"
        " images; round them first with iqa_robust.images.to_8bit_grid."
    )
