"""MI-FGSM, the fast gradient sign method with momentum."""

from __future__ import annotations

import torch

from iqa_robust.attacks.gradient.i_fgsm import IFGSM
from iqa_robust.attacks.norms import unit_l1
from iqa_robust.attacks.parameters import check_flag, check_number


class MIFGSM(IFGSM):
    """`i-fgsm` along the accumulated gradient g_{t+1} = decay g_t + gradient / |gradient|_1 (Dong et al., eq. 6).

    The code of the MSU benchmark leaves the normalization out, so that early and steep gradients outweigh the
    others; `normalize=False` is that form, with `step_ratio=0.1` for its step of 1/255 within 10/255.
    """

    source = "Dong et al., CVPR 2018, arXiv:1710.06081; on IQA: Antsiferova et al., AAAI 2024, arXiv:2310.06958"
    form = "corrected"

    def __init__(self, *, step_ratio: float = 0.25, decay: float = 1.0, normalize: bool = True) -> None:
        """Parameters of the search.

        Args:
            step_ratio: as for `IFGSM`.
            decay: what is kept of the accumulated gradient at every step.
            normalize: whether a gradient is scaled to an L1 length of one before it is added.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        super().__init__(step_ratio=step_ratio)
        check_number(self, "decay", decay, least=0)
        check_flag(self, "normalize", normalize)
        self.decay = decay
        self.normalize = normalize

    def accumulate(self, velocity: torch.Tensor, slope: torch.Tensor, norm: str) -> torch.Tensor:
        """The accumulated gradient (N, 3, H, W)."""
        if self.normalize:
            slope = unit_l1(slope)
        return self.decay * velocity + torch.nan_to_num(slope, posinf=0.0, neginf=0.0)
