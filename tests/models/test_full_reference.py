"""PSNR and SSIM against scikit-image and the official values."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from iqa_robust import models
from iqa_robust.errors import ContractError


def pair(n: int = 2, side: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    ref = torch.rand((n, 3, side, side), generator=generator)
    noise = torch.rand((n, 3, side, side), generator=generator) - 0.5
    return (ref + 0.2 * noise).clamp(0, 1), ref


def test_psnr_is_scikit_images() -> None:
    x, ref = pair()
    expected = [
        peak_signal_noise_ratio(r.double().numpy(), i.double().numpy(), data_range=1)
        for i, r in zip(x, ref, strict=True)
    ]
    # 1e-8 beside a mean squared error of about 3e-3 moves the value by 1e-5 dB; the rest is float32
    np.testing.assert_allclose(models.create("psnr")(x, ref).numpy(), expected, atol=1e-4)


def test_psnr_of_identical_images_is_the_documented_cap() -> None:
    _, ref = pair()
    model = models.create("psnr")
    np.testing.assert_allclose(model(ref, ref).numpy(), 80.0, atol=1e-4)
    assert model.info.score_range == (0.0, 80.0)


def test_psnr_of_opposite_images_is_the_other_end() -> None:
    black = torch.zeros(1, 3, 16, 16)
    assert models.create("psnr")(black, 1 - black).item() == 0


def test_ssim_is_scikit_images() -> None:
    x, ref = pair()
    weights = np.array([0.299, 0.587, 0.114]).reshape(3, 1, 1)
    expected = []
    for image, reference in zip(x.double().numpy(), ref.double().numpy(), strict=True):
        gray, gray_ref = (image * weights).sum(0), (reference * weights).sum(0)
        _, full = structural_similarity(
            gray, gray_ref, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
        )
        expected.append(full[5:-5, 5:-5].mean())  # positions where the 11 x 11 window fits
    np.testing.assert_allclose(models.create("ssim")(x, ref).numpy(), expected, atol=1e-5)  # float32


def test_ssim_of_identical_images_is_one() -> None:
    _, ref = pair()
    np.testing.assert_allclose(models.create("ssim")(ref, ref).numpy(), 1, atol=1e-6)


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_gradients_batches_and_range(name: str) -> None:
    model = models.create(name)
    x, ref = pair(4)
    x.requires_grad_()
    together = model(x, ref)
    alone = torch.cat([model(x[i : i + 1], ref[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=1e-6)  # float32 sums in another order
    together.sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().amax(1) > 0).all())
    low, high = model.info.score_range
    assert bool(((together >= low) & (together <= high)).all())
    assert model.info.full_reference


@pytest.mark.parametrize("name", ["psnr", "ssim"])
def test_reference_is_required_and_must_fit(name: str) -> None:
    x, ref = pair()
    with pytest.raises(ContractError, match="full-reference"):
        models.create(name)(x)
    with pytest.raises(ContractError, match="shape"):
        models.create(name)(x, ref[:, :, :32])


@pytest.mark.data
@pytest.mark.parametrize(
    # printed with two decimals; SSIM there is of luma rounded to 8 bits, worth up to 0.0013 on these five
    ("name", "tolerance"),
    [("psnr", 0.006), ("ssim", 0.002)],
)
def test_official_values(name: str, tolerance: float, data_root: Path) -> None:
    folder = data_root / "reference" / "tid2013_pairs"
    with (folder / "results_official.csv").open(newline="") as file:
        row = next(row for row in csv.DictReader(file) if row["Method"] == name)
    model = models.create(name)
    for file_name, expected in row.items():
        if file_name == "Method":
            continue
        x, ref = (_read(folder / side / file_name) for side in ("dist_dir", "ref_dir"))
        assert math.isclose(model(x, ref).item(), float(expected), abs_tol=tolerance), file_name


def _read(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)[None] / 255
