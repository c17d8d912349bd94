"""Attacks of torchattacks (Kim, arXiv 2010.01950; MIT): the base of its adapters, and its climbs in small steps."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch
from torch import nn

from iqa_robust.attacks.adapters.libraries import LibraryAttack, quiet_import, radius
from iqa_robust.attacks.adapters.views import Cropped, View
from iqa_robust.attacks.parameters import check_flag, check_number, check_whole
from iqa_robust.records import Budget

with quiet_import():
    import torchattacks


class TorchattacksAttack(LibraryAttack):
    """The torchattacks class `library_class`, built with `arguments`."""

    library_class: ClassVar[str]

    @abstractmethod
    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Keyword arguments of the library's class for one image `x` (1, 3, H, W)."""

    def build(self, network: nn.Module, x: torch.Tensor, budget: Budget) -> Any:
        """The library's attack on `network`."""
        return getattr(torchattacks, self.library_class)(network, **self.arguments(x, budget))

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        return self.build(view, x, budget)(x, torch.zeros(1, dtype=torch.int64, device=x.device))

    def run_on(self, crop: Cropped, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """The same for an attack on the middle of the image."""
        attack = self.build(crop, x, budget)
        return crop.pasted(attack(x[crop.middle], torch.zeros(1, dtype=torch.int64, device=x.device)))


class SignSteps(TorchattacksAttack):
    """What the attacks share that take `budget.steps` steps of one length along a sign."""

    norms: ClassVar[tuple[str, ...]] = ("linf",)

    def __init__(self, *, step_ratio: float = 0.25) -> None:
        """`step_ratio`: the step as a fraction of eps; the library's own defaults make it 2/8."""
        check_number(self, "step_ratio", step_ratio, above=0)
        self.step_ratio = step_ratio

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step and number of steps."""
        return {"eps": budget.eps, "alpha": self.step_ratio * budget.eps, "steps": budget.steps}


class MomentumSteps(SignSteps):
    """What those among them share that add up their gradients, each of mean size one."""

    def __init__(self, *, step_ratio: float = 0.25, decay: float = 1.0) -> None:
        """`decay`: what is left of the sum after a step; the step is that of `SignSteps`."""
        super().__init__(step_ratio=step_ratio)
        check_number(self, "decay", decay, least=0)
        self.decay = decay

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps and decay."""
        return {**super().arguments(x, budget), "decay": self.decay}


class FGSM(TorchattacksAttack):
    """`FGSM`: one step of length eps along the sign of the gradient."""

    norms = ("linf",)
    source = "Goodfellow, Shlens, Szegedy, ICLR 2015, arXiv 1412.6572"
    library_class = "FGSM"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """The radius."""
        return {"eps": budget.eps}

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One gradient per direction; `away` compares the two ends."""
        return (4, 2) if goal == "away" else (1, 1)


class FFGSM(FGSM):
    """`FFGSM`: one step longer than eps from a random start."""

    source = "Wong, Rice, Kolter, ICLR 2020, arXiv 2001.03994"
    library_class = "FFGSM"

    def __init__(self, *, step_ratio: float = 1.25) -> None:
        """`step_ratio`: the step as a fraction of eps; the library's own defaults make it 10/8."""
        check_number(self, "step_ratio", step_ratio, above=0)
        self.step_ratio = step_ratio

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius and step."""
        return {"eps": budget.eps, "alpha": self.step_ratio * budget.eps}


class BIM(SignSteps):
    """`BIM`: steps along the sign from the clean image."""

    source = "Kurakin, Goodfellow, Bengio, ICLR workshop 2017, arXiv 1607.02533"
    library_class = "BIM"


class RFGSM(SignSteps):
    """`RFGSM`: the same from a random corner one step away."""

    source = "Tramer et al., ICLR 2018, arXiv 1705.07204"
    library_class = "RFGSM"


class PGD(SignSteps):
    """`PGD`: steps along the sign from a random start."""

    source = "Madry et al., ICLR 2018, arXiv 1706.06083"
    library_class = "PGD"

    def __init__(self, *, random_start: bool = True, step_ratio: float = 0.25) -> None:
        """`random_start`: from a uniform draw instead of the clean image; the step is that of `SignSteps`."""
        super().__init__(step_ratio=step_ratio)
        check_flag(self, "random_start", random_start)
        self.random_start = random_start

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps and start."""
        return {**super().arguments(x, budget), "random_start": self.random_start}


class EOTPGD(PGD):
    """`EOTPGD`: every step along the mean of several gradients; models without randomness need one."""

    source = "Zimmermann, 2019, arXiv 1907.00895"
    library_class = "EOTPGD"

    def __init__(self, *, random_start: bool = True, step_ratio: float = 0.25, eot_iter: int = 2) -> None:
        """`eot_iter`: gradients per step, on top of the budget's `eot`; the others are those of `PGD`."""
        super().__init__(random_start=random_start, step_ratio=step_ratio)
        check_whole(self, "eot_iter", eot_iter, least=1)
        self.eot_iter = eot_iter

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps, start and gradients per step."""
        return {**super().arguments(x, budget), "eot_iter": self.eot_iter}

    def passes(self) -> int:
        """`eot_iter`."""
        return self.eot_iter


class TPGD(SignSteps):
    """`TPGD`: raises the divergence of the prediction from that of the clean image, so it only knows `away`.

    It sets off in the direction of a little noise and never tries the other one.
    """

    goals = ("away",)
    two_sided = True
    source = "Zhang et al., ICML 2019, arXiv 1901.08573"
    library_class = "TPGD"

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step, and one for the clean prediction."""
        return budget.steps + 1, budget.steps


class MIFGSM(MomentumSteps):
    """`MIFGSM`: the gradients add up."""

    source = "Dong et al., CVPR 2018, arXiv 1710.06081"
    library_class = "MIFGSM"


class NIFGSM(MomentumSteps):
    """`NIFGSM`: the gradients add up, each taken where the sum would lead."""

    source = "Lin et al., ICLR 2020, arXiv 1908.06281"
    library_class = "NIFGSM"


class UPGD(MomentumSteps):
    """`UPGD`: momentum, a random start and several gradients a step, as wanted."""

    source = "Kim, torchattacks 3.5.1"
    library_class = "UPGD"

    def __init__(
        self, *, step_ratio: float = 0.25, decay: float = 1.0, random_start: bool = True, eot_iter: int = 1
    ) -> None:
        """As of `MomentumSteps` and `EOTPGD`; without a random start and with one gradient it is `MIFGSM`."""
        super().__init__(step_ratio=step_ratio, decay=decay)
        check_flag(self, "random_start", random_start)
        check_whole(self, "eot_iter", eot_iter, least=1)
        self.random_start = random_start
        self.eot_iter = eot_iter

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps, decay, start and gradients per step."""
        return {**super().arguments(x, budget), "random_start": self.random_start, "eot_iter": self.eot_iter}

    def passes(self) -> int:
        """`eot_iter`."""
        return self.eot_iter


class Jitter(PGD):
    """`Jitter`: raises the squared error of a noisy softmax of the rescaled logits."""

    source = "Schwinn et al., 2021, arXiv 2105.10304"
    library_class = "Jitter"

    def __init__(
        self, *, random_start: bool = True, step_ratio: float = 0.25, scale: float = 1.0, std: float = 0.1
    ) -> None:
        """Parameters of the search.

        Args:
            random_start: as of `PGD`.
            step_ratio: as of `PGD`.
            scale: factor of the logits. The library's 10 saturates the softmax of two classes; the noise would then
                decide about the sign.
            std: standard deviation of the noise on the softmax.
        """
        super().__init__(random_start=random_start, step_ratio=step_ratio)
        check_number(self, "scale", scale, above=0)
        check_number(self, "std", std, least=0)
        self.scale = scale
        self.std = std

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps, start, scale and noise."""
        return {**super().arguments(x, budget), "scale": self.scale, "std": self.std}


class PGDL2(TorchattacksAttack):
    """`PGDL2`: normalized gradient steps from a random start."""

    norms = ("l2", "psnr")
    source = PGD.source
    library_class = "PGDL2"

    def __init__(self, *, random_start: bool = True, step_ratio: float = 0.2) -> None:
        """`step_ratio`: the step as a fraction of the radius, 0.2 by the library's defaults; the start as of `PGD`."""
        check_flag(self, "random_start", random_start)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.random_start = random_start
        self.step_ratio = step_ratio

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps and start."""
        eps = radius(x, budget)
        return {
            "eps": eps,
            "alpha": self.step_ratio * eps,
            "steps": budget.steps,
            "random_start": self.random_start,
            "eps_for_division": 1e-20,  # the library's 1e-10 would shorten the steps on a flat model
        }
