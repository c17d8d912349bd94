"""The trigger of BAIQA: the same mid frequencies added to every block of the image."""

from __future__ import annotations

from functools import cache

import torch

from iqa_robust.attacks.poisoning.blocks import tile_of, tiled, zigzag
from iqa_robust.attacks.poisoning.trigger import PatternTrigger
from iqa_robust.errors import ContractError

BLOCK = 16
RANKS = slice(96, 160)
"""The 64 middle ones of the 256 ranks of a block."""
ORDERS = ("zigzag", "released")
DEFAULT_RMS = 8 / 255
"""Root mean square change by the default pattern at alpha = 1 where nothing is clipped: a PSNR of 30 dB."""


class BAIQA(PatternTrigger):
    """Adds alpha t to 64 middle DCT coefficients of all 16 x 16 blocks, in Y, Cb and Cr.

    t (3, 64) holds strengths in the units of the unnormalized DCT-II of gray levels; `iqa_robust.training` searches
    for one (a recipe with `task = "trigger"`). Without a file it is random, uniform as the search begins, and as large
    as the search's bound of 8/255.

    Source: Yu et al., "Backdoor Attacks against No-Reference Image Quality Assessment Models via a Scalable Trigger",
    AAAI 2025, section on trigger injection. Where the image is no multiple of 16, the blocks are those of an image
    padded evenly on both sides, as in the released code.

    Corrected: the released code takes a table of zigzag ranks for a table of indices, so that only 6 of its 64
    coefficients are the middle ones the paper means. `order="released"` uses those, for its trigger files.
    """

    source = "Yu et al., AAAI 2025, arXiv 2412.07277"
    form = "corrected"
    note = "a trigger; only a model with poisoned training data is its victim"
    shape = (3, 64)

    def __init__(self, *, alpha: float = 1.0, trigger: str | None = None, order: str = "zigzag") -> None:
        """Parameters of the trigger.

        Args:
            alpha: strength and direction, -1 to 1.
            trigger: file with the strengths t (3, 64), read at first use; None for the random ones.
            order: `"zigzag"`, or `"released"` for the coefficients of the released code.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(alpha=alpha, trigger=trigger)
        if order not in ORDERS:
            raise ContractError(f"BAIQA: expected order to be one of {', '.join(ORDERS)}, got {order!r}.")
        self.order = order

    def default(self) -> torch.Tensor:
        """(3, 64) random strengths."""
        strengths = 2 * torch.rand(3, 64, generator=torch.Generator().manual_seed(0)) - 1
        return strengths * DEFAULT_RMS / tile_of(coefficients(strengths, self.order)).square().mean().sqrt()

    def stamp(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) with the trigger."""
        return stamped(x, self.pattern.to(x), alpha, self.order)


def stamped(x: torch.Tensor, strengths: torch.Tensor, alpha: torch.Tensor, order: str = "zigzag") -> torch.Tensor:
    """Images (N, 3, H, W) with the strengths (3, 64) times alpha (N,), clamped; differentiable in all three."""
    pattern = tiled(tile_of(coefficients(strengths, order)), *x.shape[-2:])
    return (x + alpha.view(-1, 1, 1, 1) * pattern).clamp(0, 1)


def coefficients(strengths: torch.Tensor, order: str) -> torch.Tensor:
    """(3, 64) strengths at their places in blocks (3, 16, 16)."""
    places = torch.tensor(positions(order), device=strengths.device)
    return strengths.new_zeros(3, BLOCK * BLOCK).index_copy(1, places, strengths).view(3, BLOCK, BLOCK)


@cache
def positions(order: str) -> tuple[int, ...]:
    """Indices row * 16 + column of the 64 coefficients, in the order of the strengths."""
    by_rank = zigzag(BLOCK)
    if order == "released":
        ranks = {index: rank for rank, index in enumerate(by_rank)}
        by_rank = [ranks[index] for index in range(BLOCK * BLOCK)]
    return tuple(by_rank[RANKS])
