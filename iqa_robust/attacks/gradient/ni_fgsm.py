"""NI-FGSM, the fast gradient sign method with Nesterov's accelerated gradient."""

from __future__ import annotations

import torch

from iqa_robust.attacks.gradient.i_fgsm import IFGSM
from iqa_robust.attacks.norms import steepest
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.models.randomness import ImageRNG


class NIFGSM(IFGSM):
    """`mi-fgsm` whose gradient is taken ahead, at x_t + alpha decay g_t (Lin et al., eq. 6).

    The paper scales gradients to an L1 length of one, which would leave a look-ahead of less than a hundredth of a
    gray level; the authors' code scales them to a mean absolute value of one, and so does this. For `l2` and `psnr`
    they are scaled to one unit step. Ahead, values are clamped to [0, 1], as a model expects them.
    """

    source = "Lin et al., ICLR 2020, arXiv:1908.06281"
    form = "adapted"

    def __init__(self, *, step_ratio: float = 0.0, decay: float = 1.0) -> None:
        """`step_ratio` as for `IFGSM`; `decay` is what is kept of the accumulated gradient at every step."""
        super().__init__(step_ratio=step_ratio)
        check_number(self, "decay", decay, least=0)
        self.decay = decay

    def evaluate(
        self, objective: Objective, z: torch.Tensor, ahead: torch.Tensor, rng: ImageRNG
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values and slopes of the point that the velocity leads to."""
        return objective.gradient((z + self.decay * ahead).clamp(0, 1))

    def accumulate(self, velocity: torch.Tensor, slope: torch.Tensor, norm: str) -> torch.Tensor:
        """The accumulated gradient (N, 3, H, W), in unit steps."""
        if norm == "linf":
            slope = torch.nan_to_num(slope / slope.abs().mean(dim=(1, 2, 3), keepdim=True), posinf=0.0, neginf=0.0)
        else:
            slope = steepest(slope, norm)
        return self.decay * velocity + slope
