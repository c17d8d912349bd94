"""Soft ranks: exact slopes, bounds on them, hard ranks in the limit, and where one of them is flat."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import rankdata

from iqa_robust.models.gates.soft_rank import OPERATORS, pairwise_rank, permutahedron_rank, softsort_rank

NAMES = sorted(OPERATORS)


def _values(n: int = 3, c: int = 17) -> torch.Tensor:
    return torch.randn(n, c, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _jacobian(name: str, row: torch.Tensor, temperature: float) -> torch.Tensor:
    return torch.autograd.functional.jacobian(lambda x: OPERATORS[name].rank(x[None], temperature)[0], row)


@pytest.mark.parametrize("name", NAMES)
def test_small_temperatures_give_hard_ranks(name: str) -> None:
    x = _values()
    expected = torch.from_numpy(rankdata(x.numpy(), axis=1)) / x.shape[1]
    torch.testing.assert_close(OPERATORS[name].rank(x, 1e-5), expected)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [0.01, 0.3, 3.0, 100.0])
def test_ranks_are_shares_and_keep_the_order(name: str, temperature: float) -> None:
    x = _values()
    ranks = OPERATORS[name].rank(x, temperature)
    assert bool(((ranks > 0) & (ranks <= 1 + 1e-12)).all())
    steps = ranks.gather(1, x.argsort(dim=1)).diff(dim=1)
    assert bool((steps >= -1e-12).all())
    # one value larger than another in every row, so constant ranks would not do
    assert bool((ranks.amax(dim=1) > ranks.amin(dim=1)).all())


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [0.2, 1.0, 5.0])
def test_slopes_are_exact(name: str, temperature: float) -> None:
    x = _values(2, 7).requires_grad_()
    assert torch.autograd.gradcheck(lambda values: OPERATORS[name].rank(values, temperature), x)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 5.0])
def test_pairwise_ranks_sum_to_the_same_and_their_slope_is_bounded(temperature: float) -> None:
    x = _values()
    c = x.shape[1]
    torch.testing.assert_close(
        pairwise_rank(x, temperature).sum(dim=1), torch.full((3,), (c + 1) / 2, dtype=torch.float64)
    )
    slopes = _jacobian("pairwise", x[0], temperature).diagonal()
    assert float(slopes.max()) <= (c - 1) / (4 * c * temperature)
    wide = _jacobian("pairwise", x[0], 1000.0).diagonal()  # all pairs at the middle of the sigmoid: the bound is met
    torch.testing.assert_close(wide, torch.full_like(wide, (c - 1) / (4 * c * 1000)), rtol=1e-3, atol=0)


def test_softsort_is_the_formula_of_the_paper_up_to_column_sums() -> None:
    x = _values(1, 5)[0]
    ascending = sorted(x.tolist())
    soft = torch.tensor([[-abs(s - v) / 0.7 for v in x.tolist()] for s in ascending], dtype=torch.float64).softmax(1)
    positions = torch.arange(1.0, 6.0, dtype=torch.float64)
    expected = (soft.T @ positions) / soft.sum(dim=0) / 5
    torch.testing.assert_close(softsort_rank(x[None], 0.7)[0], expected)


def test_softsort_without_column_sums_would_leave_the_range() -> None:
    x = torch.linspace(0, 1, 100, dtype=torch.float64)
    soft = (-(x[:, None] - x[None, :]).abs() / 0.01).softmax(1)
    assert float((soft.T @ torch.arange(1.0, 101.0, dtype=torch.float64)).max()) > 100
    assert float(softsort_rank(x[None], 0.01).max()) <= 1


def _minimax_projection(z: torch.Tensor) -> torch.Tensor:
    """By the closed form of isotonic regression: the least over j <= i of the largest over k >= i of mean(j..k)."""
    c = len(z)
    order = z.argsort(descending=True)
    y = z[order] - torch.arange(c, 0, -1, dtype=z.dtype) / c
    fit = [min(max(float(y[j : k + 1].mean()) for k in range(i, c)) for j in range(i + 1)) for i in range(c)]
    projected = torch.empty_like(z)
    projected[order] = z[order] - torch.tensor(fit, dtype=z.dtype)
    return projected


@pytest.mark.parametrize("temperature", [0.1, 1.0, 3.0, 30.0])
def test_permutahedron_ranks_are_the_projection(temperature: float) -> None:
    for row in _values():
        torch.testing.assert_close(
            permutahedron_rank(row[None], temperature)[0], _minimax_projection(row / temperature)
        )


@pytest.mark.parametrize("temperature", [0.5, 5.0, 50.0])
def test_permutahedron_slopes_are_bounded_by_the_temperature(temperature: float) -> None:
    slopes = _jacobian("permutahedron", _values()[0], temperature).diagonal()
    assert bool((slopes >= 0).all())
    assert float(slopes.max()) < 1 / temperature


@pytest.mark.parametrize(("strength", "slope"), [(0.01, 0.0), (0.3, 0.0), (1.0, 0.75), (10.0, 0.075)])
def test_permutahedron_is_flat_at_small_strengths(strength: float, slope: float) -> None:
    # values worked out for ranks 1..4; ours are a quarter of those, and our temperature is four strengths
    x = torch.tensor([0.1, 0.5, 0.9, 2.0], dtype=torch.float64)
    slopes = 4 * _jacobian("permutahedron", x, 4 * strength)
    assert float(slopes.diagonal().max()) == pytest.approx(slope, abs=1e-12)
    if slope == 0:
        assert not bool(slopes.any())  # exactly: an attack through this gate sees nothing


def test_default_temperature_of_the_permutahedron_has_slopes() -> None:
    x = torch.randn(2, 512, generator=torch.Generator().manual_seed(1)).requires_grad_()
    permutahedron_rank(x, OPERATORS["permutahedron"].temperature)[:, ::2].sum().backward()
    assert x.grad is not None
    assert float((x.grad != 0).float().mean()) > 0.9


@pytest.mark.parametrize("name", NAMES)
def test_rows_do_not_see_each_other(name: str) -> None:
    x = _values().float()
    rank = OPERATORS[name].rank
    torch.testing.assert_close(rank(x, 1.0), torch.cat([rank(row[None], 1.0) for row in x]))
