"""The three readings of score reflection."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.records import Budget

CLEAN = torch.tensor([20.0, 50.0, 90.0])


def _model(make_linear: type[IQAModel], weights: torch.Tensor) -> IQAModel:
    return make_linear(weights, ModelInfo(score_range=(10, 100)))


def test_r1_mirrors_the_prediction_and_is_the_goal_reflect_of_every_attack(
    make_linear: type[IQAModel], weights: torch.Tensor
) -> None:
    model = _model(make_linear, weights)
    goal = attacks.create("score-reflection").goal_for("reflect", model, CLEAN, None, None)
    assert goal.target.tolist() == [90.0, 60.0, 20.0] and goal.sign is None
    general = attacks.create("fgsm").goal_for("reflect", model, CLEAN, None, None)
    assert torch.equal(general.target, goal.target)


def test_r2_mirrors_the_label(
    make_linear: type[IQAModel], weights: torch.Tensor, images: Callable[..., torch.Tensor]
) -> None:
    model = _model(make_linear, weights)
    attack = attacks.create("score-reflection", variant="R2")
    assert attack.needs_labels and not attacks.create("score-reflection").needs_labels
    goal = attack.goal_for("reflect", model, CLEAN, None, torch.tensor([10.0, 40.0, 100.0]))
    assert goal.target.tolist() == [100.0, 70.0, 10.0]
    with pytest.raises(ContractError, match="ScoreReflection reads quality labels: pass `labels`"):
        attack(model, images(), goal="reflect", budget=Budget())
    with pytest.raises(ContractError, match=r"labels: expected a number or shape \(4,\), got \(2,\)"):
        attack(model, images(), goal="reflect", budget=Budget(), labels=torch.ones(2))
    x = images()
    target = model(x).detach() + torch.tensor([1.0, -1.0, 0.5, -0.5])
    result = attack(model, x, goal="reflect", budget=Budget(steps=10), labels=110 - target)
    assert (result.score_adv - target).abs().max() < 0.02  # single values of one level: weights up to 4, over 255


def test_r3_pushes_over_the_middle_without_a_target(
    make_linear: type[IQAModel], weights: torch.Tensor, images: Callable[..., torch.Tensor]
) -> None:
    model = _model(make_linear, weights)
    attack = attacks.create("score-reflection", variant="R3")
    goal = attack.goal_for("reflect", model, torch.tensor([20.0, 55.0, 90.0]), None, None)
    assert goal.sign.tolist() == [1.0, 1.0, -1.0] and goal.target is None
    x = images()
    result = attack(model, x, goal="reflect", budget=Budget(eps_255=4, steps=10))
    sign = torch.where(result.score_clean > 55, -1.0, 1.0).view(-1, 1, 1, 1)
    corner = (torch.round(x * 255) + 4 * (sign * weights).sign()).clamp(0, 255) / 255
    assert torch.equal(result.images, corner)


def test_an_unknown_variant_is_refused() -> None:
    with pytest.raises(ContractError, match="expected variant to be one of R1, R2, R3, got 'R4'"):
        attacks.create("score-reflection", variant="R4")


def test_reflection_turns_a_ranking_around(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x = images(12)
    with torch.no_grad():
        scores = convolutional(x)
    low, high = scores.min().item() - 0.01, scores.max().item() + 0.01
    convolutional.info = ModelInfo(score_range=(low, high))
    result = attacks.create("score-reflection")(convolutional, x, goal="reflect", budget=Budget(eps_255=16, steps=20))
    ranks = torch.stack([result.score_clean, result.score_adv]).argsort(dim=1).argsort(dim=1).float()
    assert torch.corrcoef(ranks)[0, 1] < -0.9
