"""The image convention: what is accepted, and the 8-bit grid."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.errors import ContractError
from iqa_robust.images import check_images, from_uint8, on_8bit_grid, to_8bit_grid, to_uint8


@given(st.integers(0, 255))
def test_every_level_survives_the_round_trip(level: int) -> None:
    image = torch.full((1, 3, 2, 2), level, dtype=torch.uint8)
    assert to_uint8(from_uint8(image)).equal(image)
    assert bool(on_8bit_grid(from_uint8(image)).all())


@given(st.floats(0, 1, width=32))
def test_rounding_is_to_the_nearest_level(value: float) -> None:
    got = to_8bit_grid(torch.full((1, 3, 1, 1), value)).flatten()[0].item()
    nearest = min(range(256), key=lambda level: abs(level / 255 - value)) / 255
    # At a tie both neighbors are half a level away; float32 spacing near 1 is 6e-8.
    assert abs(got - value) <= abs(nearest - value) + 1e-7


def test_rounding_does_not_shift_the_mean_as_truncation_does() -> None:
    image = torch.rand(1, 3, 256, 256, generator=torch.Generator().manual_seed(0))
    # Rounding errors are uniform in +-1/510; the mean of 196,608 of them has a standard deviation of 2.6e-6.
    assert abs((to_8bit_grid(image) - image).mean().item()) < 2e-5
    truncated = torch.floor(image * 255) / 255
    assert (truncated - image).mean().item() == pytest.approx(-0.5 / 255, rel=0.02)


@pytest.mark.parametrize(
    ("bad", "sentence"),
    [
        (np.zeros((1, 3, 2, 2)), "images: expected a float32 tensor (N, 3, H, W), got ndarray."),
        (torch.zeros(3, 2, 2), "images: expected shape (N, 3, H, W) with N, H, W >= 1, got (3, 2, 2)."),
        (torch.zeros(1, 1, 2, 2), "images: expected shape (N, 3, H, W) with N, H, W >= 1, got (1, 1, 2, 2)."),
        (
            torch.zeros(1, 3, 2, 2, dtype=torch.float64),
            "images: expected dtype float32, got torch.float64; convert with `.float()`.",
        ),
        (torch.full((1, 3, 2, 2), torch.nan), "images: expected finite values, got NaN or infinity."),
        (
            torch.full((1, 3, 2, 2), 7.0),
            "images: expected values in [0, 1], got [7, 7]; divide 8-bit values by 255.",
        ),
    ],
)
def test_refusals_say_what_was_expected(bad: object, sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        check_images(bad)  # type: ignore[arg-type]
    assert str(caught.value) == sentence
