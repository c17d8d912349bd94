"""The same attacks by ART, the Adversarial Robustness Toolbox (Nicolae et al., arXiv 1807.01069)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from art.attacks import evasion
from art.estimators.classification import PyTorchClassifier
from task import STEP_RATIO, Attack, Task, TwoLogits
from torch import nn

from iqa_robust.models.base import IQAModel


def attack(model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
    """The library's attack on the two-logit view, all images in one batch.

    What its APGD returns where no class changes is its random start; here it is the best image it found. Its Square
    tries one image an iteration and one before, and asks the model three times an iteration.
    """
    estimator = PyTorchClassifier(
        model=TwoLogits(model),
        loss=nn.CrossEntropyLoss(),
        input_shape=tuple(x.shape[1:]),
        nb_classes=2,
        clip_values=(0.0, 1.0),
        device_type="cpu",
    )
    common: dict[str, Any] = {"eps": task.eps, "batch_size": len(x)}
    climb = {"max_iter": task.steps, "verbose": False}
    built = {
        "fgsm": lambda: evasion.FastGradientMethod(estimator, **common),
        "pgd": lambda: evasion.ProjectedGradientDescent(estimator, eps_step=STEP_RATIO * task.eps, **climb, **common),
        "apgd": lambda: evasion.AutoProjectedGradientDescent(
            estimator, eps_step=2 * task.eps, nb_random_init=1, **climb, **common
        ),
        "square": lambda: evasion.SquareAttack(estimator, max_iter=max(task.queries - 1, 1), verbose=False, **common),
    }[task.attack]()
    labels = np.tile(np.array([[1.0, 0.0]], dtype=np.float32), (len(x), 1))

    def run(z: torch.Tensor) -> torch.Tensor:
        found = built.generate(z.numpy(), y=labels)
        return torch.from_numpy(built.x_max if task.attack == "apgd" else found)

    return run
