"""StAdv and color: attacks through smooth fields."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from skimage import color

from iqa_robust import attacks
from iqa_robust.attacks.norms import inside
from iqa_robust.attacks.perceptual.color import recolor
from iqa_robust.attacks.perceptual.flow import roughness, shorten, warp
from iqa_robust.attacks.perceptual.lab import to_lab, to_rgb
from iqa_robust.attacks.perceptual.matching import largest_scale
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget
from iqa_robust.testing.pictures import pictures


def _flow(n: int, height: int, width: int, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(n, 2, height, width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("size", [(16, 16), (9, 14), (1, 5), (5, 1)])
def test_a_zero_flow_is_exactly_the_identity(size: tuple[int, int]) -> None:
    x = torch.rand(2, 3, *size)
    assert torch.equal(warp(x, torch.zeros(2, 2, *size)), x)


def test_the_warp_is_bilinear_interpolation(images: Callable[..., torch.Tensor]) -> None:
    x, flow = images(2, 12), _flow(2, 12, 12)
    moved = warp(x, flow)
    grid = np.mgrid[:12, :12]
    for image, displacement, result in zip(x, flow, moved, strict=True):
        for band in range(3):
            expected = map_coordinates(image[band].numpy(), grid + displacement.numpy(), order=1, mode="nearest")
            np.testing.assert_allclose(result[band].numpy(), expected, atol=1e-5)  # float32 coordinates of 11 pixels


def test_whole_displacements_shift_the_image(images: Callable[..., torch.Tensor]) -> None:
    x = images(1, 10)
    flow = torch.zeros(1, 2, 10, 10)
    flow[:, 0], flow[:, 1] = 2, -1
    assert torch.equal(warp(x, flow)[..., :8, 1:], x[..., 2:, :-1])


def test_the_gradient_of_a_warp_is_its_derivative(images: Callable[..., torch.Tensor]) -> None:
    x, flow = images(1, 6).double(), _flow(1, 6, 6, 0.2).double().requires_grad_(True)
    assert torch.autograd.gradcheck(lambda f: warp(x, f), flow, eps=1e-7)


def test_roughness_is_the_sum_over_neighbors() -> None:
    flow = _flow(2, 4, 5)
    for field, found in zip(flow, roughness(flow), strict=True):
        total = 0.0
        for i in range(4):
            for j in range(5):
                for k, m in ((i - 1, j), (i + 1, j), (i, j - 1), (i, j + 1)):
                    if 0 <= k < 4 and 0 <= m < 5:
                        total += (field[:, i, j] - field[:, k, m]).square().sum().item()
        assert found.item() == pytest.approx(total / 20, rel=1e-5)  # float32 sums


def test_shortened_displacements_keep_every_value_within_eps(images: Callable[..., torch.Tensor]) -> None:
    x, flow = images(2, 12), _flow(2, 12, 12)
    short = shorten(flow, x, 0.02)
    assert (warp(x, short) - x).abs().max() <= 0.02 and bool(short.any())
    factor = short / flow
    torch.testing.assert_close(factor[:, 0], factor[:, 1], rtol=0, atol=1e-5)  # along the displacement
    assert factor.min() >= 0 and factor.max() <= 1
    assert torch.equal(shorten(flow, x, 1.0), flow)


@pytest.mark.parametrize("budget", [Budget(eps_255=8, steps=8), Budget.at("psnr", 35, steps=8)])
def test_stadv_beats_a_random_warp_and_the_one_gradient_warp(convolutional: IQAModel, budget: Budget) -> None:
    """The second is the released attack's first step (along the gradient of the flow), scaled up to the budget."""
    x = pictures(4, 24, 24)
    result = attacks.create("stadv")(convolutional, x, goal="up", budget=budget)
    ours = (result.score_adv - result.score_clean).mean().item()
    flow = torch.zeros(4, 2, 24, 24, requires_grad=True)
    gradient = torch.autograd.grad(convolutional(warp(x, flow)).sum(), flow)[0]
    for field in (_flow(4, 24, 24), gradient / gradient.abs().amax(dim=(1, 2, 3), keepdim=True)):

        def make(scale: torch.Tensor, field: torch.Tensor = field) -> torch.Tensor:
            return warp(x, scale.view(-1, 1, 1, 1) * field)

        moved = make(largest_scale(make, x, budget.norm, budget.eps, torch.full((4,), 8.0)))
        assert bool(inside(moved, x, budget.norm, budget.eps).all())
        with torch.no_grad():
            assert ours > 1.1 * (convolutional(moved) - convolutional(x)).mean().item()


def test_smoothness_smooths(convolutional: IQAModel) -> None:
    """Judged by what a warp can do: of two warps as visible, the smoother one is weaker."""
    x = pictures(3, 24, 24)
    shifts = []
    for smoothness in (0.0, 100.0):
        attack = attacks.create("stadv", smoothness=smoothness)
        result = attack(convolutional, x, goal="up", budget=Budget.at("psnr", 35, steps=8))
        shifts.append((result.score_adv - result.score_clean).mean().item())
    assert 0 < shifts[1] < shifts[0]


