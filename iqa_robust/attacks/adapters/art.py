"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al., arXiv 1807.01069; MIT): the base, and its climbs.

ART works on NumPy arrays, so images travel to the CPU and back at every call of the model.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from iqa_robust.attacks.adapters.libraries import LibraryAttack, quiet_import, radius
from iqa_robust.attacks.adapters.views import ProbabilityView, ValueView, View
from iqa_robust.attacks.parameters import check_flag, check_number
from iqa_robust.records import Budget

with quiet_import():
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier
    from art.estimators.regression import PyTorchRegressor

LABELS = np.array([[1.0, 0.0]], dtype=np.float32)
"""Class 0, one-hot."""


class ARTAttack(LibraryAttack):
    """The class `library_class` of `art.attacks.evasion` on a classifier, built with `arguments`."""

    library_class: ClassVar[str]
    classes: ClassVar[int] = 2
    """Classes the estimator declares; the view knows two, and some attacks refuse as few."""

    @abstractmethod
    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Keyword arguments of the library's class, besides the estimator, for one image `x` (1, 3, H, W)."""

    def build(self, network: nn.Module, x: torch.Tensor, budget: Budget) -> Any:
        """The library's attack on `network`."""
        estimator = PyTorchClassifier(
            model=network,
            loss=nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=self.classes,
            clip_values=(0.0, 1.0),
            preprocessing=None,
            device_type="gpu" if x.is_cuda else "cpu",
        )
        return getattr(evasion, self.library_class)(estimator, **self.arguments(x, budget))

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        found = self.build(view, x, budget).generate(x.cpu().numpy(), y=LABELS)
        return torch.from_numpy(found).to(x)


class _Total(nn.Module):
    """A regression "loss" that is the prediction, so that its gradient is the objective's, without a factor."""

    reduction = "none"

    def forward(self, prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The sum of the predictions (n,)."""
        return prediction.sum()


class ARTRegressionAttack(ARTAttack):
    """A class of ART that takes a regression model, which it is shown: the objective, without logits around it.

    Steps of length `eps_step` along the slope, which is the sign for `linf`.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "psnr")
    view = ValueView

    def build(self, network: nn.Module, x: torch.Tensor, budget: Budget) -> Any:
        """The library's attack on `network`."""
        estimator = PyTorchRegressor(
            model=network,
            loss=_Total(),
            input_shape=tuple(x.shape[1:]),
            clip_values=(0.0, 1.0),
            preprocessing=None,
            device_type="gpu" if x.is_cuda else "cpu",
        )
        return getattr(evasion, self.library_class)(estimator, **self.arguments(x, budget))

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        unused = np.zeros(1, dtype=np.float32)  # without a target, ART would spend a query on a prediction
        found = self.build(view, x, budget).generate(x.cpu().numpy(), y=unused)
        return torch.from_numpy(found).to(x)


class FastGradientMethod(ARTRegressionAttack):
    """`FastGradientMethod`: one step of length eps along the sign, or its L2 counterpart."""

    source = "Goodfellow, Shlens, Szegedy, ICLR 2015, arXiv 1412.6572"
    library_class = "FastGradientMethod"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Norm and radius; `eps_step` only serves ART's minimal mode, but must be positive."""
        return {"norm": order(budget), "eps": radius(x, budget), "eps_step": 1.0}

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One gradient per direction; `away` compares the two ends."""
        return (4, 2) if goal == "away" else (1, 1)


class ProjectedGradientDescent(ARTRegressionAttack):
    """`ProjectedGradientDescentNumpy`: steps from the clean image, each projected onto the ball."""

    source = "Madry et al., ICLR 2018, arXiv 1706.06083"
    library_class = "ProjectedGradientDescentNumpy"

    def __init__(self, *, step_ratio: float = 0.25) -> None:
        """`step_ratio`: the step as a fraction of the radius; ART's own defaults make it 1/3."""
        check_number(self, "step_ratio", step_ratio, above=0)
        self.step_ratio = step_ratio

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, step and number of steps."""
        eps = radius(x, budget)
        return {
            "norm": order(budget),
            "eps": eps,
            "eps_step": self.step_ratio * eps,
            "max_iter": budget.steps,
            "verbose": False,
        }


class BasicIterativeMethod(ProjectedGradientDescent):
    """`BasicIterativeMethod`: the same along the sign only."""

    norms = ("linf",)
    source = "Kurakin, Goodfellow, Bengio, ICLR workshop 2017, arXiv 1607.02533"
    library_class = "BasicIterativeMethod"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Radius, step and number of steps."""
        arguments = super().arguments(x, budget)
        del arguments["norm"]
        return arguments


class MomentumIterativeMethod(ProjectedGradientDescent):
    """`MomentumIterativeMethod`: the gradients, each of L1 length one, add up."""

    source = "Dong et al., CVPR 2018, arXiv 1710.06081"
    library_class = "MomentumIterativeMethod"

    def __init__(self, *, step_ratio: float = 0.25, decay: float = 1.0) -> None:
        """`decay`: what is left of the sum after a step; the step is that of `ProjectedGradientDescent`."""
        super().__init__(step_ratio=step_ratio)
        check_number(self, "decay", decay, least=0)
        self.decay = decay

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, step, number of steps and decay."""
        return {**super().arguments(x, budget), "decay": self.decay}


class ProjectedGradientDescentPyTorch(ARTAttack):
    """`ProjectedGradientDescentPyTorch`: PGD in PyTorch, on the two-logit view; it may start at random."""

    norms = ("linf", "l2", "psnr")
    source = ProjectedGradientDescent.source
    library_class = "ProjectedGradientDescentPyTorch"

    def __init__(self, *, random_start: bool = True, step_ratio: float = 0.25) -> None:
        """`random_start`: from a uniform draw from the ball; the step is that of `ProjectedGradientDescent`."""
        check_flag(self, "random_start", random_start)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.random_start = random_start
        self.step_ratio = step_ratio

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, step, number of steps and start."""
        eps = radius(x, budget)
        return {
            "norm": order(budget),
            "eps": eps,
            "eps_step": self.step_ratio * eps,
            "max_iter": budget.steps,
            "num_random_init": int(self.random_start),
            "verbose": False,
        }

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step and direction, and two predictions for ART's success rate; `away` compares two ends."""
        sides = 2 if goal == "away" else 1
        return sides * (budget.steps + 2) + (2 if sides == 2 else 0), sides * budget.steps


class NewtonFool(ARTAttack):
    """`NewtonFool`: steps that lower the probability of class 0, in proportion to the image's own length."""

    norms = ("l2", "psnr")
    view = ProbabilityView
    source = "Jang, Wu, Jha, ACSAC 2017"
    library_class = "NewtonFool"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Number of steps, and their length as a fraction of the image's: together they fill the ball."""
        length = float(torch.linalg.vector_norm(x)) or 1.0
        return {"max_iter": budget.steps, "eta": radius(x, budget) / budget.steps / length, "verbose": False}


def order(budget: Budget) -> float:
    """The order of the norm as ART states it."""
    return float("inf") if budget.norm == "linf" else 2
