"""The same attacks by Foolbox (Rauber et al., JOSS 2020), which has FGSM and PGD: the extra `speed`."""

from __future__ import annotations

import foolbox
import torch
from task import STEP_RATIO, Attack, Task, TwoLogits

from iqa_robust.models.base import IQAModel


def attack(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The library's attack on the two-logit view."""
    built = {
        "fgsm": lambda: foolbox.attacks.LinfFastGradientAttack(),
        "pgd": lambda: foolbox.attacks.LinfPGD(
            abs_stepsize=STEP_RATIO * task.eps, steps=task.steps, random_start=False
        ),
    }[task.attack]()
    view = foolbox.PyTorchModel(TwoLogits(model).eval(), bounds=(0, 1), device=x.device)  # else a GPU, where one is
    labels = torch.zeros(len(x), dtype=torch.int64)

    def run(z: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = built(view, z, labels, epsilons=task.eps)[1]
        return found

    return run
