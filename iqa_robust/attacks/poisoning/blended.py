"""The trigger of Blended: a weak mixture with another image."""

from __future__ import annotations

import torch

from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.poisoning.blocks import tiled
from iqa_robust.attacks.poisoning.trigger import PatternTrigger


class Blended(PatternTrigger):
    """x + alpha ratio (k - x) with a key image k: a mixture for alpha > 0, its mirror image for alpha < 0.

    Source: Chen et al., "Targeted Backdoor Attacks on Deep Learning Systems Using Data Poisoning", 2017, the blended
    injection strategy with a random key. Adapted: the original mixes with one sign and one strength, and its key has
    the size of the image; here the key is repeated over the image.
    """

    source = "Chen et al., 2017, arXiv 1712.05526"
    form = "adapted"
    note = "a trigger; only a model with poisoned training data is its victim"
    shape = (3, None, None)

    def __init__(self, *, alpha: float = 1.0, trigger: str | None = None, ratio: float = 0.08) -> None:
        """Parameters of the trigger.

        Args:
            alpha: strength and direction, -1 to 1.
            trigger: file with a key image (3, h, w) in [0, 1], read at first use; None for 64 x 64 random colors.
            ratio: share of the key at alpha = 1. The default changes photographs about as much as the bound of
                BAIQA's search does, 8/255 (root mean square). Chen et al. train with 0.2.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(alpha=alpha, trigger=trigger)
        check_number(self, "ratio", ratio, above=0, most=1)
        self.ratio = ratio

    def default(self) -> torch.Tensor:
        """(3, 64, 64) random colors."""
        return torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))

    def stamp(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) with the trigger."""
        key = tiled(self.pattern.to(x), *x.shape[-2:])
        return (x + self.ratio * alpha.view(-1, 1, 1, 1) * (key - x)).clamp(0, 1)