def test_lab_agrees_with_scikit_image() -> None:
    x = torch.rand(2, 3, 20, 20, generator=torch.Generator().manual_seed(0))
    x[0, :, 0, :2] = torch.tensor([[0.0, 1.0]] * 3)  # black and white
    x[0, :, 1] = x[0, :, 1] / 25  # the straight part of the curve
    lab = to_lab(x)
    expected = np.stack([color.rgb2lab(image.permute(1, 2, 0).double().numpy()) for image in x])
    # scikit-image computes in float64; a, b are differences of float32 values scaled by up to 500
    np.testing.assert_allclose(lab.permute(0, 2, 3, 1).numpy(), expected, atol=2e-3)
    back = to_rgb(torch.from_numpy(expected).permute(0, 3, 1, 2))
    theirs = np.stack([color.lab2rgb(image) for image in expected])
    # at the joint of the two curves the standard's constants leave a gap of 1e-5
    np.testing.assert_allclose(back.permute(0, 2, 3, 1).numpy(), theirs, atol=2e-5)
    torch.testing.assert_close(to_rgb(lab), x, rtol=0, atol=3e-5)


def test_gradients_flow_through_lab() -> None:
    x = torch.rand(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    assert torch.autograd.gradcheck(to_lab, x)
    lab = to_lab(x).detach().requires_grad_(True)
    assert torch.autograd.gradcheck(to_rgb, lab)
    black = torch.zeros(1, 3, 2, 2, requires_grad=True)
    to_rgb(to_lab(black)).sum().backward()
    assert bool(torch.isfinite(black.grad).all())


def test_no_hint_is_exactly_the_identity() -> None:
    x = pictures(2, 20, 30)
    assert torch.equal(recolor(x, to_lab(x), torch.zeros(2, 2, 4, 4)), x)


def test_hints_change_the_color_and_leave_the_lightness() -> None:
    x = 0.3 + 0.4 * pictures(2, 24, 24)  # away from the edge of the colors a screen can show
    hints = torch.full((2, 2, 1, 1), 6.0)
    hints[:, 1] = -4
    change = to_lab(recolor(x, to_lab(x), hints)) - to_lab(x)
    assert change[:, 0].abs().max() < 0.01  # of 100; float32 there and back
    torch.testing.assert_close(change[:, 1], torch.full((2, 24, 24), 6.0), rtol=0, atol=0.02)
    torch.testing.assert_close(change[:, 2], torch.full((2, 24, 24), -4.0), rtol=0, atol=0.02)


def test_color_attacks_by_color_alone(convolutional: IQAModel) -> None:
    """It uses the budget up, moves the score further than random hints, and hardly touches the lightness."""
    x = 0.2 + 0.6 * pictures(4, 24, 24)
    x = (x * 255).round() / 255
    budget = Budget.at("psnr", 30, steps=8)
    result = attacks.create("color", hints=4)(convolutional, x, goal="up", budget=budget)
    ours = (result.score_adv - result.score_clean).mean().item()
    change = to_lab(result.images) - to_lab(x)
    assert change[:, 0].abs().mean() < 0.1 * change[:, 1:].abs().mean()  # rounding to 8 bits moves L by about 0.1
    assert (result.images - x).square().mean(dim=(1, 2, 3)).sqrt().min() > 0.98 * budget.eps
    for seed in range(3):
        hints = torch.randn(4, 2, 4, 4, generator=torch.Generator().manual_seed(seed)).sign()

        def make(scale: torch.Tensor, hints: torch.Tensor = hints) -> torch.Tensor:
            return recolor(x, to_lab(x), scale.view(-1, 1, 1, 1) * hints)

        drawn = make(largest_scale(make, x, budget.norm, budget.eps, torch.full((4,), 128.0)))
        with torch.no_grad():
            assert ours > 1.5 * (convolutional(drawn) - convolutional(x)).abs().mean().item()


@pytest.mark.parametrize("name", ["stadv", "color"])
def test_away_takes_the_better_direction(convolutional: IQAModel, name: str) -> None:
    """Up to the rounding to 8 bits, before which the best image is chosen."""
    x, attack = pictures(3, 24, 24), attacks.create(name)
    budget = Budget.at("psnr", 38, steps=4)
    shift = {goal: attack(convolutional, x, goal=goal, budget=budget) for goal in ("up", "down", "away")}
    moved = {goal: (result.score_adv - result.score_clean).abs() for goal, result in shift.items()}
    torch.testing.assert_close(moved["away"], torch.maximum(moved["up"], moved["down"]), rtol=0.02, atol=0)


@pytest.mark.parametrize("name,params", [("stadv", {"smoothness": -1}), ("color", {"hints": 0})])
def test_wrong_parameters_are_refused(name: str, params: dict[str, float]) -> None:
    with pytest.raises(ContractError, match=f"expected {next(iter(params))} to be a"):
        attacks.create(name, **params)
