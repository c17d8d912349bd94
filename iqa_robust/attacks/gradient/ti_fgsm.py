"""TI-FGSM, the translation-invariant fast gradient sign method."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.attacks.gradient.mi_fgsm import MIFGSM
from iqa_robust.attacks.parameters import check_whole
from iqa_robust.errors import ContractError


class TIFGSM(MIFGSM):
    """`mi-fgsm` along gradients smoothed by a Gaussian (Dong et al., TI-BIM with momentum; TI-BIM with `decay=0`).

    Smoothing stands for the mean gradient over translated images. The kernel is the authors': `kernel` pixels a side,
    a standard normal density from -3 to 3. Made for transfer: on the model that is attacked it is weaker, and the
    perturbation is smooth.
    """

    source = "Dong et al., CVPR 2019, arXiv:1904.02884"
    form = "adapted"

    def __init__(self, *, step_ratio: float = 0.25, decay: float = 1.0, kernel: int = 15) -> None:
        """`step_ratio` and `decay` as for `MIFGSM`; `kernel` in pixels, odd. Raises `ContractError`."""
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_whole(self, "kernel", kernel, least=3)
        if kernel % 2 == 0:
            raise ContractError(f"TIFGSM: expected kernel to be odd, got {kernel}.")
        self.kernel = kernel

    def accumulate(self, velocity: torch.Tensor, slope: torch.Tensor, norm: str) -> torch.Tensor:
        """The accumulated smooth gradient (N, 3, H, W)."""
        places = torch.linspace(-3, 3, self.kernel, dtype=slope.dtype, device=slope.device)
        line = torch.exp(-places.square() / 2)
        line = line / line.sum()
        half = self.kernel // 2
        smooth = F.conv2d(slope, line.view(1, 1, -1, 1).repeat(3, 1, 1, 1), padding=(half, 0), groups=3)
        smooth = F.conv2d(smooth, line.view(1, 1, 1, -1).repeat(3, 1, 1, 1), padding=(0, half), groups=3)
        return super().accumulate(velocity, smooth, norm)
