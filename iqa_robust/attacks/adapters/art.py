"""Attacks of the Adversarial Robustness Toolbox (Nicolae et al., arXiv 1807.01069; MIT)."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import numpy as np
import torch

from iqa_robust.attacks.adapters.libraries import LibraryAttack, TwoLogitView, quiet_import
from iqa_robust.records import Budget

with quiet_import():
    from art.attacks import evasion
    from art.estimators.classification import PyTorchClassifier


class ARTAttack(LibraryAttack):
    """The class `library_class` of `art.attacks.evasion`, built with `arguments`.

    ART works on NumPy arrays, so images travel to the CPU and back at every call of the model.
    """

    library_class: ClassVar[str]

    @abstractmethod
    def arguments(self, budget: Budget) -> dict[str, Any]:
        """Keyword arguments of the library's class, besides the estimator."""

    def run(self, view: TwoLogitView, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        estimator = PyTorchClassifier(
            model=view,
            loss=torch.nn.CrossEntropyLoss(),
            input_shape=tuple(x.shape[1:]),
            nb_classes=2,
            clip_values=(0.0, 1.0),
            device_type="gpu" if x.is_cuda else "cpu",
        )
        attack = getattr(evasion, self.library_class)(estimator, **self.arguments(budget))
        with np.errstate(divide="ignore", invalid="ignore"):  # the length of a zero step
            found = attack.generate(x.cpu().numpy(), y=np.array([[1.0, 0.0]], dtype=np.float32))
        return torch.from_numpy(found).to(x)


class FastGradientMethod(ARTAttack):
    """`FastGradientMethod` of ART: one step of length eps along the sign, or its L2 counterpart."""

    library_class = "FastGradientMethod"

    def arguments(self, budget: Budget) -> dict[str, Any]:
        """Norm and radius; `eps_step` only serves ART's minimal mode, but must be positive."""
        return {"norm": np.inf if budget.norm == "linf" else 2, "eps": budget.eps, "eps_step": 1.0}

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One gradient per direction; `away` compares the two ends."""
        return (4, 2) if goal == "away" else (1, 1)
