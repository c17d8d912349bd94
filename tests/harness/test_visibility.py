"""Visibility of a perturbation, per image; learned distances only where their weights are on the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from iqa_robust.attacks import similarity
from iqa_robust.attacks.perceptual import learned
from iqa_robust.harness.visibility import visibility
from iqa_robust.measures.perturbation import ssim


@pytest.fixture
def without_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    learned._network.cache_clear()
    yield
    learned._network.cache_clear()


def test_distances_are_those_of_scikit_image_and_nothing_is_downloaded(without_weights: None) -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 40, 48, generator=generator)
    adv = (clean + 0.02 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    found = visibility(clean, adv)
    for i in range(2):
        a, b = clean[i].numpy().astype(np.float64), adv[i].numpy().astype(np.float64)
        # both sum in float64 over the same float32 pixels
        assert found["psnr"][i] == pytest.approx(peak_signal_noise_ratio(a, b, data_range=1), abs=1e-9)
        reference = structural_similarity(
            a, b, data_range=1, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        assert found["ssim"][i] == pytest.approx(reference, abs=1e-9)
    assert np.isnan(found["lpips"]).all() and np.isnan(found["dists"]).all()


def test_similarity_on_a_gpu_is_that_of_the_reference_implementation() -> None:
    generator = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 40, 33, generator=generator)
    adv = (clean + 0.1 * torch.rand(clean.shape, generator=generator)).clamp(0, 1)
    ours = similarity.ssim(adv.double(), clean.double())
    # Both sum in float64; scikit-image cuts the same Gaussian at the same width.
    torch.testing.assert_close(ours, torch.from_numpy(ssim(clean.numpy(), adv.numpy())), rtol=1e-9, atol=1e-9)
