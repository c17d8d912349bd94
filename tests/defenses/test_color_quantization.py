"""Color quantization: few colors, near the pixels they stand for."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.cluster.vq import vq

from iqa_robust.defenses.quantization.color_quantization import ColorQuantization
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid
from iqa_robust.testing.pictures import pictures


@given(colors=st.integers(2, 256), height=st.integers(1, 20), width=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_has_at_most_the_stated_colors(colors: int, height: int, width: int) -> None:
    y = ColorQuantization(colors=colors).purify(pictures(2, height, width))
    assert bool(on_8bit_grid(y).all())
    for image in y:
        assert len(torch.unique(image.flatten(1), dim=1).T) <= colors


def test_four_flat_colors_keep_their_place() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[:, 0, :4], x[:, 1, :, 4:] = 1, 200 / 255
    # A color of the palette is the mean of a branch of the octree; four branches leave four colors as they are.
    assert torch.equal(ColorQuantization(colors=4).purify(x), x)


def test_is_nearly_as_close_as_its_palette_allows() -> None:
    x = pictures(1, 48, 48)
    y = ColorQuantization(colors=16).purify(x)
    pixels = x[0].flatten(1).T.double().numpy()
    _, nearest = vq(pixels, np.unique(y[0].flatten(1).T.double().numpy(), axis=0))
    found = np.linalg.norm(pixels - y[0].flatten(1).T.double().numpy(), axis=1)
    # The branches of an octree are not the cells of their means, but close.
    assert nearest.mean() <= found.mean() <= 1.5 * nearest.mean()


def test_the_slope_is_one() -> None:
    x = pictures(1, 8, 8).requires_grad_(True)
    (slope,) = torch.autograd.grad(ColorQuantization().surrogate(x).sum(), x)
    assert torch.equal(slope, torch.ones_like(slope))


@pytest.mark.parametrize("colors", [1, 257, 16.0, True])
def test_refuses(colors: object) -> None:
    with pytest.raises(ContractError, match=r"^ColorQuantization: expected colors to be a whole number from 2 to 256"):
        ColorQuantization(colors=colors)  # type: ignore[arg-type]
