"""AMI-FGSM, MI-FGSM with a bound that depends on the image's own quality."""

from __future__ import annotations

import torch

from iqa_robust.attacks.gradient.mi_fgsm import MIFGSM
from iqa_robust.attacks.gradient.niqe import niqe
from iqa_robust.attacks.parameters import check_number
from iqa_robust.images import LEVELS
from iqa_robust.records import Budget


class AMIFGSM(MIFGSM):
    """`mi-fgsm` within eps = strength / NIQE(x), at most the budget: a picture of poor quality is changed less.

    The MSU benchmark's page states eps = 1 / NIQE; its code computes no NIQE and has no bound at all. A later
    benchmark of the same group lists a parameter K for it, 0.01 to 5 with 0.5 by default, without its code; that it is
    the numerator is our reading. In shares of full scale, with a NIQE of 3 to 10, the numerator 1 or 0.5 means more
    than 12/255, so that a smaller budget is all that counts and the attack is `mi-fgsm`. The default of 0.05 means
    about 4/255 for a good picture and 1/255 for a poor one.

    For `linf` the bound is rounded down to whole gray levels, as the final image has them, but not below one. For `l2`
    it bounds the root mean square change, as for `psnr`.
    """

    source = "the methodology page of Antsiferova et al., AAAI 2024, arXiv:2310.06958"
    form = "reconstructed"
    note = "reconstruction: eps = K / NIQE(x), capped at the budget; NIQE with statistics of our own fit"

    def __init__(self, *, strength: float = 0.05, step_ratio: float = 0.25, decay: float = 1.0) -> None:
        """`strength` is the numerator, in shares of full scale; the others are those of `MIFGSM`."""
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_number(self, "strength", strength, above=0)
        self.strength = strength

    def radius(self, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """(N,) the bound of every image."""
        bound = self.strength / niqe(x)
        if budget.norm == "linf":
            bound = torch.floor(bound * LEVELS).clamp_min(1) / LEVELS
        if budget.norm == "l2":
            bound = bound * x[0].numel() ** 0.5
        return bound.clamp(max=budget.eps)
