"""Attacks of torchattacks that set their own step: adaptive climbs, and the ensemble built on them."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from iqa_robust.attacks.adapters.libraries import radius
from iqa_robust.attacks.adapters.torchattacks import TorchattacksAttack
from iqa_robust.attacks.adapters.views import Cropped, FourLogitView, View
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.records import STANDARD_QUERIES, Budget

BOX = {"linf": "Linf", "l2": "L2", "psnr": "L2"}
"""The library's names of the balls."""


class APGD(TorchattacksAttack):
    """`APGD` on the cross-entropy: momentum, and a step that is halved where the climb stalls.

    The library picks the loss by name, not by the number of classes. The steps and the halving only use signs, or
    normalized gradients, and comparisons of the loss, which are the objective's own.
    """

    norms = ("linf", "l2", "psnr")
    source = "Croce, Hein, ICML 2020, arXiv 2003.01690"
    library_class = "APGD"

    def __init__(self, *, rho: float = 0.75, eot_iter: int = 1) -> None:
        """`rho`: share of rising steps below which the step is halved; `eot_iter`: gradients per step."""
        check_number(self, "rho", rho, above=0, most=1)
        check_whole(self, "eot_iter", eot_iter, least=1)
        self.rho = rho
        self.eot_iter = eot_iter

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, number of steps and schedule."""
        return {
            "norm": BOX[budget.norm],
            "eps": radius(x, budget),
            "steps": budget.steps,
            "rho": self.rho,
            "eot_iter": self.eot_iter,
        }

    def passes(self) -> int:
        """`eot_iter`."""
        return self.eot_iter

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A look at the clean image, a gradient at the start and one a step; `away` compares two ends."""
        sides = 2 if goal == "away" else 1
        gradients = sides * (budget.steps + 1) * self.eot_iter
        return gradients + sides + (2 if sides == 2 else 0), gradients


class TiledAttack(TorchattacksAttack):
    """What the attacks share that run Square, whose L2 start is made of tiles.

    The library lets the tiles of some heights, such as 24, stand out of the image, and fails. There the attack leaves
    up to three rows of the image alone.
    """

    least_side = 15

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        height, width = x.shape[-2:]
        while budget.norm != "linf" and not _tiled(height, width):
            height -= 1
        return self.run_on(Cropped(view, height, width), x, budget)


def _tiled(height: int, width: int) -> bool:
    """Whether the library's tiles of a fifth of the height, laid from a margin on, stay inside the image."""
    tile = height // 5
    margin = (height - 5 * tile) // 2
    return all(margin + length // tile * tile <= length for length in (height, width))


class AutoAttack(TiledAttack):
    """`AutoAttack`, standard version: APGD on two losses, FAB and Square, each on the whole budget.

    No class ever changes, so nothing stops early: `budget.steps` steps for each of the three climbs, then Square with
    the queries that are left. The best image of all is kept by the objective.
    """

    norms = ("linf", "l2", "psnr")
    view = FourLogitView
    source = "Croce, Hein, ICML 2020, arXiv 2003.01690"
    library_class = "AutoAttack"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball; a class to go to. The seed is not used, but without it the library takes the time."""
        return {"norm": BOX[budget.norm], "eps": radius(x, budget), "n_classes": 2, "seed": 0}

    def build(self, network: nn.Module, x: torch.Tensor, budget: Budget) -> Any:
        """The ensemble, its members with the steps and queries of the budget."""
        ensemble = super().build(network, x, budget)
        *climbs, square = ensemble._autoattack.attacks
        for climb in climbs:
            climb.steps = budget.steps
        square.n_queries = max((budget.queries or STANDARD_QUERIES) - 6 * budget.steps, 1)
        square.p_init = min(square.p_init, (min(x.shape[-2:]) - 5) ** 2 / (x.shape[-2] * x.shape[-1]))
        return ensemble

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries, and a gradient a step of every climb and direction, two of FAB."""
        return budget.queries or STANDARD_QUERIES, (2 if goal == "away" else 1) * 4 * budget.steps
