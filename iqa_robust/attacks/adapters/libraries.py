"""What every adapter of an attack library shares: one image at a time, a view of its objective, and isolation.

An adapter of one more attack is a small subclass of its library's adapter that names the library's class and its
arguments; see `views` for what the library is shown.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging.config
import math
import random
import warnings
from abc import abstractmethod
from collections.abc import Iterator
from typing import ClassVar
from unittest import mock

import numpy as np
import torch

from iqa_robust.attacks import sparse
from iqa_robust.attacks.adapters.views import ThresholdView, TwoLogitView, View
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import distance, project
from iqa_robust.attacks.objectives import Objective, QueryBudgetExhaustedError, best_of
from iqa_robust.attacks.parameters import check_number
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget


class LibraryAttack(Attack):
    """An attack of another library, run on one image at a time.

    The libraries draw from global generators and decide on whole batches; one image at a time, under a seed
    of its own, the result of an image does not depend on the batch it came in. The goal `away` is one run per
    direction, except where `two_sided` is set.
    """

    form = "adapted"
    view: ClassVar[type[View]] = TwoLogitView
    """What the library is shown."""
    two_sided: ClassVar[bool] = False
    """True for an attack that climbs |shift| by itself: one run serves both directions of `away`."""
    least_side: ClassVar[int] = 1
    """Pixels along the shorter side of the smallest image the library can work on."""

    @abstractmethod
    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W), against class 0 of `view`.

        `budget.queries` is the number of evaluations this run may make, never None.
        """

    def look(self, objective: Objective, index: int, x: torch.Tensor, budget: Budget) -> View:
        """The view of image `index`, whose clean version is `x` (1, 3, H, W)."""
        return self.view(objective, index, x, budget)

    def end(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """What a run on one image comes to, (1, 3, H, W)."""
        found = self.run(view, x, budget)
        return torch.where(found.isfinite(), found, x)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): per image the better of the directions; the clean image where the queries ran out."""
        if min(x.shape[-2:]) < self.least_side:
            raise ContractError(
                f"{type(self).__name__}: the library needs images of at least {self.least_side} pixels along each"
                f" side, got {x.shape[-2]} x {x.shape[-1]}."
            )
        if not _room(x, budget):
            return x
        sides = [objective] if self.two_sided else objective.sides()
        queries = (budget.queries or STANDARD_QUERIES) // objective.draws
        share = dataclasses.replace(budget, queries=max((queries - (len(sides) > 1) * len(sides)) // len(sides), 1))
        found = x.clone()
        for i, seed in enumerate(rng.seeds):
            image = x[i : i + 1]
            ends: list[torch.Tensor] = []
            with contextlib.suppress(QueryBudgetExhaustedError), isolated(seed, x.device):
                for side in sides:
                    ends.append(self.end(self.look(side, i, image, share), image, share))
            with contextlib.suppress(QueryBudgetExhaustedError):
                if ends:
                    found[i : i + 1] = ends[0]
                    found[i : i + 1] = best_of(objective, ends, torch.tensor([i], device=x.device))
        return found

    def passes(self) -> int:
        """Evaluations of the model per step of the budget."""
        return 1

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """White box: one or more passes a step and direction, `away` compares two ends. Black box: the queries."""
        if self.access == "black":
            return budget.queries or STANDARD_QUERIES, 0
        sides = 2 if goal == "away" and not self.two_sided else 1
        steps = sides * budget.steps * self.passes()
        return steps + (2 if sides == 2 else 0), steps


class ThresholdAttack(LibraryAttack):
    """An attack that looks for the smallest perturbation that changes the class.

    The class changes when the objective has risen by `threshold`, a share of the model's score range. What the run
    was after (see `views.ThresholdView`) is stretched, or shrunk, along its own direction to the size of the budget.
    """

    view = ThresholdView
    note = "searches the smallest perturbation past a threshold, then scales it to the budget"

    def __init__(self, *, threshold: float = 0.2) -> None:
        """`threshold`: the shift that counts as a change of class, as a share of the model's score range."""
        check_number(self, "threshold", threshold, above=0, most=1)
        self.threshold = threshold

    def look(self, objective: Objective, index: int, x: torch.Tensor, budget: Budget) -> ThresholdView:
        """The classifier of the threshold."""
        return ThresholdView(objective, index, x, budget, threshold=self.threshold)

    def end(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """What the view remembers, at the size of the budget; the library returns it in fewer cases."""
        if not isinstance(view, ThresholdView):
            raise TypeError(f"expected a ThresholdView, got {type(view).__name__}")
        with contextlib.suppress(QueryBudgetExhaustedError):
            self.run(view, x, budget)
        return scaled(view.found, x, budget)


def scaled(z: torch.Tensor, x: torch.Tensor, budget: Budget) -> torch.Tensor:
    """The image of the direction from `x` to `z` at the edge of the budget, inside [0, 1]; (1, 3, H, W).

    For `linf` the perturbation gets the root mean square eps and is then clipped. For `l0` and `patch`, which bound
    where an image changes, it is the nearest image inside the budget.
    """
    if budget.norm not in sparse.NORMS:
        size = distance(z, x, "psnr" if budget.norm == "linf" else budget.norm)
        z = x + (z - x) * (budget.eps / size.clamp_min(1e-12)).view(-1, 1, 1, 1)
    return project(z, x, budget.norm, budget.eps)


def radius(x: torch.Tensor, budget: Budget) -> float:
    """The radius of the ball as the libraries state it: for `psnr`, the L2 length of that root mean square."""
    return budget.eps * math.sqrt(x[0].numel()) if budget.norm == "psnr" else budget.eps


def _room(x: torch.Tensor, budget: Budget) -> bool:
    """Whether the budget holds anything but the clean images."""
    if budget.norm == "l0":
        return sparse.pixels_allowed(x, budget.eps) > 0
    if budget.norm == "patch":
        return sparse.side_allowed(x, budget.eps) > 0
    return budget.eps > 0


@contextlib.contextmanager
def isolated(seed: int, device: torch.device) -> Iterator[None]:
    """A library's own world: its draws follow from `seed`, and nothing outside the block notices it.

    Every global generator starts from `seed` and continues as before afterwards. Libraries that seed them again are
    kept from it: they would give every image the same draws, and reach generators of other devices. NumPy's
    arithmetic, warnings and ART's logger are silent: a zero slope is divided by, and a failed search is reported by
    its score.
    """
    devices = [device] if device.type == "cuda" else []
    python, legacy = random.getstate(), np.random.get_state()
    logger = logging.getLogger("art")
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=devices))
        if devices:
            stack.enter_context(torch.cuda.device(device))
            torch.cuda.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed % 2**32)
        torch.default_generator.manual_seed(seed)
        stack.callback(np.random.set_state, legacy)
        stack.callback(random.setstate, python)
        stack.enter_context(mock.patch.object(torch.random, "manual_seed"))
        stack.enter_context(mock.patch.object(torch.cuda.random, "manual_seed"))
        stack.enter_context(mock.patch.object(logger, "propagate", False))
        stack.enter_context(mock.patch.object(logger, "handlers", [logging.NullHandler()]))
        stack.enter_context(np.errstate(all="ignore"))
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def quiet_import() -> Iterator[None]:
    """Import a library without its side effects on warning filters and on the logging of everybody else."""
    with warnings.catch_warnings(), mock.patch.object(logging.config, "dictConfig"):
        yield
