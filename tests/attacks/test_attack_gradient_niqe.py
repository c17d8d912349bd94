"""NIQE against its definitions written again, its stored statistics, and AMI-FGSM's bound from it."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.resources import files

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.ndimage import convolve, gaussian_filter
from scipy.optimize import brentq
from scipy.special import gamma
from scipy.stats import gennorm

from iqa_robust import attacks
from iqa_robust.attacks.gradient import niqe as module
from iqa_robust.attacks.gradient.niqe import asymmetric_gaussian, block_features, describe, fit, luma, niqe, normalize
from iqa_robust.datasets.photo_sources import SOURCES, read_crop
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget

NOT_NATURAL = ("hubble", "retina", "tissue")
"""Photographs of things that eyes do not see: galaxies, a fundus, a stained section."""


def _crop(name: str, number: int = 0) -> torch.Tensor:
    source = next(source for source in SOURCES if source.name == name)
    return torch.from_numpy(read_crop(source, number).copy()).permute(2, 0, 1).float() / 255


def test_the_stored_statistics_are_our_fit() -> None:
    """The recipe: every crop of every natural photograph that `photos` knows."""
    crops = [
        torch.from_numpy(read_crop(source, number).copy()).permute(2, 0, 1).float() / 255
        for source in SOURCES
        if source.name not in NOT_NATURAL
        for number in range(len(source.corners))
    ]
    mean, covariance = fit(crops)
    with files(module.__package__).joinpath("niqe_statistics.npz").open("rb") as file:
        stored = np.load(file, allow_pickle=False)
        # Other versions of SciPy and PyTorch sum in another order; a shape then moves by its grid of 0.001.
        np.testing.assert_allclose(stored["mean"], mean, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(stored["covariance"], covariance, rtol=1e-2, atol=1e-4)
    assert np.linalg.eigvalsh(covariance).min() > 0  # more blocks than features


def _aggd(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """The asymmetric generalized Gaussian of these moments, its shape by root finding instead of a table."""
    values = values.ravel()
    left = math.sqrt(np.mean(values[values < 0] ** 2))
    right = math.sqrt(np.mean(values[values > 0] ** 2))
    g = left / right
    r = np.mean(np.abs(values)) ** 2 / np.mean(values**2) * (g**3 + 1) * (g + 1) / (g**2 + 1) ** 2
    shape = brentq(lambda a: gamma(2 / a) ** 2 / (gamma(1 / a) * gamma(3 / a)) - r, 0.2, 10)
    scale = math.sqrt(gamma(1 / shape) / gamma(3 / shape))
    return shape, left * scale, right * scale


def test_the_features_are_the_papers() -> None:
    gray = luma(_crop("chelsea"))
    found, sharpness = block_features(gray)
    assert found.shape == (4, 36)
    row = np.arange(-3, 4)
    window = np.exp(-(row[:, None] ** 2 + row[None, :] ** 2) / (2 * (7 / 6) ** 2))
    window /= window.sum()
    image = gray
    for scale in (1, 2):
        mean = convolve(image, window, mode="nearest")
        deviation = np.sqrt(np.abs(convolve(image**2, window, mode="nearest") - mean**2))
        coefficients = (image - mean) / (deviation + 1)
        side = 96 // scale
        for number, (top, left) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            cut = np.s_[top * side : (top + 1) * side, left * side : (left + 1) * side]
            block = coefficients[cut]
            if scale == 1:
                assert sharpness[number] == pytest.approx(deviation[cut].mean(), rel=1e-9)
            shape, low, high = _aggd(block)
            expected = [shape, (low + high) / 2]
            for down, right in ((0, 1), (1, 0), (1, 1), (1, -1)):
                neighbor = block[(np.arange(side)[:, None] - down) % side, (np.arange(side) - right) % side]
                shape, low, high = _aggd(block * neighbor)
                expected += [shape, (high - low) * gamma(2 / shape) / gamma(1 / shape), low, high]
            # The table of shapes has steps of 0.001; the scales follow the shape.
            half = found[number, 18 * (scale - 1) : 18 * scale]
            np.testing.assert_allclose(half, expected, rtol=0, atol=2e-3 if scale == 1 else 2e-2)
        # It differs from ours at the edges, hence the wider tolerance.
        image = convolve(gray, _bicubic_halving(), mode="nearest")[::2, ::2] if scale == 1 else image


def _bicubic_halving() -> NDArray[np.float64]:
    """Keys' cubic, stretched by two: the weights of the 8 x 8 pixels around the middle of each four."""
    distance = np.abs((np.arange(8) - 3.5) / 2)
    near = 1.5 * distance**3 - 2.5 * distance**2 + 1
    far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
    line = np.where(distance <= 1, near, far)
    line /= line.sum()
    # SciPy puts the origin of an even window right of its middle, and convolution turns it around.
    padded = np.concatenate([line, [0.0]])
    return np.outer(padded, padded)


