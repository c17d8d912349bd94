"""The budgets of equal visibility and of few pixels, against scikit-image, closed forms and brute force."""

from __future__ import annotations

import math

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from iqa_robust.attacks import norms
from iqa_robust.attacks.similarity import ssim
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid, to_8bit_grid
from iqa_robust.measures import perturbation
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

NEW = ("psnr", "ssim", "l0", "patch")


def _image(seed: int, height: int = 13, width: int = 16, n: int = 2) -> torch.Tensor:
    return to_8bit_grid(torch.rand(n, 3, height, width, generator=torch.Generator().manual_seed(seed)))


def _noise(seed: int, x: torch.Tensor) -> torch.Tensor:
    return torch.randn(x.shape, generator=torch.Generator().manual_seed(seed + 1))


def test_ssim_is_the_one_of_the_records() -> None:
    x = _image(0, 24, 31)
    z = (x + 0.1 * _noise(0, x)).clamp(0, 1)
    expected = perturbation.ssim(x.numpy(), z.numpy())  # scikit-image, in float64
    np.testing.assert_allclose(ssim(z, x).numpy(), expected, atol=1e-5)  # float32 sums
    np.testing.assert_allclose(ssim(z.double(), x.double()).numpy(), expected, atol=1e-9)


def test_psnr_budget_is_the_psnr_of_the_records() -> None:
    x = to_8bit_grid(0.25 + _image(1) / 2)  # away from black and white, where clamping shortens a perturbation
    budget = Budget.at("psnr", 30)
    z = norms.snap(x + _noise(1, x), x, "psnr", budget.eps)
    # 0.02 dB: the largest rounding that fits leaves at most one of 624 values one level short.
    np.testing.assert_allclose(perturbation.psnr(x.numpy(), z.numpy()), 30, atol=0.02)


@given(seed=st.integers(0, 10_000), norm=st.sampled_from(NEW), eps_255=st.floats(0, 120))
@settings(max_examples=120, deadline=None)
def test_snapped_images_keep_the_budget_on_the_grid(seed: int, norm: str, eps_255: float) -> None:
    x = _image(seed)
    eps = eps_255 / 255
    z = norms.snap(x + _noise(seed, x), x, norm, eps)
    assert z.min() >= 0 and z.max() <= 1 and bool(on_8bit_grid(z).all())
    a, b = x.double().numpy(), z.double().numpy()
    moved = (np.abs(a - b) > 1e-6).any(axis=1)
    if norm == "psnr":
        assert (np.sqrt(np.square(a - b).mean(axis=(1, 2, 3))) <= eps + 1e-8).all()  # float32 of k/255
    elif norm == "ssim":
        assert (1 - perturbation.ssim(a, b) <= eps + 1e-6).all()  # the stated slack
    elif norm == "l0":
        assert (moved.sum(axis=(1, 2)) <= math.floor(eps * 13 * 16 + 1e-6)).all()
    else:
        for one in moved:
            rows, columns = np.nonzero(one)
            side = max(np.ptp(rows), np.ptp(columns)) + 1 if len(rows) else 0
            assert side <= math.floor(math.sqrt(eps * 13 * 16) + 1e-6)


@pytest.mark.parametrize("norm", NEW)
def test_measured_distances_are_fractions(norm: str) -> None:
    x = _image(2)
    z = x.clone()
    z[:, :, 3:5, 2:7] = 1 - z[:, :, 3:5, 2:7]  # two rows, five columns
    a, b = x.double().numpy(), z.double().numpy()
    expected = {
        "psnr": np.sqrt(np.square(a - b).mean(axis=(1, 2, 3))),
        "ssim": 1 - perturbation.ssim(a, b),
        "l0": np.full(2, 10 / (13 * 16)),
        "patch": np.full(2, 25 / (13 * 16)),
    }[norm]
    np.testing.assert_allclose(norms.measure(z, x, norm).numpy(), expected, atol=1e-7)  # float32 inputs
    np.testing.assert_allclose(norms.distance(z, x, norm).numpy(), expected, atol=1e-5)  # float32 sums


