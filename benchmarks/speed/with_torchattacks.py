"""The same attacks by torchattacks (Kim, arXiv 2010.01950)."""

from __future__ import annotations

import torch
import torchattacks
from task import STEP_RATIO, Attack, Task, TwoLogits

from iqa_robust.models.base import IQAModel


def attack(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The library's attack on the two-logit view.

    What its APGD and Square return where no class changes is the clean image; here it is the best image they found.
    Square tries one image more than the queries it is given.
    """
    view, labels = TwoLogits(model), torch.zeros(len(x), dtype=torch.int64)
    if task.attack == "fgsm":
        fgsm = torchattacks.FGSM(view, eps=task.eps)
        return lambda z: fgsm(z, labels)
    if task.attack == "pgd":
        pgd = torchattacks.PGD(view, eps=task.eps, alpha=STEP_RATIO * task.eps, steps=task.steps, random_start=False)
        return lambda z: pgd(z, labels)
    if task.attack == "apgd":
        apgd = torchattacks.APGD(view, norm="Linf", eps=task.eps, steps=task.steps)
        return lambda z: apgd.perturb(z, labels, best_loss=True)[1]
    square = torchattacks.Square(view, norm="Linf", eps=task.eps, n_queries=max(task.queries - 1, 1))
    square.init_hyperparam(x)
    return lambda z: square.attack_single_run(z, labels)[1]
