"""Random searches: Square in L2, Ran's squares, Patch-RS; each against its optimum on models where that is known."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from iqa_robust import attacks
from iqa_robust.attacks.blackbox.patch_rs import PatchRS
from iqa_robust.attacks.blackbox.ran_bidirectional import RanBidirectional
from iqa_robust.attacks.blackbox.square import Square, _bump
from iqa_robust.attacks.blackbox.squares import HALVINGS, place, share_at, side_at, window
from iqa_robust.attacks.norms import measure
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget


class Recorder(IQAModel):
    """Keeps every image it scores."""

    def __init__(self, inner: IQAModel) -> None:
        super().__init__()
        self.inner, self.info = inner, inner.info
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.seen.append(x.clone())
        return self.inner(x)


@pytest.mark.parametrize("name", ["square", "ran-bidirectional"])
@pytest.mark.parametrize("goal", ["up", "down"])
def test_a_tiny_linear_model_is_solved(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], name: str, goal: str
) -> None:
    """Single pixels come last, and a pixel has eight corners: with enough of them the optimum is found.

    It is eps times the L1 length of the weights, as the images stay clear of black and white.
    """
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(5))
    x = images(3, 4, low=30, high=220)
    result = attacks.create(name)(make_linear(w), x, goal=goal, budget=Budget(eps_255=8, queries=1500))
    expected = 8 / 255 * w.abs().sum().item()
    shift = (result.score_adv - result.score_clean) * (1 if goal == "up" else -1)
    assert bool((shift <= expected + 1e-4).all())  # float32 sums of 48 products around 50
    # Ran's two squares are kept or dropped together, so the last single pixels are found late.
    assert bool((shift >= (expected - 1e-4 if name == "square" else 0.98 * expected)).all())


def test_the_schedule_against_the_papers_table() -> None:
    marks = (0, *HALVINGS, 10_000)
    for k, (start, end) in enumerate(itertools.pairwise(marks)):
        assert share_at(0.8, start + 1, 10_000) == share_at(0.8, end, 10_000) == 0.8 / 2**k
    assert side_at(0.05, 0, 10, 224, 224) == 50  # round(sqrt(0.05) 224)


@given(
    side=st.integers(1, 7),
    height=st.integers(7, 12),
    width=st.integers(7, 12),
    u=st.floats(0, 1, exclude_max=True),
    v=st.floats(0, 1, exclude_max=True),
)
@settings(max_examples=60, deadline=None)
def test_a_window_is_a_square_inside_the_image(side: int, height: int, width: int, u: float, v: float) -> None:
    top, left = place(torch.tensor([[u, v]], dtype=torch.float64), side, height, width)
    mask = window(top, left, side, height, width)[0, 0]
    assert mask.sum() == side * side
    expected = torch.zeros(height, width, dtype=torch.bool)
    expected[top.item() : top.item() + side, left.item() : left.item() + side] = True
    assert torch.equal(mask, expected)


def test_ran_changes_a_few_squares_at_a_time(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(1, low=20, high=235)
    model = Recorder(linear)
    RanBidirectional(n_squares=3, p_init=0.02)(model, x, goal="up", budget=Budget(eps_255=4, queries=60))
    queried = model.seen[1:61]
    best, value = queried[0], linear(queried[0])
    most = 0
    for trial in queried[1:]:
        assert set(torch.round((trial - x) * 255).unique().tolist()) == {-4.0, 4.0}
        changed = int((trial != best).any(dim=1).sum())
        assert 0 < changed <= 3 * 2 * 2  # three squares of at most two pixels a side
        most = max(most, changed)
        if linear(trial) > value:
            best, value = trial, linear(trial)
    assert most > 2 * 2


def test_the_bump_is_the_papers() -> None:
    """Equation 2 by its sums: two halves of opposite sign, each nested rectangles that add 1 / k^2."""
    for side in (3, 5, 9, 16):
        expected = torch.zeros(side, side, dtype=torch.float64)
        for start, height, sign in ((0, side // 2, 1.0), (side // 2, side - side // 2, -1.0)):
            half = torch.zeros(height, side, dtype=torch.float64)
            for k in range(max(height // 2, side // 2) + 1):
                top, left = height // 2 - k, side // 2 - k
                half[max(top, 0) : top + 2 * k + 1, max(left, 0) : left + 2 * k + 1] += 1 / (k + 1) ** 2
            expected[start : start + height] = sign * half / half.norm()
        expected /= expected.norm()
        # float32 arithmetic
        torch.testing.assert_close(_bump(side, torch.device("cpu")).double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("norm,eps_255", [("l2", 300.0), ("psnr", 300 / 768**0.5)])
def test_square_l2_spends_the_whole_length_and_climbs(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], norm: str, eps_255: float
) -> None:
    """Against the closed form eps |w|: slowly changing weights are climbed at least a third of the way."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    w = torch.stack([torch.sin(0.5 * rows + channel) * torch.cos(0.4 * columns) for channel in range(3)])
    x = images(3, low=90, high=165)
    model = Recorder(make_linear(w))
    budget = Budget(norm=norm, eps_255=eps_255, queries=600)
    result = Square()(model, x, goal="up", budget=budget)
    for trial in model.seen[1:601]:
        # The length is eps up to float32 rounding: no pixel is near black or white.
        torch.testing.assert_close(measure(trial, x, "l2").float(), torch.full((3,), 300 / 255), rtol=1e-5, atol=0)
    optimum = 300 / 255 * w.norm().item()
    shift = result.score_adv - result.score_clean
    assert bool((shift > optimum / 3).all()) and bool((shift <= 1.0001 * optimum).all())