def test_halving_is_bicubic_with_antialiasing() -> None:
    gray = luma(_crop("coffee"))
    half = module._halve(gray)
    inner = convolve(gray, _bicubic_halving(), mode="nearest")[::2, ::2][4:-4, 4:-4]
    np.testing.assert_allclose(half[4:-4, 4:-4], inner, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [0.7, 1.0, 2.0])
def test_the_parameters_of_drawn_samples_are_found(shape: float) -> None:
    values = gennorm(shape, scale=0.8).rvs(200_000, random_state=np.random.default_rng(3))
    found, left, right = asymmetric_gaussian(values)
    # Standard errors of the three at 200,000 samples are about half a percent.
    assert found == pytest.approx(shape, rel=0.02)
    assert left == pytest.approx(0.8, rel=0.02) and right == pytest.approx(0.8, rel=0.02)
    skewed = np.where(values < 0, 0.5 * values, values)
    _, left, right = asymmetric_gaussian(skewed)
    assert right / left == pytest.approx(2, rel=0.03)


def test_a_photograph_gets_worse_with_noise_and_blur() -> None:
    image = _crop("chelsea", 1)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    blurred = torch.from_numpy(gaussian_filter(image.numpy(), sigma=(0, 2.5, 2.5)))
    versions = torch.stack([image, (image + 0.05 * noise).clamp(0, 1), (image + 0.2 * noise).clamp(0, 1), blurred])
    clean, noisy, noisier, soft = niqe(versions).tolist()
    assert clean < noisy < noisier and clean < soft
    assert 2 < clean < 10


def test_every_image_is_measured_by_itself() -> None:
    images = torch.stack([_crop("rocket"), _crop("flower"), _crop("coffee")])
    together = niqe(images)
    assert together.dtype == torch.float32
    assert torch.equal(together, torch.cat([niqe(image[None]) for image in images]))
    assert torch.equal(niqe(images.requires_grad_(True)), together)


@pytest.mark.parametrize("size", [(15, 17), (16, 16), (95, 130), (96, 192)])
def test_small_images_are_one_block(size: tuple[int, int]) -> None:
    H, W = size
    image = _crop("flower")[:, 20 : 20 + H, :W]
    features, sharpness = block_features(luma(image))
    blocks = 2 if size == (96, 192) else 1
    assert features.shape == (blocks, 36) and sharpness.shape == (blocks,)
    assert bool(niqe(image[None]).isfinite().all())


def test_a_flat_image_has_no_statistics() -> None:
    assert np.isnan(describe(normalize(np.full((96, 96), 120.0))[0])).all()
    assert niqe(torch.full((1, 3, 96, 96), 0.5)).tolist() == [math.inf]


def test_the_bound_is_a_constant_over_niqe() -> None:
    x = torch.stack([_crop("flower"), _crop("rocket"), torch.full((3, 192, 192), 0.5)])
    quality = niqe(x)
    attack = attacks.create("ami-fgsm", strength=0.05)
    levels = torch.floor(255 * 0.05 / quality)
    linf = attack.radius(x, Budget(eps_255=8)) * 255
    torch.testing.assert_close(linf, levels.clamp(1, 8), rtol=0, atol=1e-4)
    assert linf[2] == pytest.approx(1)  # a flat image: at least one level, with which something can be done
    assert attack.radius(x, Budget(eps_255=1.5)).max().item() * 255 == pytest.approx(1.5, abs=1e-4)
    psnr = attack.radius(x, Budget(norm="psnr", eps_255=20))
    torch.testing.assert_close(psnr, 0.05 / quality)
    l2 = attack.radius(x, Budget(norm="l2", eps_255=10_000))
    torch.testing.assert_close(l2, psnr * (3 * 192 * 192) ** 0.5)


def test_the_final_image_keeps_its_own_bound(make_linear: type[IQAModel]) -> None:
    x = torch.stack([_crop("flower"), _crop("rocket"), _crop("chelsea")])[..., :64, :64]
    w = torch.randn(3, 64, 64, generator=torch.Generator().manual_seed(2))
    attack = attacks.create("ami-fgsm", strength=0.5)
    budget = Budget(eps_255=8, steps=5)
    bound = attack.radius(x, budget)
    assert len(set(bound.tolist())) > 1
    result = attack(make_linear(w), x, goal="up", budget=budget)
    torch.testing.assert_close(result.linf, bound, rtol=0, atol=1e-6)
    expected = (torch.round(x * 255) + torch.round(bound * 255).view(-1, 1, 1, 1) * w.sign()).clamp(0, 255) / 255
    assert torch.equal(result.images, expected)


def test_with_a_large_constant_it_is_mi_fgsm(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x, budget = images(3), Budget(eps_255=4, steps=5)
    one = attacks.create("ami-fgsm", strength=1e6)(convolutional, x, goal="down", budget=budget)
    other = attacks.create("mi-fgsm")(convolutional, x, goal="down", budget=budget)
    assert torch.equal(one.images, other.images)
