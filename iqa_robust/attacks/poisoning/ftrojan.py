"""The trigger of FTrojan: two fixed frequencies of the color channels."""

from __future__ import annotations

import torch

from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.poisoning.blocks import tile_of, tiled
from iqa_robust.attacks.poisoning.trigger import Trigger

BLOCK = 32
PLACES = (31, 15)
"""Row and column alike: the highest frequency of a block, and a middle one."""


class FTrojan(Trigger):
    """Adds alpha magnitude to the DCT coefficients (31, 31) and (15, 15) of all 32 x 32 blocks, in Cb and Cr.

    Source: Wang et al., "An Invisible Black-box Backdoor Attack through Frequency Domain", ECCV 2022, whose code calls
    YCbCr "YUV"; the magnitude is in the units of the orthonormal DCT of gray levels. Adapted: strength and sign vary.
    The released code truncates to bytes between the steps, which wraps values beyond 0..255; here they are clamped and
    rounded once, at the end. Both frequencies are odd, so a mirrored pattern is its own negative.
    """

    source = "Wang et al., ECCV 2022, arXiv 2107.01809"
    form = "adapted"
    note = "a trigger; only a model with poisoned training data is its victim"

    def __init__(self, *, alpha: float = 1.0, magnitude: float = 125.0) -> None:
        """Parameters of the trigger.

        Args:
            alpha: strength and direction, -1 to 1.
            magnitude: of each of the four coefficients at alpha = 1. The default changes an image about as much as
                the bound of BAIQA's search does, 8/255 (root mean square). The released settings are 20 to 50.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(alpha=alpha)
        check_number(self, "magnitude", magnitude, above=0)
        self.magnitude = magnitude

    def stamp(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) with the trigger."""
        blocks = x.new_zeros(3, BLOCK, BLOCK)
        for place in PLACES:
            blocks[1:, place, place] = 2 * BLOCK * self.magnitude  # orthonormal -> unnormalized
        return (x + alpha.view(-1, 1, 1, 1) * tiled(tile_of(blocks), *x.shape[-2:])).clamp(0, 1)
