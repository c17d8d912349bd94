"""The balls: projection, steps and the 8-bit grid, against brute force and closed forms."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from iqa_robust.attacks import norms
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid, to_8bit_grid
from iqa_robust.models.randomness import ImageRNG


def _image(seed: int, on_grid: bool, n: int = 2, size: int = 5) -> torch.Tensor:
    x = torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(seed))
    return to_8bit_grid(x) if on_grid else x


def _far(seed: int, shape: torch.Size) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed + 1))


@given(
    seed=st.integers(0, 10_000),
    norm=st.sampled_from(["linf", "l2"]),
    eps_255=st.one_of(st.integers(0, 64), st.floats(0, 64)),
    on_grid=st.booleans(),
)
@settings(max_examples=200, deadline=None)
def test_snapped_images_keep_the_budget_on_the_grid(seed: int, norm: str, eps_255: float, on_grid: bool) -> None:
    x = _image(seed, on_grid)
    eps = eps_255 / 255
    try:
        snapped = norms.snap(x + _far(seed, x.shape), x, norm, eps)
    except ContractError as error:
        assert not on_grid and "reaches no point of the 8-bit grid" in str(error)
        return
    assert snapped.min() >= 0 and snapped.max() <= 1
    assert bool(on_8bit_grid(snapped).all())
    difference = (snapped - x).flatten(1).double()
    measured = difference.abs().amax(dim=1) if norm == "linf" else difference.norm(dim=1)
    assert measured.max() <= eps + 1e-6  # the stated slack for float32 rounding
    if norm == "linf" and on_grid:
        levels = torch.round(snapped * 255) - torch.round(x * 255)
        assert levels.abs().max() <= math.floor(eps_255 + 1e-4)  # whole gray levels, exactly


def test_an_image_between_grid_points_needs_a_budget_that_reaches_one() -> None:
    x = torch.full((1, 3, 2, 2), 100.5 / 255)
    with pytest.raises(ContractError, match=r"eps = 0.4/255 reaches no point of the 8-bit grid"):
        norms.snap(x, x, "linf", 0.4 / 255)
    assert bool(on_8bit_grid(norms.snap(x, x, "linf", 0.6 / 255)).all())
    with pytest.raises(ContractError, match="8-bit grid"):
        norms.snap(x, x, "l2", 0.4 / 255)


def test_the_nearest_grid_point_is_taken_for_linf() -> None:
    x = torch.full((1, 3, 1, 1), 100 / 255)
    z = x + torch.tensor([1.4, -1.6, 9.0]).view(1, 3, 1, 1) / 255
    levels = torch.round(norms.snap(z, x, "linf", 4 / 255) * 255).flatten()
    assert levels.tolist() == [101, 98, 104]


def test_a_small_dense_l2_perturbation_survives_rounding() -> None:
    """Its values are all below half a level, so plain rounding would return the clean image."""
    x = torch.full((1, 3, 32, 32), 0.5) * 2 * 128 / 255
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    eps = 6 / 255
    z = x + eps * direction / direction.norm()
    assert torch.equal(to_8bit_grid(z), to_8bit_grid(x))
    snapped = norms.snap(z, x, "l2", eps)
    moved = (snapped - to_8bit_grid(x)) * 255
    assert moved.norm().item() == pytest.approx(6, abs=0.05)  # 36 values by one level, as many as fit
    strongest = direction.flatten().abs().topk(36).indices
    assert set(moved.flatten().nonzero().flatten().tolist()) == set(strongest.tolist())
    assert bool((moved.flatten()[strongest] * direction.flatten()[strongest] > 0).all())


def test_l2_rounding_leaves_a_perturbation_of_whole_levels_alone() -> None:
    x = _image(3, on_grid=True)
    z = (x + torch.randint(-3, 4, x.shape, generator=torch.Generator().manual_seed(4)) / 255).clamp(0, 1)
    assert torch.equal(norms.snap(z, x, "l2", 10.0), to_8bit_grid(z))


@given(seed=st.integers(0, 1000), norm=st.sampled_from(["linf", "l2"]), eps=st.floats(0.001, 3))
@settings(max_examples=50, deadline=None)
def test_projection_is_inside_and_leaves_inner_points_alone(seed: int, norm: str, eps: float) -> None:
    x = _image(seed, on_grid=False)
    z = norms.project(x + _far(seed, x.shape), x, norm, eps)
    assert bool(norms.inside(z, x, norm, eps).all()) and z.min() >= 0 and z.max() <= 1
    torch.testing.assert_close(norms.project(z, x, norm, eps), z, rtol=0, atol=1e-6)  # float32 rounding


def test_distances_match_numpy() -> None:
    x, z = _image(0, on_grid=False), _image(1, on_grid=False)
    difference = (z - x).flatten(1).numpy().astype(np.float64)
    # float32 results of sums over 75 values
    np.testing.assert_allclose(norms.distance(z, x, "l2"), np.linalg.norm(difference, axis=1), rtol=1e-6)
    np.testing.assert_allclose(norms.distance(z, x, "linf"), np.abs(difference).max(axis=1), rtol=1e-6)
    with pytest.raises(ContractError, match="norm: expected one of linf, l2, psnr, ssim, l0, patch, got 'l1'"):
        norms.distance(z, x, "l1")


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e30])
def test_the_steepest_step_does_not_depend_on_the_scale_of_the_gradient(scale: float) -> None:
    gradient = _far(0, torch.Size((2, 3, 4, 4)))
    for norm in ("linf", "l2"):
        # scaling by a number that is no power of two rounds each value once
        torch.testing.assert_close(
            norms.steepest(gradient * scale, norm), norms.steepest(gradient, norm), rtol=1e-5, atol=1e-7
        )
    unit = norms.steepest(gradient, "l2").flatten(1).norm(dim=1)
    torch.testing.assert_close(unit, torch.ones(2), rtol=1e-6, atol=0)  # float32 rounding


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_slope_and_nan_slopes_make_no_step(norm: str) -> None:
    gradient = torch.zeros(2, 3, 2, 2)
    gradient[1] = torch.nan
    assert torch.equal(norms.steepest(gradient, norm), torch.zeros_like(gradient))


def test_gradients_for_momentum_have_unit_length_but_where_there_is_none() -> None:
    gradient = _far(0, torch.Size((4, 3, 4, 4)))
    gradient[1] = 0
    gradient[2, 0, 0, 0] = torch.nan
    gradient[3, 0, 0, 0] = torch.inf
    unit = norms.unit_l1(gradient).flatten(1)
    assert not unit[1:].any()
    expected = gradient[0].flatten().double() / np.abs(gradient[0].numpy().astype(np.float64)).sum()
    torch.testing.assert_close(unit[0].double(), expected, rtol=1e-6, atol=0)  # a float32 sum of 48 values
    assert torch.equal(norms.unit_l1(gradient[:1])[0], unit[0].view_as(gradient[0]))  # alone, nothing is replaced


@given(seed=st.integers(0, 1000), eps=st.floats(0, 2))
@settings(max_examples=50, deadline=None)
def test_the_box_holds_what_the_ball_and_the_range_hold(seed: int, eps: float) -> None:
    x = _image(seed, on_grid=False)
    z = x + _far(seed, x.shape)
    both = np.clip(np.clip(z.numpy(), x.numpy() - np.float32(eps), x.numpy() + np.float32(eps)), 0, 1)
    np.testing.assert_array_equal(torch.clamp(z, *norms.box(x, eps)).numpy(), both)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_dual_length_is_the_rise_per_unit_step(norm: str) -> None:
    gradient = _far(2, torch.Size((2, 3, 4, 4)))
    rise = (gradient * norms.steepest(gradient, norm)).flatten(1).sum(dim=1)
    torch.testing.assert_close(norms.dual_length(gradient, norm), rise, rtol=1e-5, atol=0)  # float32 sums


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball(norm: str) -> None:
    x = torch.full((200, 3, 4, 4), 0.5)
    start = norms.random_start(x, norm, 0.1, ImageRNG(range(200)))
    reached = norms.distance(start, x, norm)
    assert reached.max() <= 0.1 + 1e-6
    if norm == "linf":
        assert (start - x).abs().mean().item() == pytest.approx(0.05, rel=0.02)  # 9,600 uniform draws
    else:  # the radius of a uniform draw from a ball in d dimensions has mean d / (d + 1)
        assert reached.mean().item() == pytest.approx(0.1 * 48 / 49, rel=0.01)


@pytest.mark.parametrize("eps_255", [1.0, 2.0, 3.5, 6.0])
@pytest.mark.parametrize("slope", ["constant", "two sizes"])
def test_an_l2_perturbation_of_equal_values_uses_its_radius(eps_255: float, slope: str) -> None:
    """All values cross the rounding threshold together; as many as fit must move, the first ones of the largest."""
    x = torch.full((2, 3, 8, 8), 128 / 255)
    direction = torch.ones_like(x)
    if slope == "two sizes":
        direction[:, 2] = 2
    eps = eps_255 / 255
    snapped = norms.snap(x + eps * norms.steepest(direction, "l2"), x, "l2", eps)
    moved = torch.round((snapped - x) * 255).flatten(1)
    count = math.floor(eps_255**2)
    start = 128 if slope == "two sizes" else 0
    expected = torch.zeros(2, 192)
    expected[:, start : start + count] = 1
    assert torch.equal(moved, expected)


def test_distances_on_the_grid_are_whole_levels() -> None:
    levels = torch.arange(254).float()
    x, z = levels.view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255, (levels + 2).view(-1, 1, 1, 1).expand(-1, 3, 2, 2) / 255
    assert bool((norms.distance(z, x, "linf") > torch.tensor(2 / 255)).any())  # float32 exceeds the budget in print
    assert bool((norms.measure(z, x, "linf") * 255 == 2).all())
    # one float64 square root
    np.testing.assert_allclose(norms.measure(z, x, "l2") * 255, math.sqrt(12 * 4), rtol=1e-15)
    between = x[:1] + 0.3 / 255  # off the grid nothing is rounded
    np.testing.assert_allclose(norms.measure(between, x[:1], "linf") * 255, 0.3, rtol=1e-5)  # float32 pixels


def test_distances_of_a_record_are_those_of_whole_gray_levels() -> None:
    """Counted in integers by NumPy; one image is untouched, another changes in one channel by one level."""
    generator = np.random.default_rng(0)
    before = generator.integers(0, 256, (4, 3, 9, 12))
    after = np.clip(before + generator.integers(-6, 7, before.shape) * (generator.random(before.shape) < 0.1), 0, 255)
    after[0], after[1] = before[0], before[1]
    after[1, 2, 4, 7] = 255 - before[1, 2, 4, 7]
    z, x = (torch.from_numpy(levels).float() / 255 for levels in (after, before))
    found = norms.measures(z, x, ("linf", "l2", "psnr", "l0", "patch"))
    moved = np.abs(after - before)
    changed = moved.any(axis=1)
    sides = []
    for mask in changed:
        rows, columns = np.nonzero(mask)
        sides.append(max(np.ptp(rows), np.ptp(columns)) + 1 if len(rows) else 0)
    lengths = np.sqrt((moved**2).sum(axis=(1, 2, 3))) / 255
    wanted = {
        "linf": moved.max(axis=(1, 2, 3)) / 255,
        "l2": lengths,
        "psnr": lengths / math.sqrt(3 * 9 * 12),
        "l0": changed.mean(axis=(1, 2)),
        "patch": np.square(sides) / (9 * 12),
    }
    assert found.keys() == wanted.keys()
    for norm, values in wanted.items():
        assert found[norm].dtype == torch.float64
        np.testing.assert_allclose(found[norm].numpy(), values, rtol=1e-12, err_msg=norm)
        assert torch.equal(found[norm], norms.measure(z, x, norm))
