"""Resize and upscale: Pillow's bilinear resampling in float."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_robust.defenses.geometry.resize import Resize, Upscale
from iqa_robust.errors import ContractError
from iqa_robust.models.base import ModelInfo, wrap
from iqa_robust.testing.pictures import pictures
from iqa_robust.testing.toy import ToyReference


def by_pillow(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """(3, H, W) float32, each channel on its own."""
    channels = [Image.fromarray(channel).resize((width, height), Image.Resampling.BILINEAR) for channel in image]
    return np.stack([np.array(channel) for channel in channels])


@pytest.mark.parametrize(("scale", "height", "width"), [(0.5, 12, 20), (0.3, 7, 12), (0.9, 22, 36), (1.0, 24, 40)])
def test_equals_pillow(scale: float, height: int, width: int) -> None:
    x = pictures(2, 24, 40)
    small = Resize(scale=scale).purify(x)
    back = Upscale(scale=scale).purify(x)
    assert small.shape == (2, 3, height, width)
    for i in range(2):
        expected = by_pillow(x[i].numpy(), height, width)
        assert np.allclose(small[i].numpy(), expected, rtol=0, atol=1e-6)  # float32 sums in another order
        assert np.allclose(back[i].numpy(), by_pillow(expected, 24, 40), rtol=0, atol=1e-6)


def test_one_pixel_remains_and_comes_back() -> None:
    x = torch.full((1, 3, 1, 3), 0.25)
    assert Resize(scale=0.1).purify(x).shape == (1, 3, 1, 1)
    assert torch.allclose(Upscale(scale=0.1).purify(x), x)


def test_a_white_image_stays_white_with_a_slope() -> None:
    x = torch.ones(1, 3, 13, 17, requires_grad=True)
    for defense in (Resize(scale=0.37), Upscale(scale=0.37)):
        y = defense.purify(x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        assert y.max() <= 1
        assert (slope > 0).all()


def test_the_wrapped_model_names_the_smallest_image_it_takes() -> None:
    model = wrap(lambda x: x.mean(dim=(1, 2, 3)), info=ModelInfo(min_size=16))
    defended = Resize(scale=0.3).wrap(model)
    assert round(0.3 * defended.info.min_size) == 16
    assert round(0.3 * (defended.info.min_size - 1)) < 16
    assert Upscale(scale=0.3).wrap(model).info.min_size == 16


def test_only_upscale_defends_a_full_reference_model() -> None:
    Upscale().wrap(ToyReference())
    with pytest.raises(ContractError, match=r"^Resize changes the frame of the image"):
        Resize().wrap(ToyReference())


@pytest.mark.parametrize("cls", [Resize, Upscale])
@pytest.mark.parametrize("scale", [0, 1.5, float("nan"), "0.5"])
def test_refuses(cls: type[Resize], scale: object) -> None:
    with pytest.raises(
        ContractError, match=rf"^{cls.__name__}: expected scale to be a finite number > 0 and <= 1, got"
    ):
        cls(scale=scale)  # type: ignore[arg-type]