@pytest.mark.parametrize("size", [(3, 3), (2, 7), (1, 1), (5, 12)])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_square_of_very_small_images(make_linear: type[IQAModel], size: tuple[int, int], norm: str) -> None:
    x = torch.full((2, 3, *size), 128 / 255)
    budget = Budget(norm=norm, eps_255=20, queries=40)
    model = make_linear(torch.ones(3, *size))
    result = Square()(model, x, goal="up", budget=budget)
    assert bool((result.score_adv >= result.score_clean).all())
    if norm == "linf" or min(size) > 1:  # a bump of a single pixel is still a bump
        assert bool((result.score_adv > result.score_clean).all())


@pytest.mark.parametrize("goal", ["up", "down"])
def test_patch_rs_finds_the_best_patch(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], goal: str
) -> None:
    """By brute force over all places: the weights have one peak, so no local optimum is in the way.

    The images are gray, so the best colors are white upward and black downward.
    """
    rows, columns = torch.meshgrid(torch.arange(10.0), torch.arange(8.0), indexing="ij")
    w = torch.exp(-((rows - 6) ** 2 + (columns - 2) ** 2) / 20).expand(3, -1, -1).contiguous()
    x = torch.full((3, 3, 10, 8), 128 / 255)
    x[:, :, 0, 0] += torch.tensor([0, 1, 2]).view(3, 1) / 255  # images that differ draw differently
    result = attacks.create("patch-rs")(make_linear(w), x, goal=goal, budget=Budget.at("patch", 9.5 / 80, queries=600))
    change = 127 / 255 if goal == "up" else 128 / 255
    sums = [w[:, i : i + 3, j : j + 3].sum().item() for i in range(8) for j in range(6)]
    shift = (result.score_adv - result.score_clean).abs()
    # float32 sums of 240 products around 50
    torch.testing.assert_close(shift, torch.full((3,), change * max(sums)), rtol=0, atol=1e-4)


def test_patch_rs_moves_and_recolors_one_patch(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = torch.full((1, 3, 16, 12), 128 / 255)
    model = Recorder(linear_of(16, 12))
    PatchRS(move_period=4)(model, x, goal="up", budget=Budget.at("patch", 20 / 192, queries=80))
    corners = []
    for trial in model.seen[1:81]:
        changed = (trial != x).any(dim=1)[0]
        rows, columns = changed.any(dim=1).nonzero(), changed.any(dim=0).nonzero()
        assert len(rows) == len(columns) == 4 and int(changed.sum()) == 16
        assert set(trial[:, :, changed].unique().tolist()) <= {0.0, 1.0}
        corners.append((int(rows[0]), int(columns[0])))
    assert len(set(corners)) > 5
    # Between moves the patch stays where it was found best.
    assert any(corners[k] == corners[k + 1] for k in range(79))


def linear_of(height: int, width: int) -> IQAModel:
    from iqa_robust.models.base import ModelInfo, wrap

    w = torch.randn(3, height, width, generator=torch.Generator().manual_seed(9))
    return wrap(lambda x: (x * w).flatten(1).sum(dim=1), ModelInfo(score_range=(-100, 100)))


@pytest.mark.parametrize("share", [0.0, 0.5 / 64, 1.0])
def test_patches_of_no_pixel_and_of_the_whole_image(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], share: float
) -> None:
    w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(2))
    x = images(2, 8)
    result = attacks.create("patch-rs")(make_linear(w), x, goal="up", budget=Budget.at("patch", share, queries=30))
    if share < 1:
        assert torch.equal(result.images, x) and result.queries.tolist() == [0, 0]
    else:
        assert result.queries.tolist() == [30, 30]


@pytest.mark.parametrize(
    "name,params,message",
    [
        ("ran-bidirectional", {"n_squares": 0}, "n_squares to be a whole number >= 1"),
        ("ran-bidirectional", {"p_init": 0}, "p_init to be a finite number > 0 and <= 1"),
        ("patch-rs", {"p_init": 2}, "p_init to be a finite number > 0 and <= 1"),
        ("patch-rs", {"move_period": 1}, "move_period to be a whole number >= 2"),
    ],
)
def test_impossible_parameters_are_refused(name: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        attacks.create(name, **params)
