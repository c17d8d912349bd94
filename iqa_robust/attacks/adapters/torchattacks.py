"""Attacks of torchattacks (Kim, arXiv 2010.01950; MIT), each a small class that names the library's own."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar

import torch

from iqa_robust.attacks.adapters.libraries import LibraryAttack, TwoLogitView, quiet_import
from iqa_robust.attacks.parameters import check_flag, check_number
from iqa_robust.records import Budget

with quiet_import():
    import torchattacks


class TorchattacksAttack(LibraryAttack):
    """The torchattacks class `library_class`, built with `arguments`."""

    library_class: ClassVar[str]

    @abstractmethod
    def arguments(self, budget: Budget) -> dict[str, Any]:
        """Keyword arguments of the library's class."""

    def run(self, view: TwoLogitView, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        attack = getattr(torchattacks, self.library_class)(view, **self.arguments(budget))
        return attack(x, torch.zeros(1, dtype=torch.int64, device=x.device))


class TorchattacksPGD(TorchattacksAttack):
    """`torchattacks.PGD` (Madry et al. 2018) with a constant step."""

    norms = ("linf",)
    library_class = "PGD"

    def __init__(self, *, random_start: bool = True, step_ratio: float = 0.25) -> None:
        """`step_ratio`: the step as a fraction of eps; the library's own defaults make it 2/8."""
        check_flag(self, "random_start", random_start)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.random_start = random_start
        self.step_ratio = step_ratio

    def arguments(self, budget: Budget) -> dict[str, Any]:
        """Radius, step, number of steps and start."""
        return {
            "eps": budget.eps,
            "alpha": self.step_ratio * budget.eps,
            "steps": budget.steps,
            "random_start": self.random_start,
        }
