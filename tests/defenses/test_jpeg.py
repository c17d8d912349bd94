"""JPEG: the real codec is scored, a differentiable one lends it a slope."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.fft import dctn, idctn
from skimage import data
from skimage.metrics import peak_signal_noise_ratio

from iqa_robust.defenses.codec.differentiable_jpeg import (
    CHROMA,
    LUMA,
    differentiable_jpeg,
    quantization_table,
)
from iqa_robust.defenses.codec.jpeg import JPEG
from iqa_robust.defenses.codec.transform_coding import smooth_round
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid


def photo(name: str, height: int, width: int) -> torch.Tensor:
    """The top left corner of a photograph, (1, 3, H, W)."""
    pixels = np.ascontiguousarray(getattr(data, name)()[:height, :width])
    return torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255


def gray_codec(pixels: np.ndarray, quality: int) -> np.ndarray:
    """What the standard asks of a gray (H, W) picture of 0..255, sides a multiple of 8; SciPy's transform."""
    table = quantization_table(LUMA, quality).numpy()
    decoded = np.empty(pixels.shape)
    for i in range(0, pixels.shape[0], 8):
        for j in range(0, pixels.shape[1], 8):
            coefficients = dctn(pixels[i : i + 8, j : j + 8] - 128.0, norm="ortho")
            decoded[i : i + 8, j : j + 8] = idctn(np.round(coefficients / table) * table, norm="ortho") + 128
    return np.clip(np.round(decoded), 0, 255)


@pytest.mark.parametrize("quality", [10, 50, 75, 95])
def test_the_scored_image_is_what_the_standard_asks(quality: int) -> None:
    gray = (photo("astronaut", 96, 136)[0, 1] * 255).round()
    scored = JPEG(quality=quality).purify(gray.div(255).expand(1, 3, -1, -1))[0] * 255
    difference = np.abs(scored.numpy() - gray_codec(gray.numpy(), quality))
    # The codec's transform works in integers: a coefficient near a half may round the other way, which is
    # seen in the 64 pixels of one block.
    assert np.median(difference) == 0
    assert difference.mean() < 0.25


def test_the_scored_image_rounds_and_does_not_truncate() -> None:
    gray = torch.full((1, 3, 16, 16), (128 + 0.9) / 255)
    assert torch.equal(JPEG(quality=100).purify(gray) * 255, torch.full_like(gray, 129))


def test_the_file_is_subsampled_as_stated() -> None:
    x = torch.zeros(1, 3, 16, 16)
    x[:, 0, :, ::2] = 1.0  # red columns: at 4:4:4 they would come back red, at 4:2:0 their color is averaged away
    decoded = JPEG(quality=95).purify(x)[0]
    chroma = decoded[0] - decoded[2]
    assert (chroma[:, ::2] - chroma[:, 1::2]).abs().max() < 0.2
    assert chroma.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("quality", [1, 10, 25, 49, 50, 75, 90, 95, 100])
def test_quantization_tables_are_those_the_codec_writes(quality: int) -> None:
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, format="JPEG", quality=quality)
    written = Image.open(file).quantization  # type: ignore[attr-defined]
    assert list(written[0]) == quantization_table(LUMA, quality).flatten().tolist()
    assert list(written[1]) == quantization_table(CHROMA, quality).flatten().tolist()


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
@pytest.mark.parametrize(("quality", "least"), [(30, 38), (75, 40), (95, 42)])
def test_the_surrogate_is_close_to_the_codec(name: str, quality: int, least: float) -> None:
    # Measured: 43 to 45 dB at quality 30, 44 to 47 at 75, 46 to 50 at 95.
    x = photo(name, 203, 301)
    jpeg = JPEG(quality=quality)
    scored, slope = jpeg.purify(x), jpeg.surrogate(x)
    assert slope.shape == x.shape
    close = peak_signal_noise_ratio(scored.numpy(), slope.numpy(), data_range=1)
    assert close > least
    assert close > peak_signal_noise_ratio(x.numpy(), scored.numpy(), data_range=1) + 3


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 9), (8, 8), (16, 33), (31, 16)])
def test_any_size(height: int, width: int) -> None:
    x = photo("astronaut", height, width)
    for y in (JPEG().purify(x), JPEG().surrogate(x)):
        assert y.shape == x.shape
        assert y.min() >= 0
        assert y.max() <= 1
    assert bool(on_8bit_grid(JPEG().purify(x)).all())


def test_smooth_rounding() -> None:
    t = torch.linspace(-2.2, 2.2, 45, dtype=torch.float64, requires_grad=True)  # no value half way between two
    value = smooth_round(t)
    assert (value - t.round()).abs().max() <= 0.125
    (slope,) = torch.autograd.grad(value.sum(), t)
    assert torch.allclose(slope, 3 * (t - t.round()) ** 2)


def test_the_slope_of_the_surrogate_is_its_finite_difference() -> None:
    generator = torch.Generator().manual_seed(1)
    x = 0.25 + 0.5 * torch.rand(1, 3, 17, 21, dtype=torch.float64, generator=generator)
    x.requires_grad_(True)
    readout = torch.randn(x.shape, dtype=torch.float64, generator=generator)

    def value(z: torch.Tensor) -> torch.Tensor:
        return (differentiable_jpeg(z, 75) * readout).sum()

    (slope,) = torch.autograd.grad(value(x), x)
    for _ in range(5):
        direction = torch.randn(x.shape, dtype=torch.float64, generator=generator)
        # Smooth rounding has a kink at every half-integer; so small a step crosses none of them here.
        step = 1e-7 * direction
        difference = (value(x.detach() + step) - value(x.detach() - step)) / 2e-7
        assert difference.item() == pytest.approx((slope * direction).sum().item(), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("quality", [0, 101, 75.0, True, "75"])
def test_refuses_a_quality_off_the_scale(quality: object) -> None:
    with pytest.raises(ContractError, match=r"JPEG: expected quality to be a whole number from 1 to 100, got"):
        JPEG(quality=quality)  # type: ignore[arg-type]
