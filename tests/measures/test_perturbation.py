from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import correlate1d
from skimage.metrics import peak_signal_noise_ratio

from iqa_robust.errors import ContractError
from iqa_robust.measures import l2, linf, mean_psnr, psnr, ssim


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    clean = rng.random((3, 3, 20, 24), dtype=np.float32)
    adv = np.clip(clean + rng.normal(0, 0.05, clean.shape), 0, 1).astype(np.float32)
    return clean, adv


def test_distances_by_hand() -> None:
    clean = np.full((2, 3, 2, 2), 0.5, np.float32)
    adv = clean.copy()
    adv[0, 1, 0, 1] += 0.25
    adv[1] -= 0.125
    np.testing.assert_array_equal(linf(clean, adv), [0.25, 0.125])
    # 1e-15: all values are powers of two but for the root.
    np.testing.assert_allclose(l2(clean, adv), [0.25, 0.125 * np.sqrt(12)], rtol=1e-15)
    np.testing.assert_allclose(psnr(clean, adv), [10 * np.log10(12 * 16), 20 * np.log10(8)], rtol=1e-14)


def test_agrees_with_norms_and_scikit_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, adv = (images.astype(np.float64) for images in pair)
    flat = (adv - clean).reshape(3, -1)
    np.testing.assert_array_equal(linf(*pair), np.linalg.norm(flat, ord=np.inf, axis=1))
    # 1e-12: float64 sums of 1,440 terms.
    np.testing.assert_allclose(l2(*pair), np.linalg.norm(flat, axis=1), rtol=1e-12)
    reference = [peak_signal_noise_ratio(a, b, data_range=1) for a, b in zip(clean, adv, strict=True)]
    np.testing.assert_allclose(psnr(*pair), reference, rtol=1e-12)


def test_ssim_agrees_with_the_paper(pair: tuple[np.ndarray, np.ndarray]) -> None:
    offsets = np.arange(-5, 6)
    window = np.exp(-(offsets**2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(image: np.ndarray) -> np.ndarray:
        full = correlate1d(correlate1d(image, window, axis=-1), window, axis=-2)
        return full[..., 5:-5, 5:-5]  # where the window lies inside the image

    a, b = (images.astype(np.float64) for images in pair)
    mean_a, mean_b = blur(a), blur(b)
    var_a, var_b, cov = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
    structure = (2 * cov + 0.03**2) / (var_a + var_b + 0.03**2)
    expected = (luminance * structure).mean(axis=(1, 2, 3))
    # 1e-12: the same float64 arithmetic in another order.
    np.testing.assert_allclose(ssim(*pair), expected, rtol=1e-12)


@pytest.mark.data
def test_official_values(data_root: Path) -> None:
    """PSNR of the color images and SSIM of their rounded luma, as the authors' MATLAB code prints them."""
    folder = data_root / "reference" / "tid2013_pairs"
    official = {
        row.split(",")[0]: [float(value) for value in row.split(",")[1:]]
        for row in (folder / "results_official.csv").read_text().splitlines()[1:]
    }
    weights = np.array([0.299, 0.587, 0.114])[:, None, None]
    found: dict[str, list[float]] = {"psnr": [], "ssim": []}
    for name in ("I03.bmp", "I04.bmp", "I06.bmp", "I08.bmp", "I19.bmp"):
        images, lumas = [], []
        for side in ("ref_dir", "dist_dir"):
            pixels = np.asarray(Image.open(folder / side / name).convert("RGB"), np.float64).transpose(2, 0, 1)
            luma = np.round((pixels * weights).sum(axis=0))
            images.append(pixels[None] / 255)
            lumas.append(np.broadcast_to(luma, pixels.shape)[None] / 255)
        found["psnr"].append(psnr(*images)[0])
        found["ssim"].append(ssim(*lumas)[0])
    # Half a unit of the last printed digit of PSNR; two of SSIM: their luma rounds a little differently.
    np.testing.assert_allclose(found["psnr"], official["psnr"], atol=0.005)
    np.testing.assert_allclose(found["ssim"], official["ssim"], atol=2e-4)


def test_an_unchanged_image() -> None:
    clean = np.random.default_rng(0).random((2, 3, 11, 11))
    np.testing.assert_array_equal(linf(clean, clean), 0)
    np.testing.assert_array_equal(l2(clean, clean), 0)
    np.testing.assert_array_equal(psnr(clean, clean), np.inf)
    # 1e-12: SSIM divides two equal sums.
    np.testing.assert_allclose(ssim(clean, clean), 1, rtol=1e-12)


def test_symmetric_and_image_by_image(pair: tuple[np.ndarray, np.ndarray]) -> None:
    clean, adv = pair
    for distance in (linf, l2, psnr, ssim):
        # 1e-12: SSIM's products in another order; the rest is exact.
        np.testing.assert_allclose(distance(adv, clean), distance(clean, adv), rtol=1e-12)
        alone = [distance(clean[i : i + 1], adv[i : i + 1])[0] for i in range(3)]
        np.testing.assert_array_equal(distance(clean, adv), alone)


@pytest.mark.parametrize("size", [(11, 11), (12, 43), (26, 27), (59, 74)])
def test_ssim_agrees_with_scikit_image(size: tuple[int, int]) -> None:
    from skimage.metrics import structural_similarity

    rng = np.random.default_rng(7)
    clean = rng.random((2, 3, *size))
    adv = np.clip(clean + rng.normal(0, 0.05, clean.shape), 0, 1)
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        structural_similarity(a, b, data_range=1.0, channel_axis=0, **settings) for a, b in zip(clean, adv, strict=True)
    ]
    np.testing.assert_allclose(ssim(clean, adv), expected, rtol=1e-12)  # sums in another order


@pytest.mark.parametrize("shape", [(2, 3, 10, 40), (2, 3, 40, 10)])
def test_no_ssim_without_a_window(shape: tuple[int, ...]) -> None:
    clean = np.zeros(shape, np.float32)
    assert np.isnan(ssim(clean, clean)).all()


def test_mean_psnr_counts_what_it_cannot_average() -> None:
    assert mean_psnr([30, 40, np.inf, np.nan, np.inf]) == (35.0, 2)
    mean, n_infinite = mean_psnr([np.inf])
    assert np.isnan(mean) and n_infinite == 1
    mean, n_infinite = mean_psnr([np.nan])
    assert np.isnan(mean) and n_infinite == 0


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.zeros((3, 8, 8), np.float32), "shape"),
        (np.zeros((1, 8, 8, 3), np.float32), "shape"),
        (np.zeros((1, 3, 8, 8), np.uint8), "uint8"),
        (np.full((1, 3, 8, 8), 255.0), r"\[0, 1\]"),
        (np.full((1, 3, 8, 8), np.nan), r"\[0, 1\]"),
        (np.zeros((2, 3, 8, 8), np.float32), "shape of the clean images"),
    ],
)
def test_anything_but_images_is_refused(bad: np.ndarray, message: str) -> None:
    with pytest.raises(ContractError, match=message):
        linf(np.zeros((1, 3, 8, 8), np.float32), bad)


def test_importing_the_room_loads_neither_torch_nor_scikit_image() -> None:
    code = "import sys, iqa_robust.measures; print(sorted({'torch', 'skimage', 'pandas'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
