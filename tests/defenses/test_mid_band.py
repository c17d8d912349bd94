"""Mid-band filtering: SciPy's DCT with the JPEG order written down, and what it leaves of a block pattern."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import fft

from iqa_robust.defenses.filtering.mid_band import MidBand
from iqa_robust.errors import ContractError
from iqa_robust.testing import check_defense

FIRST_RANKS = [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2), (0, 3), (1, 2), (2, 1), (3, 0)]
"""The beginning of JPEG's order (ITU-T T.81, figure A.6), as (row, column)."""


def images(*shape: int) -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("rank", range(1, len(FIRST_RANKS)))
def test_removes_the_coefficient_of_a_rank(rank: int) -> None:
    x = images(2, 3, 32, 48)
    blocks = x.double().numpy().reshape(2, 3, 2, 16, 3, 16).swapaxes(3, 4)
    coefficients = fft.dctn(blocks, axes=(4, 5), norm="ortho")
    coefficients[(..., *FIRST_RANKS[rank])] = 0
    expected = fft.idctn(coefficients, axes=(4, 5), norm="ortho").swapaxes(3, 4).reshape(x.shape)
    purified = MidBand(low=rank, high=rank + 1).purify(x)
    np.testing.assert_allclose(purified.numpy(), expected, atol=1e-6)  # float32 sums of 256 terms of about 0.1


def test_the_default_band_has_the_middle_diagonals() -> None:
    """Ranks 96 to 159 are part of diagonal 13, the whole diagonals 14 to 16, and part of 17."""
    impulse = torch.full((1, 3, 16, 16), 0.5)
    impulse[..., 0, 0] = 0.6
    removed = (impulse - MidBand().purify(impulse))[0, 0].double().numpy()
    kept = np.abs(fft.dctn(removed, norm="ortho")) > 1e-6
    diagonals = np.add.outer(np.arange(16), np.arange(16))
    assert kept.sum() == 64
    assert [int(kept[diagonals == d].sum()) for d in (12, 13, 14, 15, 16, 17, 18)] == [0, 9, 15, 16, 15, 9, 0]


@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 33), (7, 50), (1, 1)])
def test_what_it_removed_stays_removed(height: int, width: int) -> None:
    """A projection on whole blocks; beside them the repeated border differs the second time."""
    x = images(2, 3, height, width)
    once = MidBand().purify(x)
    assert once.shape == x.shape
    top, left = (16 - height % 16) % 16 // 2, (16 - width % 16) % 16 // 2
    inner = (..., slice(16 - top if top else 0, None), slice(16 - left if left else 0, None))
    whole = tuple(slice(0, side // 16 * 16) for side in once[inner].shape[-2:])
    twice = MidBand().purify(once)
    torch.testing.assert_close(twice[inner][(..., *whole)], once[inner][(..., *whole)], rtol=0, atol=1e-6)


def test_a_flat_image_stays_as_it_is() -> None:
    x = torch.full((1, 3, 30, 45), 0.7)
    torch.testing.assert_close(MidBand().purify(x), x, rtol=0, atol=1e-6)


def test_white_keeps_its_slope() -> None:
    """Rounding may carry a white value above 1; the attacker must not lose it."""
    x = torch.ones(1, 3, 32, 32, requires_grad=True)
    (slope,) = torch.autograd.grad(MidBand().purify(x).sum(), x)
    torch.testing.assert_close(slope, torch.ones_like(slope), rtol=0, atol=1e-5)  # the band holds no mean


@pytest.mark.parametrize(("low", "high"), [(0, 5), (5, 5), (9, 257), (1.0, 5), (True, 5), ("1", 5)])
def test_refuses_what_is_no_band(low: object, high: object) -> None:
    with pytest.raises(ContractError, match=r"MidBand: expected whole ranks 1 <= low < high <= 256, got"):
        MidBand(low=low, high=high)  # type: ignore[arg-type]


def test_keeps_the_contract() -> None:
    check_defense(MidBand()).raise_if_failed()
