"""The parsimonious attack: the optimum of a linear model, the grid, lazy against plain greedy search."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.blackbox.parsimonious import _greedy, _grid
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget


@pytest.mark.parametrize("goal", ["up", "down"])
@pytest.mark.parametrize("blocks", [1, 8])
def test_a_linear_model_is_solved_exactly(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], goal: str, blocks: int
) -> None:
    """One pass over single values decides each by itself, and the search then ends before its queries do."""
    w = torch.randn(3, 6, 5, generator=torch.Generator().manual_seed(5))
    w = w + 0.01 * w.sign()
    x = images(2, 8, low=30, high=220)[:, :, :6, :5].contiguous()
    attack = attacks.create("parsimonious", blocks=blocks)
    result = attack(make_linear(w), x, goal=goal, budget=Budget(eps_255=8, queries=5000))
    expected = 8 / 255 * w.abs().sum().item()
    shift = (result.score_adv - result.score_clean).abs()
    # float32 sums of 90 products around 50
    torch.testing.assert_close(shift, torch.full((2,), expected), rtol=0, atol=1e-4)
    assert bool((result.queries < 5000).all())


@pytest.mark.parametrize("height,width", [(256, 256), (13, 7), (3, 40)])
def test_the_grid_covers_every_value_once_and_is_nested(height: int, width: int) -> None:
    coarse = None
    for count in (1, 2, 4, 8, 16):
        cover = torch.zeros(3, height, width, dtype=torch.int64)
        label = torch.zeros_like(cover)
        for k, block in enumerate(_grid(height, width, count)):
            cover[block] += 1
            label[block] = k
        assert bool((cover == 1).all())
        if coarse is not None:  # values of one fine block share their coarse block
            pairs = torch.stack([label.flatten(), coarse.flatten()]).unique(dim=1)
            assert pairs.shape[1] == label.unique().numel()
        coarse = label
    channel, rows, columns = _grid(256, 256, 8)[0]
    assert (channel, rows, columns) == (0, slice(0, 32), slice(0, 32))  # the paper's blocks


def test_lazy_greedy_is_greedy_where_gains_only_shrink() -> None:
    """A concave function of a sum is submodular: lazy and plain greedy then move the same blocks."""
    gains = torch.tensor([5.0, 1.0, 3.0, -2.0, 2.0, 0.5]).view(1, 1, 6)
    blocks = [(0, slice(0, 1), slice(k, k + 1)) for k in range(6)]

    def value(z: torch.Tensor) -> torch.Tensor:
        total = (z * gains).sum(dim=(-3, -2, -1))
        return torch.sqrt(total.clamp_min(0) + 1) - 0.12 * z.sum(dim=(-3, -2, -1))

    z = torch.zeros(1, 1, 6)
    search = _greedy(z, blocks, torch.ones(1, 1, 6), value(z).item())
    asked, request = 0, next(search)
    try:
        while True:
            asked += len(request)
            request = search.send(value(request))
    except StopIteration as stop:
        reached, moved = stop.value
    plain = torch.zeros(1, 1, 6)
    while True:
        trials = [plain.clone() for _ in blocks]
        for trial, block in zip(trials, blocks, strict=True):
            trial[block] = 1
        best = max(trials, key=lambda trial: value(trial).item())
        if value(best) <= value(plain):
            break
        plain = best
    assert torch.equal(z, plain) and moved
    assert reached == pytest.approx(value(plain).item(), abs=1e-5)  # float32 differences, added up
    assert asked < 6 * (int(plain.sum()) + 1)  # the plain one asks for all blocks every time


@pytest.mark.parametrize("name,value", [("blocks", 0), ("group", 0)])
def test_impossible_parameters_are_refused(name: str, value: int) -> None:
    with pytest.raises(ContractError, match=f"{name} to be a whole number >= 1, got 0"):
        attacks.create("parsimonious", **{name: value})
