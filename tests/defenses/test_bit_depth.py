"""Bit depth: rounding to 2^bits levels, differentiated as the identity."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.defenses.quantization.bit_depth import BitDepth
from iqa_robust.errors import ContractError

RAMP = torch.arange(256, dtype=torch.float32).div(255).expand(1, 3, 2, 256).contiguous()


@given(st.integers(1, 8))
def test_every_level_goes_to_the_nearest(bits: int) -> None:
    levels = np.linspace(0, 1, 2**bits)
    purified = BitDepth(bits=bits).purify(RAMP)[0, 0, 0].numpy()
    nearest = np.abs(RAMP[0, 0, 0].numpy()[:, None] - levels).min(axis=1)
    # float32: the levels are multiples of 1 / (2^bits - 1) up to 6e-8
    assert np.abs(purified[:, None] - levels).min(axis=1).max() < 1e-6
    assert np.abs(purified - RAMP[0, 0, 0].numpy()) == pytest.approx(nearest, abs=1e-6)
    assert len(np.unique(purified)) == 2**bits


def test_eight_bits_keep_an_8_bit_image() -> None:
    assert torch.equal(BitDepth(bits=8).purify(RAMP), RAMP)


def test_the_surrogate_is_the_identity() -> None:
    assert torch.equal(BitDepth(bits=2).surrogate(RAMP), RAMP)


@pytest.mark.parametrize("bits", [0, 9, 4.0, True, None])
def test_refuses_bits_out_of_range(bits: object) -> None:
    with pytest.raises(ContractError, match=r"BitDepth: expected bits to be a whole number from 1 to 8, got"):
        BitDepth(bits=bits)  # type: ignore[arg-type]
