"""Attacks of ART that look, with gradients, for the smallest perturbation that changes a class."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from iqa_robust.attacks import sparse
from iqa_robust.attacks.adapters.art import LABELS, ARTAttack
from iqa_robust.attacks.adapters.libraries import ThresholdAttack
from iqa_robust.attacks.adapters.views import View
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.records import Budget


class DeepFool(ThresholdAttack, ARTAttack):
    """`DeepFool`: steps to where the linearized objective passes the threshold."""

    norms = ("l2", "psnr")
    source = "Moosavi-Dezfooli, Fawzi, Frossard, CVPR 2016, arXiv 1511.04599"
    library_class = "DeepFool"

    def __init__(self, *, threshold: float = 0.2, overshoot: float = 0.02) -> None:
        """`overshoot`: how much longer the whole way is; the threshold is that of `ThresholdAttack`."""
        super().__init__(threshold=threshold)
        check_number(self, "overshoot", overshoot, least=0)
        self.overshoot = overshoot

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Number of steps and overshoot."""
        return {"max_iter": budget.steps, "epsilon": self.overshoot, "nb_grads": 2, "verbose": False}

    def passes(self) -> int:
        """A linearization and a look where it leads."""
        return 2


class CarliniL2Method(ThresholdAttack, ARTAttack):
    """`CarliniL2Method`: line searches on the squared length plus c times what is missing to the threshold."""

    norms = ("l2", "psnr")
    source = "Carlini, Wagner, S&P 2017, arXiv 1608.04644"
    library_class = "CarliniL2Method"

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        learning_rate: float = 0.01,
        initial_const: float = 100.0,
        searches: int = 3,
    ) -> None:
        """Parameters of the search.

        Args:
            threshold: as of `ThresholdAttack`.
            learning_rate: first step, in the space of the arc hyperbolic tangent.
            initial_const: first weight of a share of the score range against the squared L2 length.
            searches: weights that are tried, `budget.steps` steps each.
        """
        super().__init__(threshold=threshold)
        check_number(self, "learning_rate", learning_rate, above=0)
        check_number(self, "initial_const", initial_const, above=0)
        check_whole(self, "searches", searches, least=1)
        self.learning_rate = learning_rate
        self.initial_const = initial_const
        self.searches = searches

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Weights, steps and their length."""
        return {
            "learning_rate": self.learning_rate,
            "initial_const": self.initial_const,
            "binary_search_steps": self.searches,
            "max_iter": budget.steps,
            "verbose": False,
        }

    def passes(self) -> int:
        """Two gradients and about five looks along the line, for every weight."""
        return 7 * self.searches


class CarliniLInfMethod(ThresholdAttack, ARTAttack):
    """`CarliniLInfMethod`: Adam on what is missing to the threshold plus what exceeds a shrinking bound.

    ART leaves the weight of the first part out of its gradient, so the weights it would try make no difference: one
    is enough.
    """

    norms = ("linf",)
    source = "Carlini, Wagner, S&P 2017, arXiv 1608.04644"
    library_class = "CarliniLInfMethod"

    def __init__(self, *, threshold: float = 0.2, learning_rate: float = 0.01, decrease_factor: float = 0.9) -> None:
        """Parameters of the search.

        Args:
            threshold: as of `ThresholdAttack`.
            learning_rate: first step of Adam, in the space of the arc hyperbolic tangent.
            decrease_factor: the next bound as a fraction of the largest change so far.
        """
        super().__init__(threshold=threshold)
        check_number(self, "learning_rate", learning_rate, above=0)
        check_number(self, "decrease_factor", decrease_factor, above=0, most=0.99)
        self.learning_rate = learning_rate
        self.decrease_factor = decrease_factor

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Steps and their length, and the bounds."""
        return {
            "learning_rate": self.learning_rate,
            "decrease_factor": self.decrease_factor,
            "initial_const": 1.0,
            "largest_const": 1.5,
            "max_iter": budget.steps,
            "verbose": False,
        }

    def passes(self) -> int:
        """Two gradients and two looks, for about ten bounds."""
        return 40


class ElasticNet(ThresholdAttack, ARTAttack):
    """`ElasticNet`: shrinking gradient steps on squared length, absolute length and what is missing."""

    norms = ("l2", "psnr")
    source = "Chen et al., AAAI 2018, arXiv 1709.04114"
    library_class = "ElasticNet"

    def __init__(
        self,
        *,
        threshold: float = 0.2,
        learning_rate: float = 0.01,
        beta: float = 0.001,
        initial_const: float = 100.0,
        searches: int = 3,
    ) -> None:
        """Parameters of the search.

        Args:
            threshold: as of `ThresholdAttack`.
            learning_rate: first step along the gradient.
            beta: weight of the absolute length, and the change below which a value stays as it is.
            initial_const: first weight of a share of the score range against the squared L2 length.
            searches: weights that are tried, `budget.steps` steps each.
        """
        super().__init__(threshold=threshold)
        for name, value in (("learning_rate", learning_rate), ("beta", beta), ("initial_const", initial_const)):
            check_number(self, name, value, above=0)
        check_whole(self, "searches", searches, least=1)
        self.learning_rate = learning_rate
        self.beta = beta
        self.initial_const = initial_const
        self.searches = searches

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Steps and weights."""
        return {
            "learning_rate": self.learning_rate,
            "beta": self.beta,
            "initial_const": self.initial_const,
            "binary_search_steps": self.searches,
            "max_iter": budget.steps,
            "verbose": False,
        }

    def passes(self) -> int:
        """Two gradients and two looks, for every weight."""
        return 4 * self.searches


class SaliencyMapMethod(ARTAttack):
    """`SaliencyMapMethod` (JSMA): the two values of the largest slope jump to the end of their range, again and again.

    No class ever changes, so it goes on until the budget is used: `budget.steps` pairs of values, at most as many
    values as pixels are allowed. One run makes values bright, another dark.
    """

    norms = ("l0",)
    source = "Papernot et al., EuroS&P 2016, arXiv 1511.07528"
    library_class = "SaliencyMapMethod"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """The share of the values that may change; the library goes two beyond it."""
        values = min(sparse.pixels_allowed(x, budget.eps), 2 * budget.steps)
        return {"gamma": max(values - 2, 0.5) / x.numel(), "theta": 1.0, "verbose": False}

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        ends = []
        for theta in (1.0, -1.0):
            attack = self.build(view, x, budget)
            attack.set_params(theta=theta)
            found = attack.generate(x.cpu().numpy(), y=np.flip(LABELS, axis=1))
            ends.append(torch.from_numpy(found).to(x))
        logits = view(torch.cat(ends))
        return ends[int(logits[:, 1].argmax())]

    def passes(self) -> int:
        """A gradient and a look, in both runs."""
        return 4
