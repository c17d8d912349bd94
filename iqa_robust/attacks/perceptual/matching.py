"""Equal visibility: the largest strength of a perturbation, per image, at which it stays inside a budget."""

from __future__ import annotations

from collections.abc import Callable

import torch

from iqa_robust.attacks.norms import inside

HALVINGS = 12
"""Strengths tried from the top; the last is a 2048th of the first."""
BISECTIONS = 8
"""Strengths tried between the largest one that fits and the smallest one that does not."""


def largest_scale(
    make: Callable[[torch.Tensor], torch.Tensor],
    x: torch.Tensor,
    norm: str,
    eps: float,
    most: torch.Tensor,
    *,
    halvings: int = HALVINGS,
    bisections: int = BISECTIONS,
) -> torch.Tensor:
    """(N,) the largest strength found at which `make(strength)` is inside the budget around `x`; 0 if none is.

    A warp or a change of color that is scaled down along the straight line to the clean image is no longer a warp or
    a change of color, so such attacks are fitted into a budget by their own strength. The distance need not grow with
    it (an image can be warped back onto itself): strengths are therefore tried from the top, halving each time, until
    one fits, and bisection then searches between it and the one before. Every image is searched by itself.

    Args:
        make: from strengths (N,) to images (N, 3, H, W) in [0, 1]; strength 0 is expected to give `x`.
        x: (N, 3, H, W) clean images.
        norm: the budget's norm.
        eps: its size, as `Budget.eps`.
        most: (N,) the largest strength to try.
        halvings: strengths tried from the top.
        bisections: strengths tried after one fits.
    """
    low, high, trial = torch.zeros_like(most), most.clone(), most.clone()
    open_ = torch.ones_like(most, dtype=torch.bool)
    for _ in range(halvings):
        fits = inside(make(trial), x, norm, eps)
        low = torch.where(open_ & fits, trial, low)
        high = torch.where(open_ & ~fits, trial, high)
        open_ &= ~fits
        if not bool(open_.any()):
            break
        trial = torch.where(open_, trial / 2, trial)
    between = (low > 0) & (low < high)
    if not bool(between.any()):
        return low
    for _ in range(bisections):
        middle = torch.where(between, (low + high) / 2, low)
        fits = inside(make(middle), x, norm, eps)
        low, high = torch.where(between & fits, middle, low), torch.where(between & ~fits, middle, high)
    return low
