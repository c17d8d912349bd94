"""Fewer gray levels before the model."""

from __future__ import annotations

import torch

from iqa_robust.defenses.base import Purifier
from iqa_robust.errors import ContractError


class BitDepth(Purifier):
    """Every value rounded to the nearest of 2^bits levels, evenly spaced from 0 to 1.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: identity. The slope of rounding is zero almost everywhere, but over many steps it follows the
    identity.
    Source: feature squeezing by color depth, Xu, Evans & Qi 2018, section III; BPDA, Athalye et al. 2018.

    Args:
        bits: per channel, 1 to 8.

    Raises:
        ContractError: `bits` is not a whole number from 1 to 8.
    """

    source = "Xu, Evans, Qi, NDSS 2018, arXiv:1704.01155"
    form = "adapted"

    def __init__(self, *, bits: int = 4) -> None:
        if isinstance(bits, bool) or not isinstance(bits, int) or not 1 <= bits <= 8:
            raise ContractError(f"BitDepth: expected bits to be a whole number from 1 to 8, got {bits!r}.")
        self.bits = bits

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) with 2^bits levels per channel."""
        steps = 2**self.bits - 1
        return torch.round(x * steps) / steps

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The identity."""
        return x
