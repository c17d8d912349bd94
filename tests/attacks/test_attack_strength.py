"""The project's own attacks are no weaker than the libraries' at equal budgets.

The tolerance of 2 % of the mean shift is the project's own requirement, not a matter of rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.adapters.art import ARTAttack
from iqa_robust.attacks.adapters.torchattacks import TorchattacksAttack
from iqa_robust.attacks.base import Attack
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget


class ARTPGD(ARTAttack):
    """`ProjectedGradientDescent` of ART; also shows what adding one more attack takes."""

    library_class = "ProjectedGradientDescent"

    def arguments(self, budget: Budget) -> dict[str, Any]:
        return {
            "norm": np.inf if budget.norm == "linf" else 2,
            "eps": budget.eps,
            "eps_step": budget.eps / 4,
            "max_iter": budget.steps,
            "num_random_init": 1,
            "verbose": False,
        }


class ARTSquare(ARTAttack):
    """`SquareAttack` of ART."""

    norms = ("linf",)
    library_class = "SquareAttack"

    def arguments(self, budget: Budget) -> dict[str, Any]:
        assert budget.queries is not None
        # Three evaluations are spent outside the iterations.
        return {"eps": budget.eps, "max_iter": budget.queries - 3, "norm": np.inf, "verbose": False}


class TorchattacksSquare(TorchattacksAttack):
    """`torchattacks.Square`."""

    norms = ("linf",)
    library_class = "Square"

    def arguments(self, budget: Budget) -> dict[str, Any]:
        assert budget.queries is not None
        return {"eps": budget.eps, "n_queries": budget.queries - 2, "p_init": 0.8}


def _reached(attack: Attack, model: IQAModel, x: torch.Tensor, goal: str, budget: Budget) -> float:
    result = attack(model, x, goal=goal, budget=budget)
    shift = result.score_adv - result.score_clean
    return {"up": shift, "down": -shift, "away": shift.abs()}[goal].mean().item()


@pytest.mark.parametrize("goal", ["up", "down", "away"])
@pytest.mark.parametrize("steps", [5, 20])
def test_pgd(images: Callable[..., torch.Tensor], convolutional: IQAModel, goal: str, steps: int) -> None:
    x, budget = images(12), Budget(eps_255=8, steps=steps)
    ours = _reached(attacks.create("pgd"), convolutional, x, goal, budget)
    for library in (attacks.create("torchattacks/pgd"), ARTPGD()):
        assert ours >= 0.98 * _reached(library, convolutional, x, goal, budget)


@pytest.mark.parametrize("goal", ["up", "down"])
def test_pgd_l2(images: Callable[..., torch.Tensor], convolutional: IQAModel, goal: str) -> None:
    x, budget = images(12), Budget(norm="l2", eps_255=150, steps=10)
    ours = _reached(attacks.create("pgd"), convolutional, x, goal, budget)
    assert ours >= 0.98 * _reached(ARTPGD(), convolutional, x, goal, budget)


@pytest.mark.parametrize("norm,eps_255", [("linf", 4), ("l2", 150)])
def test_fgsm(images: Callable[..., torch.Tensor], convolutional: IQAModel, norm: str, eps_255: float) -> None:
    x, budget = images(12), Budget(norm=norm, eps_255=eps_255)
    ours = _reached(attacks.create("fgsm"), convolutional, x, "away", budget)
    assert ours >= 0.98 * _reached(attacks.create("art/fgm"), convolutional, x, "away", budget)


@pytest.mark.parametrize("goal", ["up", "down"])
def test_square(images: Callable[..., torch.Tensor], convolutional: IQAModel, goal: str) -> None:
    x, budget = images(12), Budget(eps_255=8, queries=250)
    ours = _reached(attacks.create("square"), convolutional, x, goal, budget)
    for library in (TorchattacksSquare(), ARTSquare()):
        assert ours >= 0.98 * _reached(library, convolutional, x, goal, budget)


@pytest.mark.parametrize("name", [name for name in attacks.names() if name not in ("noise", "score-reflection")])
def test_every_attack_beats_noise_of_its_size(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str
) -> None:
    x, budget = images(12), Budget(eps_255=4, steps=5, queries=100)
    noise = _reached(attacks.create("noise"), convolutional, x, "away", budget)
    assert _reached(attacks.create(name), convolutional, x, "away", budget) > 1.5 * noise


@pytest.mark.parametrize("name", ["fgsm", "pgd", "torchattacks/pgd", "art/fgm"])
def test_a_larger_budget_is_no_weaker(images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str) -> None:
    reached = [
        _reached(attacks.create(name), convolutional, images(8), "away", Budget(eps_255=eps_255, steps=10))
        for eps_255 in (1, 2, 4)
    ]
    assert reached[0] < reached[1] < reached[2]
