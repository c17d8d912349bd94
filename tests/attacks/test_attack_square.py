"""The Square attack: its schedule, its proposals and its budget."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.blackbox import search
from iqa_robust.attacks.blackbox.square import Square
from iqa_robust.attacks.blackbox.squares import Squares, paint_each, paint_together
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.records import STANDARD_QUERIES, Budget


class Recorder(IQAModel):
    """Keeps every image it scores."""

    def __init__(self, inner: IQAModel) -> None:
        super().__init__()
        self.inner, self.info = inner, inner.info
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(x.clone())
        return self.inner(x)


def test_the_schedule_is_the_papers_at_ten_thousand_queries() -> None:
    """Section 5 of the paper: the area is halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000."""
    attack = Square(p_init=0.64)
    sides = [attack.side(i, 10_000, 100, 100) for i in (0, 10, 11, 50, 51, 201, 501, 1001, 2001, 4001, 6001, 8001)]
    areas = [0.64 / 2**k for k in (0, 0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9)]
    assert sides == [round((area * 10_000) ** 0.5) for area in areas]


def test_the_schedule_is_stretched_to_the_budget() -> None:
    attack = Square()
    long = [attack.side(i * 25, 10_000, 64, 64) for i in range(400)]
    assert [attack.side(i, 400, 64, 64) for i in range(400)] == long
    assert [attack.side(i, 100, 64, 64) for i in range(100)] == long[:100]  # a short search keeps large squares
    assert attack.side(9_999, 10_000, 8, 8) == 1
    assert Square(p_init=1).side(0, 10, 4, 64) == 4  # never larger than the image


def test_first_stripes_then_one_square_at_a_time_over_the_whole_image(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    x = images(1, low=20, high=235)
    model = Recorder(linear)
    attack = Square(p_init=0.05)
    attack(model, x, goal="up", budget=Budget(eps_255=4, queries=400))
    queried = model.seen[1:401]  # the clean score comes first, the judge's last
    stripes = torch.round((queried[0] - x) * 255)
    assert set(stripes.unique().tolist()) == {-4.0, 4.0}
    assert bool((stripes == stripes[:, :, :1]).all())  # constant along every column
    best, value = queried[0], linear(queried[0])
    touched = torch.zeros(16, 16, dtype=torch.bool)
    for i, trial in enumerate(queried[1:]):
        changed = (trial != best).any(dim=1)[0]
        assert bool(changed.any())  # no query is wasted
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        side = attack.side(i, 399, 16, 16)
        assert rows.max() - rows.min() < side and columns.max() - columns.min() < side
        assert set(torch.round((trial - x) * 255).unique().tolist()) <= {-4.0, 4.0}
        touched |= changed
        if linear(trial) > value:
            best, value = trial, linear(trial)
    assert bool(touched[0].any() and touched[-1].any() and touched[:, 0].any() and touched[:, -1].any())


@pytest.mark.parametrize("queries", [1, 2, 37])
def test_exactly_the_budget_is_spent(images: Callable[..., torch.Tensor], linear: IQAModel, queries: int) -> None:
    model = Recorder(linear)
    result = Square()(model, images(), goal="up", budget=Budget(queries=queries))
    assert result.queries.tolist() == [queries] * 4
    assert result.gradients.tolist() == [0] * 4
    assert len(model.seen) == 1 + queries + 1  # clean, the attack, the judge


def test_without_a_limit_the_standard_number_is_spent(
    images: Callable[..., torch.Tensor], linear: IQAModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert search.STANDARD_QUERIES == STANDARD_QUERIES == 10_000
    assert Square().cost(Budget(), "up") == (STANDARD_QUERIES, 0)
    monkeypatch.setattr(search, "STANDARD_QUERIES", 300)  # seconds instead of minutes
    assert Square()(linear, images(1), goal="up", budget=Budget()).queries.tolist() == [300]


def test_more_queries_reach_more(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    shifts = []
    for queries in (10, 100, 1000):
        result = Square()(convolutional, images(), goal="away", budget=Budget(eps_255=8, queries=queries))
        shifts.append((result.score_adv - result.score_clean).abs().mean().item())
    assert shifts[0] < shifts[1] < shifts[2]


@pytest.mark.parametrize("p_init", [0, -1, 1.5])
def test_an_impossible_share_is_refused(p_init: float) -> None:
    with pytest.raises(ContractError, match=r"Square: expected p_init to be a finite number > 0 and <= 1, got"):
        attacks.create("square", p_init=p_init)


@pytest.mark.parametrize("side", [1, 4, 9])
def test_squares_are_painted_alike_one_by_one_and_together(side: int) -> None:
    """Three squares hold their code already, so that others take its place; three hold gray. One image is black."""
    generator = torch.Generator().manual_seed(side)
    x = torch.rand(8, 3, 9, 11, generator=generator)
    x[0] = 0
    low, high = (x - 0.1).clamp(0, 1), (x + 0.1).clamp(0, 1)
    index = torch.tensor([0, 2, 3, 5, 6, 7])
    code, other = torch.tensor([1, 2, 3, 5, 6, 7]), torch.tensor([7, 1, 4, 2, 3, 5])
    top, left = (torch.randint(0, room - side + 1, (6,), generator=generator) for room in (9, 11))
    bits = torch.stack([code & 1, code & 2, code & 4], dim=1).view(6, 3, 1, 1) > 0
    before = torch.where(bits, high[index], low[index])
    before[3:] = 0.5
    wanted = before.clone()
    for k in range(6):
        rows, columns = slice(int(top[k]), int(top[k]) + side), slice(int(left[k]), int(left[k]) + side)
        painted = int(code[k] ^ other[k]) if k < 3 else int(code[k])
        for c in range(3):
            end = high if painted & 2**c else low
            wanted[k, c, rows, columns] = end[index[k], c, rows, columns]
    for paint in (paint_each, paint_together):
        trial = before.clone()
        paint(trial, low, high, Squares(index, top, left, code, other, side))
        assert torch.equal(trial, wanted), paint.__name__
