"""CNNIQA against SciPy, Pillow and the published LIVE checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import uniform_filter

from iqa_robust import models
from iqa_robust.errors import CheckpointError
from iqa_robust.models.cnniqa import CNNIQANetwork, gray_8bit, local_normalization, patches_of

OFFICIAL = {"I03": 78.48, "I04": 12.04, "I06": 14.83, "I08": 19.71, "I19": 85.59}
"""Scores of five TID2013 images by the LIVE checkpoint, on gray values of Pillow's mode "L"."""


def random_images(n: int, height: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (n, 3, height, width), generator=generator) / 255


def save_random(path: Path) -> Path:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(CNNIQANetwork().state_dict(), path)
    return path


def test_gray_is_pillows_mode_l() -> None:
    x = random_images(1, 64, 64)
    pixels = (x[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    expected = np.asarray(Image.fromarray(pixels).convert("L"))
    assert np.array_equal((gray_8bit(x)[0, 0] * 255).round().numpy(), expected)


def test_gray_has_the_slope_of_the_unrounded_luma() -> None:
    x = random_images(1, 4, 4).requires_grad_()
    gray_8bit(x).sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad[0, :, 0, 0].numpy(), [0.299, 0.587, 0.114], atol=1e-4)  # 16-bit weights


def test_local_normalization_is_scipys() -> None:
    patch = gray_8bit(random_images(1, 32, 32))
    values = patch[0, 0].double().numpy()
    mean = uniform_filter(values, 3, mode="reflect")  # SciPy's "reflect" repeats the border
    deviation = np.sqrt(np.maximum(uniform_filter(values**2, 3, mode="reflect") - mean**2, 0))
    # float32 loses up to 1e-7 in the difference of squares, hence up to 3e-4 in the root of a variance near zero
    np.testing.assert_allclose(local_normalization(patch)[0, 0].numpy(), (values - mean) / (deviation + 1), atol=3e-4)


@pytest.mark.parametrize(("height", "width", "count"), [(32, 32, 1), (33, 33, 1), (96, 65, 4), (97, 65, 6)])
def test_patches_leave_out_one_that_ends_at_the_border(height: int, width: int, count: int) -> None:
    assert patches_of(torch.zeros(2, 1, height, width)).shape == (2, count, 1, 32, 32)


def test_patches_run_row_by_row() -> None:
    gray = torch.arange(70 * 100, dtype=torch.float32).view(1, 1, 70, 100)
    patches = patches_of(gray)
    assert torch.equal(patches[0, 4, 0], gray[0, 0, 32:64, 32:64])


def test_scores_are_batch_invariant_and_have_gradients(tmp_path: Path) -> None:
    model = models.create("cnniqa", weights=str(save_random(tmp_path / "random.pth")))
    x = random_images(3, 64, 80).requires_grad_()
    together = model(x)
    alone = torch.cat([model(image[None]) for image in x])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)  # float32 sums in another order
    together.sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().amax(1) > 0).all())


def test_flat_images_have_finite_gradients(tmp_path: Path) -> None:
    model = models.create("cnniqa", weights=str(save_random(tmp_path / "random.pth")))
    x = torch.full((1, 3, 40, 40), 0.5, requires_grad=True)
    model(x).sum().backward()
    assert x.grad is not None
    assert bool(torch.isfinite(x.grad).all())


def test_info_says_what_the_user_said(tmp_path: Path) -> None:
    path = save_random(tmp_path / "random.pth")
    info = models.create("cnniqa", weights=str(path), score_range=[0, 100]).info
    assert not info.higher_is_better
    assert info.score_range == (0.0, 100.0)
    assert info.weights_license is None
    assert models.create("cnniqa", weights=str(path), higher_is_better=True).info.higher_is_better


def test_there_is_no_published_set() -> None:
    with pytest.raises(CheckpointError, match="no published set"):
        _ = models.create("cnniqa", weights="live").info


@pytest.mark.data
def test_official_values(data_root: Path) -> None:
    model = models.create("cnniqa", weights=str(data_root / "weights" / "CNNIQA-LIVE.pth"))
    for name, expected in OFFICIAL.items():
        with Image.open(data_root / "reference" / "tid2013_pairs" / "dist_dir" / f"{name}.bmp") as image:
            x = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
        assert model(x).item() == pytest.approx(expected, abs=0.006)  # the values are printed with two decimals
