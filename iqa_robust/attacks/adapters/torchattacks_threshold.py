"""Attacks of torchattacks that look for the smallest perturbation that changes a class."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from iqa_robust.attacks.adapters.libraries import ThresholdAttack, radius
from iqa_robust.attacks.adapters.torchattacks import TorchattacksAttack
from iqa_robust.attacks.adapters.torchattacks_adaptive import BOX
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.records import Budget


class CW(ThresholdAttack, TorchattacksAttack):
    """`CW`: Adam on the squared length plus c times what is missing to the threshold."""

    norms = ("l2", "psnr")
    source = "Carlini, Wagner, S&P 2017, arXiv 1608.04644"
    library_class = "CW"

    def __init__(self, *, threshold: float = 0.2, c: float = 1000.0, lr: float = 0.01) -> None:
        """Parameters of the search.

        Args:
            threshold: as of `ThresholdAttack`.
            c: weight of a share of the score range against the squared L2 length.
            lr: first step of Adam, in the space of the arc hyperbolic tangent.
        """
        super().__init__(threshold=threshold)
        check_number(self, "c", c, above=0)
        check_number(self, "lr", lr, above=0)
        self.c = c
        self.lr = lr

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Weight, number of steps and their length."""
        return {"c": self.c, "steps": budget.steps, "lr": self.lr}


class DeepFool(ThresholdAttack, TorchattacksAttack):
    """`DeepFool`: steps to where the linearized objective passes the threshold."""

    norms = ("l2", "psnr")
    source = "Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016, arXiv 1511.04599"
    library_class = "DeepFool"

    def __init__(self, *, threshold: float = 0.2, overshoot: float = 0.02) -> None:
        """`overshoot`: how much longer every step is; the threshold is that of `ThresholdAttack`."""
        super().__init__(threshold=threshold)
        check_number(self, "overshoot", overshoot, least=0)
        self.overshoot = overshoot

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Number of steps and overshoot."""
        return {"steps": budget.steps, "overshoot": self.overshoot}


class FAB(ThresholdAttack, TorchattacksAttack):
    """`FAB`: steps to the linearized threshold that stay close to the clean image."""

    norms = ("linf", "l2", "psnr")
    source = "Croce, Hein, ICML 2020, arXiv 1907.02044"
    library_class = "FAB"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball and number of steps."""
        return {"norm": BOX[budget.norm], "eps": radius(x, budget), "steps": budget.steps, "n_classes": 2}

    def passes(self) -> int:
        """A linearization and a look where it leads."""
        return 2


class EADL1(ThresholdAttack, TorchattacksAttack):
    """`EADL1`: shrinking gradient steps on squared length, absolute length and what is missing to the threshold.

    The library's first step moves its own copy of the clean image along, so it measures lengths from there.
    """

    norms: ClassVar[tuple[str, ...]] = ("l2", "psnr", "l0")
    source = "Chen et al., AAAI 2018, arXiv 1709.04114"
    library_class = "EADL1"

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        lr: float = 0.01,
        beta: float = 0.001,
        initial_const: float = 100.0,
        searches: int = 3,
    ) -> None:
        """Parameters of the search.

        Args:
            threshold: as of `ThresholdAttack`.
            lr: first step along the gradient.
            beta: weight of the absolute length, and the change below which a value stays as it is.
            initial_const: first weight of a share of the score range against the squared L2 length.
            searches: weights that are tried, `budget.steps` steps each.
        """
        super().__init__(threshold=threshold)
        for name, value in (("lr", lr), ("beta", beta), ("initial_const", initial_const)):
            check_number(self, name, value, above=0)
        check_whole(self, "searches", searches, least=1)
        self.lr = lr
        self.beta = beta
        self.initial_const = initial_const
        self.searches = searches

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Steps and weights."""
        return {
            "lr": self.lr,
            "beta": self.beta,
            "initial_const": self.initial_const,
            "binary_search_steps": self.searches,
            "max_iterations": budget.steps,
            "abort_early": False,
        }

    def passes(self) -> int:
        """A gradient and a look where it leads, for every weight."""
        return 2 * self.searches


class EADEN(EADL1):
    """`EADEN`: the same, of which the image with the smallest sum of both lengths counts."""

    norms = ("l2", "psnr")
    library_class = "EADEN"
