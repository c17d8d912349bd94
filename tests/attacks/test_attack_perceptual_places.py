"""Attacks bounded in where they change the image: a few pixels, or one square."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.perceptual.ti_patch import cut, paste, promising
from iqa_robust.attacks.sparse import changed
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget
from iqa_robust.testing.pictures import pictures


def _rises(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """(N, H, W): by how much a linear score rises if a pixel goes to its best color."""
    return (weights * ((weights > 0).float() - x)).sum(dim=1)


@pytest.mark.parametrize("pixels", [1, 5, 40])
@pytest.mark.parametrize("goal", ["up", "down"])
def test_the_best_pixels_of_a_linear_model_are_found(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, pixels: int, goal: str
) -> None:
    x = images(3)
    rises = _rises(x, weights if goal == "up" else -weights)
    best = rises.flatten(1).sort(dim=1, descending=True).values[:, :pixels].sum(dim=1)
    result = attacks.create("sparse")(linear, x, goal=goal, budget=Budget.at("l0", pixels / 256, steps=20))
    reached = (result.score_adv - result.score_clean) * (1 if goal == "up" else -1)
    assert changed(result.images, x).flatten(1).sum(dim=1).max() <= pixels
    torch.testing.assert_close(reached, best, rtol=1e-4, atol=1e-3)  # float32 sums


def _pgd0(model: IQAModel, x: torch.Tensor, pixels: int, steps: int, length: float) -> torch.Tensor:
    """Shifts reached by the authors' PGD0 in a few lines: constant steps of unit L1 gradients, random start."""
    z = torch.rand(x.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        clean = model(x)
    best = torch.zeros(len(x))
    for _ in range(steps):
        change = z - x
        room = change.clamp(-x, 1 - x)
        energy = (change.square() - (change - room).square()).sum(dim=1).flatten(1)
        kept = torch.zeros_like(energy).scatter(1, energy.argsort(dim=1, descending=True)[:, :pixels], 1.0)
        z = (x + room * kept.view(len(x), 1, *x.shape[2:])).requires_grad_(True)
        value = model(z)
        slope = torch.autograd.grad(value.sum(), z)[0]
        best = torch.maximum(best, value.detach() - clean)
        z = z.detach() + length * slope / slope.abs().sum(dim=(1, 2, 3), keepdim=True)
    return best


@pytest.mark.parametrize("pixels", [3, 12])
def test_sparse_is_no_weaker_than_pgd0(convolutional: IQAModel, pixels: int) -> None:
    x, steps = pictures(6, 24, 24), 20
    result = attacks.create("sparse")(convolutional, x, goal="up", budget=Budget.at("l0", pixels / 576, steps=steps))
    ours = (result.score_adv - result.score_clean).mean()
    # The authors' length for 32 x 32 images, and shorter and longer ones.
    theirs = max(_pgd0(convolutional, x, pixels, steps, length).mean() for length in (30.0, 120_000 / 255, 3000.0))
    assert ours >= 0.98 * theirs > 0  # 2 % is the project's own requirement


def test_windows_are_the_most_promising_and_do_not_overlap(
    images: Callable[..., torch.Tensor], weights: torch.Tensor
) -> None:
    x, side = images(3), 5
    slope = weights.expand_as(x)
    corners = promising(slope, x, side, 3)
    sums = _rises(x, weights).unfold(1, side, 1).unfold(2, side, 1).sum(dim=(3, 4))
    for i in range(3):
        taken: list[tuple[int, int]] = []
        order = sums[i].flatten().argsort(descending=True).tolist()
        for place in order:
            row, column = place // sums.shape[2], place % sums.shape[2]
            if all(max(abs(row - a), abs(column - b)) >= side for a, b in taken):
                taken.append((row, column))
        assert [(int(top[i]), int(left[i])) for top, left in corners] == taken[:3]


def test_cut_and_paste_are_inverse(images: Callable[..., torch.Tensor]) -> None:
    x, other = images(2), images(2, seed=1)
    top, left = torch.tensor([0, 11]), torch.tensor([7, 11])
    patch = cut(x, top, left, 5)
    assert torch.equal(patch[1], x[1, :, 11:16, 11:16]) and torch.equal(paste(x, patch, top, left), x)
    pasted = paste(other, patch, top, left)
    assert torch.equal(pasted[0, :, 0:5, 7:12], x[0, :, 0:5, 7:12])
    differ = changed(pasted, other)
    assert not differ[0, 5:].any() and not differ[0, :, :7].any() and not differ[0, :, 12:].any()


@pytest.mark.parametrize("side", [1, 4, 16])
def test_the_best_patch_of_a_linear_model_is_found(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, side: int
) -> None:
    """The first window is the best one, and its colors go to the corners of [0, 1]."""
    x = images(3)
    best = _rises(x, weights).unfold(1, side, 1).unfold(2, side, 1).sum(dim=(3, 4)).flatten(1).amax(dim=1)
    result = attacks.create("ti-patch")(linear, x, goal="up", budget=Budget.at("patch", side**2 / 256, steps=10))
    torch.testing.assert_close(result.score_adv - result.score_clean, best, rtol=1e-4, atol=1e-3)  # float32 sums


@pytest.mark.parametrize("side", [4, 8])
def test_ti_patch_beats_patches_at_random_places(convolutional: IQAModel, side: int) -> None:
    """Against plain Adam on a patch at a random place, as often and for as many steps."""
    x, steps = pictures(6, 24, 24), 15
    result = attacks.create("ti-patch")(
        convolutional, x, goal="up", budget=Budget.at("patch", side**2 / 576, steps=steps)
    )
    ours = (result.score_adv - result.score_clean).mean()
    generator, best = torch.Generator().manual_seed(0), torch.zeros(6)
    with torch.no_grad():
        clean = convolutional(x)
    for _ in range(2):
        top, left = (torch.randint(0, 24 - side + 1, (6,), generator=generator) for _ in range(2))
        mask = paste(torch.zeros_like(x), torch.ones(6, 3, side, side), top, left)
        z = x.clone().requires_grad_(True)
        optimizer = torch.optim.Adam([z], lr=0.1, maximize=True)
        for _ in range(steps):
            optimizer.zero_grad()
            convolutional(z).sum().backward()
            z.grad *= mask
            optimizer.step()
            z.data.clamp_(0, 1)
        with torch.no_grad():
            best = torch.maximum(best, convolutional(z) - clean)
    assert ours >= 0.98 * best.mean() > 0


def test_a_patch_seen_under_transformations(convolutional: IQAModel) -> None:
    """Every step sees another draw, and the result is still one square that moves the score."""
    x, budget = pictures(3, 24, 24), Budget.at("patch", 36 / 576, steps=8)
    attack = attacks.create("ti-patch", brightness=0.3, shift=2)
    first, second = (attack(convolutional, x, goal="up", budget=budget, seed=seed) for seed in (0, 1))
    assert not torch.equal(first.images, second.images)
    assert torch.equal(first.images, attack(convolutional, x, goal="up", budget=budget, seed=0).images)
    assert bool((first.score_adv > first.score_clean).all())


@pytest.mark.parametrize("name,norm", [("sparse", "l0"), ("ti-patch", "patch")])
def test_less_than_a_pixel_changes_nothing(
    images: Callable[..., torch.Tensor], linear: IQAModel, name: str, norm: str
) -> None:
    x = images()
    for share in (0.0, 0.9 / 256):
        result = attacks.create(name)(linear, x, goal="away", budget=Budget.at(norm, share, steps=3))
        assert torch.equal(result.images, x) and torch.equal(result.score_adv, result.score_clean)


@pytest.mark.parametrize("name,norm", [("sparse", "l0"), ("ti-patch", "patch")])
@pytest.mark.parametrize("goal", ["up", "away"])
@pytest.mark.parametrize("steps", [1, 2, 7])
def test_the_cost_is_announced(
    images: Callable[..., torch.Tensor], linear: IQAModel, name: str, norm: str, goal: str, steps: int
) -> None:
    attack, budget = attacks.create(name), Budget.at(norm, 0.05, steps=steps)
    result = attack(linear, images(), goal=goal, budget=budget)
    assert (int(result.queries[0]), int(result.gradients[0])) == attack.cost(budget, goal)


@pytest.mark.parametrize(
    "name,params",
    [
        ("sparse", {"search": 0}),
        ("ti-patch", {"places": 0}),
        ("ti-patch", {"brightness": 2}),
        ("ti-patch", {"shift": 1.5}),
    ],
)
def test_wrong_parameters_are_refused(name: str, params: dict[str, Any]) -> None:
    with pytest.raises(ContractError, match=f"expected {next(iter(params))} to be a"):
        attacks.create(name, **params)
