"""Soft ranks: differentiable stand-ins for the rank of every value of a row, divided by the length of the row.

All take (N, C) and give (N, C) in (0, 1], ascending: 1/C for the smallest value of a row, 1 for the largest, as the
temperature goes to 0. Dividing by C keeps their slopes from growing with the number of channels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable


def pairwise_rank(x: torch.Tensor, temperature: float) -> torch.Tensor:
    """r_i = (1/2 + sum_j sigmoid((x_i - x_j) / temperature)) / C, where j = i counts 1/2; the ranks of SmoothAP.

    Ranks of a row sum to (C + 1) / 2 at every temperature. |dr_i/dx_i| <= (C - 1) / (4 C temperature).
    """
    wins = torch.sigmoid((x[:, :, None] - x[:, None, :]) / temperature)
    return (0.5 + wins.sum(dim=2)) / x.shape[1]


def softsort_rank(x: torch.Tensor, temperature: float) -> torch.Tensor:
    """Mean position of a value in the soft permutation of SoftSort (Prillo and Eisenschlos, ICML 2020), over C.

    P = softmax(-|sort(x)_i - x_j| / temperature) over j; the rank of x_j is P^T (1, ..., C) divided by the sum of its
    column. The paper's P sums to one over its rows only; without that division ranks could exceed 1.
    """
    ascending = x.sort(dim=1).values
    soft = torch.softmax(-(ascending[:, :, None] - x[:, None, :]).abs() / temperature, dim=2)
    positions = torch.arange(1, x.shape[1] + 1, device=x.device, dtype=x.dtype)
    return (soft * positions[:, None]).sum(dim=1) / (soft.sum(dim=1) * x.shape[1])


def permutahedron_rank(x: torch.Tensor, temperature: float) -> torch.Tensor:
    """Projection of x / temperature on the permutahedron of (1, ..., C) / C: Blondel et al., ICML 2020, Euclidean.

    Their regularization strength is temperature / C. |dr_i/dx_i| < 1 / temperature. Piecewise linear, and **flat where
    sorted neighbors lie temperature / C or more apart**: such values have their hard ranks and a slope of exactly zero.
    At a small temperature that is everywhere, and what looks like robustness there is a masked gradient. Values of
    unit spread need a temperature of 3 or more to have slopes. Differentiable once.
    """
    return _Permutahedron.apply(x, temperature)


class _Permutahedron(torch.autograd.Function):
    """In descending order the projection is z - v, with v the non-increasing fit to z - (C, ..., 1) / C.

    v is constant over blocks (pool adjacent violators), so the Jacobian is the identity less the mean over each block.
    """

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, temperature: float) -> torch.Tensor:
        count = x.shape[1]
        z, order = (x / temperature).sort(dim=1, descending=True)
        ranks = torch.arange(count, 0, -1, device=x.device, dtype=x.dtype) / count
        fit = _non_increasing(z - ranks)
        starts = torch.ones_like(order)
        starts[:, 1:] = fit[:, 1:] != fit[:, :-1]
        ctx.save_for_backward(order, starts.cumsum(dim=1) - 1)
        ctx.temperature = temperature
        return torch.empty_like(x).scatter_(1, order, z - fit)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, None]:
        order, block = ctx.saved_tensors
        ordered = slope.gather(1, order)
        sums, sizes = (
            torch.zeros_like(ordered).scatter_add_(1, block, values).gather(1, block)
            for values in (ordered, torch.ones_like(ordered))
        )
        # a block of one is flat: exactly, not up to rounding
        through = torch.where(sizes == 1, 0, ordered - sums / sizes)
        return torch.empty_like(slope).scatter_(1, order, through) / ctx.temperature, None


def _non_increasing(values: torch.Tensor) -> torch.Tensor:
    """The least-squares non-increasing fit to every row; values of one block are equal to the bit."""
    from sklearn.isotonic import isotonic_regression

    rows = values.detach().cpu().double().numpy()
    fits = np.stack([isotonic_regression(row, increasing=False) for row in rows]) if len(rows) else rows
    return torch.from_numpy(fits).to(values)


class Operator(NamedTuple):
    """A soft rank, and the temperature that suits values of unit spread."""

    rank: Callable[[torch.Tensor, float], torch.Tensor]
    temperature: float


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {
        "pairwise": Operator(pairwise_rank, 0.5),
        "softsort": Operator(softsort_rank, 0.1),
        "permutahedron": Operator(permutahedron_rank, 5.0),
    }
)
