"""Budgets around an image: distance, projection, random start, steepest step, and the 8-bit grid inside."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch

from iqa_robust.attacks import sparse
from iqa_robust.attacks.similarity import ssim
from iqa_robust.errors import ContractError
from iqa_robust.images import LEVELS, on_8bit_grid, to_8bit_grid
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import NORMS

TOLERANCE = 1e-6
"""Slack for float32 rounding when a distance is compared with eps; a thousandth of a gray level is 4e-6."""

_LEVEL_SLACK = 1e-4
"""Slack in gray levels for float32 rounding of k/255 +- eps; in [0, 1] units it is below `TOLERANCE`."""


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)


def distance(z: torch.Tensor, x: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) distance of image batches, in the units of `Budget.eps`.

    Raises:
        ContractError: an unknown norm, or images too small for SSIM.
    """
    if norm == "ssim":
        return 1 - ssim(z, x)
    if norm in sparse.NORMS:
        return sparse.share(z, x, norm)
    difference = (z - x).flatten(1)
    if norm == "linf":
        return difference.abs_().amax(dim=1)
    if norm in ("l2", "psnr"):
        lengths = torch.linalg.vector_norm(difference, dim=1, dtype=torch.float64) / _unit(x, norm)
        return lengths.float()
    raise ContractError(f"norm: expected one of {', '.join(NORMS)}, got {norm!r}.")


def measure(z: torch.Tensor, x: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) float64 distance for the record; see `measures`."""
    return measures(z, x, (norm,))[norm]


def measures(z: torch.Tensor, x: torch.Tensor, norms: Sequence[str]) -> dict[str, torch.Tensor]:
    """Distances (N,), float64, for the record, by norm; where both images lie on the 8-bit grid, of whole gray levels.

    k/255 in float32 is off by up to 3e-8, which would show as a distance beyond the budget. For `l0` and `patch`, `z`
    lies on the grid: its float32 differences from `x` are then exact wherever they are small.
    """
    found = {norm: distance(z.double(), x.double(), norm) for norm in norms if norm == "ssim"}
    if any(norm in sparse.NORMS for norm in norms):
        found |= sparse.shares(z, x)
    if not found.keys() >= set(norms):
        levels = _moved(z, x)
        for norm in norms:
            if norm == "linf":
                found[norm] = levels.abs().amax(dim=1).double() / LEVELS
            elif norm not in found:
                lengths = torch.linalg.vector_norm(levels, dim=1, dtype=torch.float64)
                found[norm] = lengths / _unit(x, norm) / LEVELS
    return found


def _moved(z: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """(N, 3 H W) differences in gray levels: whole where both images lie on the grid, float64 where one does not."""
    on_grid = on_8bit_grid(z) & on_8bit_grid(x)
    whole = (z * LEVELS).round_().sub_((x * LEVELS).round_()).flatten(1)
    if bool(on_grid.all()):
        return whole
    return torch.where(on_grid.view(-1, 1), whole.double(), (z.double() - x.double()).flatten(1) * LEVELS)


def _unit(x: torch.Tensor, norm: str) -> float:
    """The L2 length of a perturbation of size 1: the root mean square counts per value."""
    return math.sqrt(x.shape[1:].numel()) if norm in ("psnr", "ssim") else 1.0


def inside(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """(N,) bool: whether `z` is within eps of `x`, up to rounding in its precision (relative where eps exceeds 1)."""
    if norm in sparse.NORMS:
        return sparse.inside(z, x, norm, eps)
    slack = 1e-9 if norm == "ssim" and z.dtype == torch.float64 else TOLERANCE
    return distance(z, x, norm) <= eps + slack * max(1.0, eps)


def project(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """The nearest image to `z` inside [0, 1] and the budget around `x`.

    For `l2` and `psnr`: ball first, then clamp. For `ssim`: the point of the way from `x` to `z` that is as far as
    the similarity allows.
    """
    if norm == "linf":
        return torch.clamp(z, *box(x, eps))
    if norm in sparse.NORMS:
        return sparse.project(z.clamp(0, 1), x, norm, eps)
    if norm == "ssim":
        z = z.clamp(0, 1)
        scale = _farthest(lambda s: x + _per_image(s) * (z - x), x, eps, torch.ones_like(z[:, 0, 0, 0]), halvings=8)
        return (x + _per_image(scale) * (z - x)).clamp(0, 1)
    lengths = distance(z, x, norm).clamp_min(1e-12)
    return (x + (z - x) * _per_image((eps / lengths).clamp(max=1))).clamp(0, 1)


def box(x: torch.Tensor, eps: float | torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The lowest and the highest image inside [0, 1] and the L-infinity budget around `x`."""
    return (x - eps).clamp_(min=0), (x + eps).clamp_(max=1)


