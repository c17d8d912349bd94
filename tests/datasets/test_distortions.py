"""The distortion bank and the consensus that labels it, on a picture that `photos` does not use."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy import ndimage, stats

from iqa_robust.datasets.consensus import IDENTITY, MEASURES, SHARES, fit_knots, measure, pseudo_mos, shares
from iqa_robust.datasets.distortions import DISTORTIONS, LEVELS, Picture, distort, stable_seed
from iqa_robust.errors import ContractError, UnknownNameError

EVERY = [(name, level) for name in DISTORTIONS for level in LEVELS]


@pytest.fixture(scope="module")
def picture() -> Picture:
    """Colored clouds with hard edges, 161 x 176: the least height that is labeled, no multiple of a block."""
    rng = np.random.default_rng(7)
    clouds = np.stack([ndimage.gaussian_filter(rng.normal(size=(161, 176)), s) for s in (2, 4, 8)], axis=2)
    clouds = 128 + 45 * clouds / clouds.std(axis=(0, 1))
    clouds[40:90, 30:120] += 50
    return np.clip(clouds, 5, 250).astype(np.uint8)


def batch(*pictures: Picture) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255


def test_the_bank_is_wide_enough() -> None:
    assert len(DISTORTIONS) >= 12
    assert LEVELS == (1, 2, 3, 4, 5)


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_uint8_in_uint8_out_changed_and_repeatable(picture: Picture, name: str, level: int) -> None:
    before = picture.copy()
    out = distort(picture, name, level, seed=3)
    assert out.dtype == np.uint8
    assert out.shape == picture.shape
    assert not np.array_equal(out, picture)
    np.testing.assert_array_equal(distort(picture, name, level, seed=3), out)
    np.testing.assert_array_equal(picture, before)


@pytest.mark.parametrize("name", DISTORTIONS)
def test_a_read_only_picture_and_an_odd_size_are_fine(name: str) -> None:
    tiny = np.random.default_rng(0).integers(0, 256, (33, 47, 3), dtype=np.uint8)
    tiny.setflags(write=False)
    assert distort(tiny, name, 5, seed=0).shape == tiny.shape


@pytest.mark.parametrize(
    "name", ["gaussian-noise", "chroma-noise", "impulse-noise", "speckle-noise", "block-loss", "color-cast"]
)
def test_random_types_depend_on_the_seed(picture: Picture, name: str) -> None:
    assert not np.array_equal(distort(picture, name, 3, seed=1), distort(picture, name, 3, seed=2))


def test_seeds_do_not_depend_on_the_process() -> None:
    program = "from iqa_robust.datasets.distortions import stable_seed; print(stable_seed('a', 1))"
    for salt in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": salt, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert int(done.stdout) == stable_seed("a", 1)


def test_white_noise_has_the_stated_strength() -> None:
    gray = np.full((256, 256, 3), 128, np.uint8)
    out = distort(gray, "gaussian-noise", 3, seed=0).astype(float) - 128
    # 196608 samples: the standard error of the deviation is 14 / sqrt(2 n) = 0.022; rounding adds 0.003.
    assert out.std() == pytest.approx(14, abs=0.12)
    assert abs(out.mean()) < 0.15


def test_chroma_noise_leaves_the_luma() -> None:
    gray = np.full((128, 128, 3), 128, np.uint8)
    out = distort(gray, "chroma-noise", 2, seed=0).astype(float)
    luma = out @ [0.299, 0.587, 0.114]
    assert out.std() > 8
    # Rounding three channels to whole levels is all that may move the luma.
    assert abs(luma - 128).max() <= 0.5 + 1e-6


def test_impulse_noise_hits_the_stated_share() -> None:
    gray = np.full((256, 256, 3), 128, np.uint8)
    out = distort(gray, "impulse-noise", 4, seed=0)
    assert set(np.unique(out)) == {0, 128, 255}
    # Binomial: sqrt(0.07 * 0.93 / 196608) = 0.0006, five of them.
    assert (out != 128).mean() == pytest.approx(0.07, abs=0.003)


@pytest.mark.parametrize("name", ["gaussian-blur", "motion-blur", "defocus-blur", "resampling", "pixelation"])
def test_blurs_keep_the_mean_and_a_flat_picture(picture: Picture, name: str) -> None:
    flat = np.full((64, 64, 3), 77, np.uint8)
    np.testing.assert_array_equal(distort(flat, name, 5, seed=0), flat)
    # The edges are repeated, so the mean may move a little; a kernel that does not sum to 1 moves it far.
    assert distort(picture, name, 3, seed=0).mean() == pytest.approx(picture.mean(), abs=1.0)


def test_defocus_is_the_mean_over_a_disk() -> None:
    dot = np.zeros((33, 33, 3), np.uint8)
    dot[16, 16] = 255
    out = distort(dot, "defocus-blur", 3, seed=0)[..., 0]
    rows, columns = np.mgrid[-16:17, -16:17]
    disk = rows**2 + columns**2 <= 3**2
    np.testing.assert_array_equal(out, np.where(disk, round(255 / disk.sum()), 0))


def test_full_desaturation_is_gray(picture: Picture) -> None:
    out = distort(picture, "desaturation", 5, seed=0)
    assert (out == out[..., :1]).all()


def test_banding_leaves_few_values(picture: Picture) -> None:
    assert len(np.unique(distort(picture, "banding", 5, seed=0))) == 3


def test_wrong_requests_are_refused(picture: Picture) -> None:
    with pytest.raises(UnknownNameError, match="fog"):
        distort(picture, "fog", 1, seed=0)
    with pytest.raises(ContractError, match="level"):
        distort(picture, "jpeg", 6, seed=0)
    with pytest.raises(ContractError, match="uint8"):
        distort(picture.astype(np.float64), "jpeg", 1, seed=0)  # type: ignore[arg-type]
    with pytest.raises(ContractError, match="uint8"):
        distort(picture[..., 0], "jpeg", 1, seed=0)


def test_identical_pairs_get_exactly_the_top(picture: Picture) -> None:
    x = batch(picture, picture[::-1], np.full_like(picture, 40))
    assert pseudo_mos(x, x.clone()).tolist() == [100.0, 100.0, 100.0]


def test_pseudo_mos_falls_with_the_level_of_an_unseen_picture(picture: Picture) -> None:
    for name in ("jpeg", "gaussian-blur", "gaussian-noise", "contrast-loss", "block-loss"):
        x = batch(*(distort(picture, name, level, seed=0) for level in LEVELS))
        labels = pseudo_mos(batch(*[picture] * len(LEVELS)), x)
        assert labels.shape == (5,)
        assert labels.dtype == torch.float32
        assert (labels.diff() < 0).all(), (name, labels)
        assert 0 <= labels.min() <= labels.max() < 100


def test_an_image_is_labeled_alone(picture: Picture) -> None:
    x = batch(*(distort(picture, name, 3, seed=0) for name in ("jpeg", "banding", "color-cast")))
    ref = batch(*[picture] * 3)
    alone = torch.cat([pseudo_mos(ref[i : i + 1], x[i : i + 1]) for i in range(3)])
    # Float32 sums in another order move a measure by about 1e-6, and the steepest map has 5 points per 0.002.
    torch.testing.assert_close(pseudo_mos(ref, x), alone, atol=0.02, rtol=0)


def test_more_contrast_is_no_improvement(picture: Picture) -> None:
    mild = (picture // 2 + 64).astype(np.uint8)
    strong = np.clip(1.5 * (mild.astype(float) - 128) + 128, 0, 255).astype(np.uint8)
    raw = measure(batch(mild), batch(strong))
    assert raw[0, list(MEASURES).index("vif")] == 1.0
    assert pseudo_mos(batch(mild), batch(strong)) < 95


def test_the_maps_rise_from_0_to_1() -> None:
    low = np.full((1, len(MEASURES)), -10.0)
    top = np.array([[IDENTITY[name] for name in MEASURES]])
    np.testing.assert_array_equal(shares(low), np.zeros_like(low))
    np.testing.assert_array_equal(shares(top), np.ones_like(top))
    steps = np.linspace(low[0], top[0], 20001)
    assert (np.diff(shares(steps), axis=0) >= 0).all()


def test_fitted_maps_are_the_quantiles_of_the_bank() -> None:
    raw = np.random.default_rng(0).uniform(0.1, 0.9, (500, len(MEASURES)))
    raw[:, list(MEASURES).index("mdsi")] -= 1  # its best value is 0, not 1
    knots = fit_knots(raw)
    for i, name in enumerate(MEASURES):
        mapped = np.interp(raw[:, i], knots[name], SHARES)
        # On the bank itself the map is the rank: exact at the knots, less than half the distance of two knots
        # off between them. The last piece ends at the reference, not at the best of the bank.
        ranks = (stats.rankdata(raw[:, i]) - 1) / 499
        inner = ranks < 0.95
        np.testing.assert_allclose(mapped[inner], ranks[inner], atol=0.025)
        assert knots[name][-1] == pytest.approx(IDENTITY[name], rel=1e-5)


def test_images_that_cannot_be_labeled_are_refused(picture: Picture) -> None:
    x = batch(picture)
    with pytest.raises(ContractError, match="161"):
        pseudo_mos(x[..., :160], x[..., :160])
    with pytest.raises(ContractError, match="shape"):
        pseudo_mos(x[..., :170], x)
    with pytest.raises(ContractError, match=r"\[0, 1\]"):
        pseudo_mos(x, x * 255)
