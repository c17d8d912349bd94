"""What every adapter of an attack library shares: a two-logit view of the objective, and isolation.

The libraries attack classifiers: they raise the cross-entropy of a label. `TwoLogitView` shows them a
classifier of two classes whose cross-entropy for class 0 rises exactly where the objective does. An adapter
of one more attack is a subclass of its library's adapter that names the library's class and its arguments.
"""

from __future__ import annotations

import contextlib
import logging.config
import random
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from unittest import mock

import numpy as np
import torch
from torch import nn

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective, QueryBudgetExhaustedError, best_of
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class TwoLogitView(nn.Module):
    """One image's objective as a classifier of two classes, always "right" about class 0.

    With the value v of the objective and the clean score f(x), the logits are (1, g) with
    g = v / (1 + |f(x)| + |v|), which lies in (-1, 1) and rises strictly with v. Then

    - the cross-entropy of class 0, log(1 + exp(g - 1)), has the slope dv/dx times a positive number, so its
      sign gradient and its normalized gradient are the objective's own;
    - that number neither vanishes nor overflows: a score in 0..100 used as a logit would saturate the
      softmax, whose float32 gradient is then exactly zero;
    - class 0 wins whatever the objective says, so no attack stops early because it takes itself for
      successful.

    Every forward pass is a call of the objective, so queries and gradients are counted. The module holds
    neither the model nor its parameters: a library may change the mode of the view, but not the model's.
    """

    def __init__(self, objective: Objective, index: int, device: torch.device) -> None:
        """`index` is the image of the batch that is attacked."""
        super().__init__()
        self._objective = objective
        self._index = index
        self.device_marker = nn.Parameter(torch.zeros(1, device=device), requires_grad=False)
        """Libraries look for the device of the first parameter."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W), all of them versions of the one image, to logits (n, 2)."""
        index = torch.full((len(z),), self._index, device=z.device)
        value = self._objective(z, index)
        rising = value / (1 + self._objective.score_clean[index].abs() + value.abs())
        return torch.stack([torch.ones_like(rising), rising], dim=1)


class LibraryAttack(Attack):
    """An attack of another library, run on one image at a time.

    The libraries draw from global generators and decide on whole batches; one image at a time, under a seed
    of its own, the result of an image does not depend on the batch it came in. The goal `away` is one run per
    direction.
    """

    @abstractmethod
    def run(self, view: TwoLogitView, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W), against class 0 of `view`."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): per image the better of the directions; the clean image where the queries ran out."""
        found = x.clone()
        for i, seed in enumerate(rng.seeds):
            index = torch.tensor([i], device=x.device)
            image = x[i : i + 1]
            with contextlib.suppress(QueryBudgetExhaustedError), isolated(seed, x.device):
                ends = [self.run(TwoLogitView(side, i, x.device), image, budget) for side in objective.sides()]
                ends = [torch.where(end.isfinite(), end, image) for end in ends]  # the slope of a NaN score is NaN
                found[i : i + 1] = best_of(objective, ends, index)
        return found

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step and direction; `away` compares the two ends."""
        sides = 2 if goal == "away" else 1
        return sides * budget.steps + (2 if sides == 2 else 0), sides * budget.steps


@contextlib.contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[None]:
    """Every global generator starts from `seed` within the block and continues as before after it."""
    devices = [device] if device.type == "cuda" else []
    python, legacy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        if devices:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import a library without its side effects on warning filters and on the logging of everybody else."""
    with warnings.catch_warnings(), mock.patch.object(logging.config, "dictConfig"):
        yield
