"""Rotate and flip: SciPy's rotation, and a half turn."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from iqa_robust.defenses.geometry.flip import Flip
from iqa_robust.defenses.geometry.rotate import Rotate, rotated
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import seeded
from iqa_robust.testing.pictures import pictures
from iqa_robust.testing.toy import ToyReference


@pytest.mark.parametrize("degrees", [-40.0, 3.3, 15.0, 90.0])
@pytest.mark.parametrize(("height", "width"), [(20, 31), (16, 16)])
def test_equals_scipy(degrees: float, height: int, width: int) -> None:
    x = pictures(1, height, width)
    found = rotated(x, torch.tensor([degrees]))[0].numpy()
    expected = ndimage.rotate(
        x[0].double().numpy(), degrees, axes=(1, 2), reshape=False, order=1, mode="grid-constant", cval=0
    )
    # Places of pixels are float32: 1e-5 of a pixel, times the steepest slope.
    assert np.allclose(found, expected, rtol=0, atol=2e-5)


def test_angles_are_uniform_and_belong_to_the_image() -> None:
    # A bright dot right of the center: its place tells the angle.
    x = torch.zeros(64, 3, 41, 41)
    x[:, :, 19:22, 35:38] = 1
    with seeded(range(64)):
        y = Rotate(limit=30.0).purify(x)
    with seeded([7]):
        assert torch.allclose(y[7:8], Rotate(limit=30.0).purify(x[7:8]), atol=1e-6)  # float32
    place = torch.arange(41.0) - 20
    mass = y[:, 0].sum(dim=(1, 2))
    down, right = (y[:, 0].sum(2) @ place) / mass, (y[:, 0].sum(1) @ place) / mass
    angles = torch.rad2deg(torch.atan2(-down, right))
    assert angles.abs().max() <= 30.5
    assert angles.min() < -20 < 20 < angles.max()  # misses with probability 2 (5/6)^64 = 2e-5, and the seeds are fixed


def test_corners_are_black() -> None:
    with seeded([3]):
        y = Rotate(limit=45.0).purify(torch.ones(1, 3, 32, 32))
    assert y[..., 0, 0].max() == 0
    assert y[..., 16, 16].min() == 1


def test_flip_is_a_half_turn() -> None:
    x = pictures(2, 9, 14)
    assert np.array_equal(Flip().purify(x).numpy(), np.rot90(x.numpy(), 2, axes=(2, 3)))
    assert torch.equal(Flip().purify(Flip().purify(x)), x)


@pytest.mark.parametrize("defense", [Flip(), Rotate()])
def test_refuses_full_reference_models(defense: Flip | Rotate) -> None:
    with pytest.raises(ContractError, match=r"changes the frame of the image"):
        defense.wrap(ToyReference())


@pytest.mark.parametrize("limit", [0, 181, None])
def test_refuses(limit: object) -> None:
    with pytest.raises(ContractError, match=r"^Rotate: expected limit to be a finite number > 0 and <= 180, got"):
        Rotate(limit=limit)  # type: ignore[arg-type]