def test_l0_keeps_the_pixels_of_the_largest_change() -> None:
    x = _image(3)
    z = (x + 0.3 * _noise(3, x)).clamp(0, 1)
    kept = (norms.project(z, x, "l0", 5 / (13 * 16)) != x).any(dim=1)
    energy = (z - x).square().sum(dim=1).numpy()
    for mask, one in zip(kept.numpy(), energy, strict=True):
        assert set(np.flatnonzero(mask)) == set(np.argsort(one.ravel())[-5:])


def test_patch_keeps_the_square_of_the_largest_change() -> None:
    x = _image(4)
    z = (x + 0.3 * _noise(4, x)).clamp(0, 1)
    kept = (norms.project(z, x, "patch", 16.5 / (13 * 16)) != x).any(dim=1).numpy()  # a side of 4
    energy = (z - x).square().sum(dim=1).double().numpy()
    for mask, one in zip(kept, energy, strict=True):
        sums = {(i, j): one[i : i + 4, j : j + 4].sum() for i in range(10) for j in range(13)}
        i, j = max(sums, key=sums.__getitem__)
        expected = np.zeros((13, 16), dtype=bool)
        expected[i : i + 4, j : j + 4] = True
        assert (mask == expected).all()


@pytest.mark.parametrize("norm", ["linf", "l2", "psnr", "ssim"])
def test_reach_ends_at_the_border(norm: str) -> None:
    x = 0.25 + _image(5) / 2  # away from black and white, where clamping would shorten the step
    direction = norms.steepest(_noise(5, x), norm)
    eps = 0.03
    far = norms.reach(x, direction, norm, eps).view(-1, 1, 1, 1)
    assert bool(norms.inside(x + far * direction, x, norm, eps).all())
    assert not bool(norms.inside(x + 1.01 * far * direction, x, norm, eps).any())


@pytest.mark.parametrize("norm", ["linf", "l2", "psnr", "ssim", "l0", "patch"])
def test_dual_length_is_the_rise_of_a_unit_step(norm: str) -> None:
    slope = _noise(6, _image(6))
    rise = (slope * norms.steepest(slope, norm)).flatten(1).sum(dim=1)
    torch.testing.assert_close(rise, norms.dual_length(slope, norm), rtol=1e-5, atol=0)  # float32 sums


@pytest.mark.parametrize("norm", NEW)
def test_random_starts_spend_the_budget(norm: str) -> None:
    x = _image(7)
    eps = 0.2
    z = norms.random_start(x, norm, eps, ImageRNG([1, 2]))
    assert bool(norms.inside(z, x, norm, eps).all())
    assert norms.distance(z, x, norm).min() > 0.5 * eps  # by chance alone it would be far closer to all of it
    assert not torch.equal(z[0] - x[0], z[1] - x[1])


def test_levels_in_the_units_of_people() -> None:
    assert Budget.at("psnr", 40).eps == pytest.approx(0.01, rel=1e-12)
    assert Budget.at("psnr", 40).size == "PSNR 40 dB"
    assert Budget.at("ssim", 0.95).eps == pytest.approx(0.05, rel=1e-12)
    assert Budget.at("ssim", 0.95).size == "SSIM 0.95"
    assert Budget.at("l0", 0.001).size == "0.1 % of the pixels"
    assert Budget.at("patch", 0.04).size == "a square of 4 %"
    assert Budget.at("linf", 4, steps=3) == Budget(eps_255=4, steps=3)


@pytest.mark.parametrize(
    ("norm", "level", "sentence"),
    [
        ("psnr", -1, "eps_255 of at most 255"),
        ("ssim", 1.5, "a finite number >= 0"),
        ("l0", 2, "at most 255"),
        ("lpips", 0.1, "one of linf, l2, psnr, ssim, l0, patch"),
        ("psnr", "40", "level to be a number"),
    ],
)
def test_impossible_levels_are_refused(norm: str, level: float, sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        Budget.at(norm, level)


def test_small_images_have_no_ssim() -> None:
    x = _image(8, 10, 40)
    with pytest.raises(ContractError, match="at least 11 pixels"):
        norms.snap(x, x, "ssim", 0.1)
