"""Climbs of torchattacks along a changed gradient: of transformed, noisy or neighboring images, or a blurred one.

Their aim is an image that also deceives another model. A score they can see they move less than a plain climb does.
"""

from __future__ import annotations

from typing import Any

import torch

from iqa_robust.attacks.adapters.libraries import radius
from iqa_robust.attacks.adapters.torchattacks import MomentumSteps, SignSteps, TorchattacksAttack
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.records import Budget


class DIFGSM(MomentumSteps):
    """`DIFGSM`: the gradient of an image shrunk and padded at random.

    The library makes the image a square of its width; of an image that is not square, the view undoes that.
    """

    source = "Xie et al., CVPR 2019, arXiv 1803.06978"
    library_class = "DIFGSM"
    least_side = 10

    def __init__(
        self,
        *,
        step_ratio: float = 0.25,
        decay: float = 0.0,
        resize_rate: float = 0.9,
        diversity_prob: float = 0.5,
    ) -> None:
        """Parameters of the search, the library's defaults.

        Args:
            step_ratio: as of `MomentumSteps`.
            decay: as of `MomentumSteps`.
            resize_rate: smallest size of the image inside its padding, in (0, 1).
            diversity_prob: share of the steps that look at a transformed image.
        """
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_number(self, "resize_rate", resize_rate, above=0, most=0.99)
        check_number(self, "diversity_prob", diversity_prob, least=0, most=1)
        self.resize_rate = resize_rate
        self.diversity_prob = diversity_prob

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps, decay and diversity."""
        return {
            **super().arguments(x, budget),
            "resize_rate": self.resize_rate,
            "diversity_prob": self.diversity_prob,
        }


class TIFGSM(DIFGSM):
    """`TIFGSM`: that gradient, blurred by a Gaussian of 15 pixels."""

    source = "Dong et al., CVPR 2019, arXiv 1904.02884"
    library_class = "TIFGSM"


class SINIFGSM(MomentumSteps):
    """`SINIFGSM`: the mean gradient of the image at halved contrasts, with Nesterov momentum."""

    source = "Lin et al., ICLR 2020, arXiv 1908.06281"
    library_class = "SINIFGSM"

    def __init__(self, *, step_ratio: float = 0.25, decay: float = 1.0, m: int = 5) -> None:
        """`m`: copies of the image, each half as bright as the one before; the others are those of `MomentumSteps`."""
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_whole(self, "m", m, least=1)
        self.m = m

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps, decay and copies."""
        return {**super().arguments(x, budget), "m": self.m}

    def passes(self) -> int:
        """`m`."""
        return self.m


class VMIFGSM(MomentumSteps):
    """`VMIFGSM`: momentum on a gradient corrected by those of random neighbors."""

    source = "Wang, He, CVPR 2021, arXiv 2103.15571"
    library_class = "VMIFGSM"

    def __init__(self, *, step_ratio: float = 0.25, decay: float = 1.0, neighbors: int = 5, beta: float = 1.5) -> None:
        """Parameters of the search, the library's defaults.

        Args:
            step_ratio: as of `MomentumSteps`.
            decay: as of `MomentumSteps`.
            neighbors: images drawn around each point, the paper's N.
            beta: how far they lie, in units of eps.
        """
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_whole(self, "neighbors", neighbors, least=1)
        check_number(self, "beta", beta, above=0)
        self.neighbors = neighbors
        self.beta = beta

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps, decay and neighbors."""
        return {**super().arguments(x, budget), "N": self.neighbors, "beta": self.beta}

    def passes(self) -> int:
        """One, and one per neighbor."""
        return 1 + self.neighbors


class VNIFGSM(VMIFGSM):
    """`VNIFGSM`: the same with Nesterov momentum."""

    library_class = "VNIFGSM"


class PIFGSM(TorchattacksAttack):
    """`PIFGSM`: long steps; what they overshoot is spread over the neighboring pixels."""

    norms = ("linf",)
    source = "Gao et al., ECCV 2020, arXiv 2007.06765"
    library_class = "PIFGSM"

    def __init__(self, *, amplification: float = 10.0) -> None:
        """`amplification`: a step is this times eps over the number of steps."""
        check_number(self, "amplification", amplification, above=0)
        self.amplification = amplification

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, number of steps and their length."""
        return {"max_epsilon": budget.eps, "num_iter_set": budget.steps, "amplification": self.amplification}


class PIFGSMPP(PIFGSM):
    """`PIFGSMPP`: the same on a gradient blurred by a Gaussian of three pixels."""

    source = "Gao et al., 2020, arXiv 2012.15503"
    library_class = "PIFGSMPP"

    def __init__(self, *, amplification: float = 10.0, project_factor: float = 0.8) -> None:
        """`project_factor`: share of the overshoot that is spread; the amplification is that of `PIFGSM`."""
        super().__init__(amplification=amplification)
        check_number(self, "project_factor", project_factor, least=0)
        self.project_factor = project_factor

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, number of steps, their length and the share spread."""
        return {**super().arguments(x, budget), "project_factor": self.project_factor}


class PGDRS(SignSteps):
    """`PGDRS`: the gradient of the mean prediction over noisy copies, made for smoothed models."""

    source = "Salman et al., NeurIPS 2019, arXiv 1906.04584"
    library_class = "PGDRS"

    def __init__(self, *, step_ratio: float = 0.25, noise_sd: float = 0.01, copies: int = 5) -> None:
        """Parameters of the search.

        Args:
            step_ratio: as of `SignSteps`.
            noise_sd: standard deviation of the noise, of full scale. The library's 0.5 serves classifiers trained
                on such noise; on a quality score it is another image.
            copies: noisy images per step.
        """
        super().__init__(step_ratio=step_ratio)
        check_number(self, "noise_sd", noise_sd, least=0)
        check_whole(self, "copies", copies, least=1)
        self.noise_sd = noise_sd
        self.copies = copies

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps and noise."""
        return {**super().arguments(x, budget), "noise_sd": self.noise_sd, "noise_batch_size": self.copies}

    def passes(self) -> int:
        """`copies`."""
        return self.copies


class PGDRSL2(PGDRS):
    """`PGDRSL2`: the same with normalized gradient steps."""

    norms = ("l2", "psnr")
    library_class = "PGDRSL2"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps and noise."""
        eps = radius(x, budget)
        return {**super().arguments(x, budget), "eps": eps, "alpha": self.step_ratio * eps, "eps_for_division": 1e-20}