def reach(x: torch.Tensor, direction: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """(N,) the longest step along `direction`, a unit step of `steepest`, that stays inside the budget.

    For `l0` and `patch` it is full scale: they bound where an image changes, not how much.
    """
    if norm in sparse.NORMS:
        return x.new_ones(len(x))
    if norm != "ssim":
        return x.new_full((len(x),), eps)
    return _farthest(
        lambda s: (x + _per_image(s) * direction).clamp(0, 1), x, eps, x.new_full((len(x),), 0.5), halvings=12
    )


def _farthest(
    make: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor, eps: float, most: torch.Tensor, *, halvings: int
) -> torch.Tensor:
    """(N,) the largest scale up to `most` (N,) at which `make(scale)` is similar enough to `x`, by bisection."""
    fits = inside(make(most), x, "ssim", eps)
    low, high = torch.where(fits, most, torch.zeros_like(most)), most.clone()
    if bool(fits.all()):
        return low
    for _ in range(halvings):
        middle = (low + high) / 2
        fits = inside(make(middle), x, "ssim", eps)
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return low


def random_start(x: torch.Tensor, norm: str, eps: float, rng: ImageRNG) -> torch.Tensor:
    """A random point of the budget around `x`, clamped to [0, 1].

    Uniform in the ball for `linf`, `l2` and `psnr`; Gaussian noise as strong as allowed for `ssim`; for `l0` and
    `patch` random colors at random places.
    """
    if norm == "linf":
        return (x + rng.uniform(x.shape[1:], -eps, eps)).clamp(0, 1)
    if norm in sparse.NORMS:
        return sparse.random_start(x, norm, eps, rng)
    direction = steepest(rng.normal(x.shape[1:]), norm)
    radius = reach(x, direction, norm, eps)
    if norm != "ssim":
        radius = radius * rng.uniform() ** (1 / x[0].numel())
    return (x + _per_image(radius) * direction).clamp(0, 1)


def steepest(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """The unit step of the norm that rises fastest.

    The sign for `linf`; the gradient with L2 length one (`l2`) or root mean square one (`psnr`, `ssim`); the gradient
    with a largest value of one for `l0` and `patch`, whose projection then keeps the steepest places.

    It does not depend on the gradient's scale. Where the gradient is zero or not a number there is no step.
    """
    if norm == "linf":
        return gradient.sign()  # 0 for what is not a number
    gradient = torch.nan_to_num(gradient)
    largest = _per_image(gradient.flatten(1).abs().amax(dim=1))
    scaled = gradient / torch.where(largest > 0, largest, 1)  # squares of very small or large values would be 0 or inf
    if norm in sparse.NORMS:
        return scaled
    return scaled * _unit(gradient, norm) / _per_image(scaled.flatten(1).norm(dim=1).clamp_min(1))


def dual_length(gradient: torch.Tensor, norm: str) -> torch.Tensor:
    """(N,) the rise of a linear function per unit step of `steepest`."""
    flat = gradient.flatten(1)
    if norm == "linf":
        return flat.abs().sum(dim=1)  # several times as fast as the vector norm of order 1
    if norm in sparse.NORMS:
        return flat.square().sum(dim=1) / flat.abs().amax(dim=1).clamp_min(torch.finfo(flat.dtype).tiny)
    return torch.linalg.vector_norm(flat, dim=1) * _unit(gradient, norm)


def unit_l1(gradient: torch.Tensor) -> torch.Tensor:
    """Gradients (N, 3, H, W) over their L1 length, for momentum (Dong et al., CVPR 2018, eq. 6).

    Zero where the gradient is zero or not a number.
    """
    length = dual_length(gradient, "linf")
    scaled = gradient / _per_image(length)
    usual = bool(((length > 0) & (length < torch.inf)).all())  # then every value is finite, so a pass is saved
    return scaled if usual else scaled.nan_to_num_()


def snap(z: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """The image on the 8-bit grid, inside the budget, that keeps the projection of `z` best.

    For `linf` it is the nearest one; for `l2` and `psnr` see `_snap_l2`; for `ssim` the point of the way from `x` to
    `z` whose rounding is as far as the similarity allows. Clean images on the grid always have one. A clean image off
    the grid has one when eps reaches the next grid point.

    Raises:
        ContractError: an image off the grid has no grid point within eps.
    """
    if norm == "ssim":
        return _snap_ssim(z.clamp(0, 1), x, eps)
    if norm == "linf":
        return _levels_inside((z.clamp(0, 1) * LEVELS).round_(), x, eps)
    z = project(z, x, norm, eps)
    if norm in sparse.NORMS:
        if not bool(on_8bit_grid(x).all()):
            raise _off_grid(norm, eps)
        return to_8bit_grid(z)
    return _snap_l2(z, x, eps, norm)


def dither(z: torch.Tensor, x: torch.Tensor, eps: float, offset: torch.Tensor) -> torch.Tensor:
    """A grid point of the L-infinity ball beside `z`: each value goes up with the probability of its fraction.

    `offset` (N, 3, H, W) is uniform in [0, 1). The mean of the rounding is `z`, so a step shorter than half a
    gray level is not lost, as it is when every value is rounded to the nearest level. Raises as `snap` does.
    """
    return _levels_inside((z * LEVELS).add_(offset).floor_(), x, eps)


def _levels_inside(levels: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    """The grid points of the ball nearest to `levels`, in their place: new memory costs more than the sums."""
    low = (x - eps).mul_(LEVELS).sub_(_LEVEL_SLACK).ceil_()
    high = (x + eps).mul_(LEVELS).add_(_LEVEL_SLACK).floor_()
    if bool((low > high).any()):
        raise _off_grid("linf", eps)
    return levels.clamp_(low, high).clamp_(0, LEVELS).div_(LEVELS)


def _snap_l2(z: torch.Tensor, x: torch.Tensor, eps: float, norm: str) -> torch.Tensor:
    """Round, and give the perturbation the length back that rounding took.

    A dense perturbation that is small everywhere would round to nothing. Its direction is therefore stretched
    until its rounding is as long as the perturbation was, or shrunk where rounding left the ball. The length
    of the rounding grows with the scale, so bisection finds the longest one that fits. Values of the same
    size round up together, so there may be nothing between too short and too long: what the next scale would
    add is then added value by value (see `_fill`).
    """
    best, radius = to_8bit_grid(x), eps * _unit(x, norm)
    if bool((distance(best, x, norm) > eps + TOLERANCE).any()):
        raise _off_grid(norm, eps)
    direction, whole = z - x, to_8bit_grid(z)
    wanted, length = measure(z, x, "l2"), measure(whole, x, "l2")
    most = radius + 1e-9 * max(1.0, radius)  # distances on the grid are exact up to float64 rounding
    fits = length <= most
    best = torch.where(_per_image(fits), whole, best)
    unfinished = ~fits | (length < wanted)
    limit = torch.where(fits, wanted + TOLERANCE, radius).clamp(max=most)
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
    begin, end = (_moved(image, x).double().square() for image in (short, long))
    order = (direction.abs() * (short != long)).flatten(1).argsort(dim=1, descending=True, stable=True)
    total = begin.sum(dim=1, keepdim=True) + (end - begin).gather(1, order).cumsum(dim=1)
    fits = (total > (limit * LEVELS).square().view(-1, 1)).cumsum(dim=1) == 0
    return torch.where(torch.zeros_like(fits).scatter(1, order, fits).view_as(x), long, short)


def _snap_ssim(z: torch.Tensor, x: torch.Tensor, eps: float) -> torch.Tensor:
    if not bool(inside(to_8bit_grid(x), x, "ssim", eps).all()):
        raise _off_grid("ssim", eps)
    # Judged in float64, as the record is: what float32 calls inside may be a hair outside.
    exact = x.double()
    scale = _farthest(
        lambda s: to_8bit_grid(x + _per_image(s) * (z - x)).double(), exact, eps, x.new_ones(len(x)), halvings=14
    )
    return to_8bit_grid(x + _per_image(scale) * (z - x))


def _off_grid(norm: str, eps: float) -> ContractError:
    return ContractError(
        f"images: a {norm} budget of eps = {eps * LEVELS:.3g}/255 reaches no point of the 8-bit grid from these"
        " images; round them first with iqa_robust.images.to_8bit_grid."
    )
