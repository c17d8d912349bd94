"""What holds for every result: no worse than the clean image, inside the budget, unharmed by models that edit input."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks import base
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.errors import ContractError
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel, ModelInfo, score, wrap
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class Fixed(Attack):
    """Returns a function of the images and asks the model nothing."""

    access = "black"

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        self.function = function

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return self.function(x)


def _halved_in_place(x: torch.Tensor) -> torch.Tensor:
    return x.mul_(0.5).flatten(1).sum(dim=1)


@pytest.mark.parametrize("kind", ["wrapped", "subclass"])
@pytest.mark.parametrize("name", ["pgd", "square", "torchattacks/pgd", "art/fgm"])
def test_a_model_that_edits_its_input_does_no_harm(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel], kind: str, name: str
) -> None:
    info = ModelInfo(score_range=(0, 1000))
    make = wrap if kind == "wrapped" else make_model
    x, budget = images(2), Budget(eps_255=4, steps=2, queries=20)
    before = x.clone()
    found = attacks.create(name)(make(_halved_in_place, info), x, goal="up", budget=budget)
    clean = attacks.create(name)(make(lambda x: (0.5 * x).flatten(1).sum(dim=1), info), x, goal="up", budget=budget)
    assert torch.equal(x, before)
    assert torch.equal(found.images, clean.images)
    assert torch.equal(found.score_clean, clean.score_clean) and torch.equal(found.score_adv, clean.score_adv)


def test_a_full_reference_module_may_edit_the_reference(images: Callable[..., torch.Tensor]) -> None:
    model = wrap(lambda x, ref: x.sub_(ref.mul_(0.5)).flatten(1).mean(dim=1), ModelInfo(full_reference=True))
    x, ref = images(2, seed=1), images(2, seed=2)
    expected = (x - ref / 2).flatten(1).mean(dim=1)
    for _ in range(2):
        assert torch.equal(model(x, ref), expected)
        assert torch.equal(score(model, x, ref, seeds=[0, 0]), expected)


@pytest.mark.parametrize("goal", ["up", "down", "reflect", "target"])
def test_an_attack_is_never_worse_than_leaving_the_image_alone(
    images: Callable[..., torch.Tensor], linear: IQAModel, goal: str
) -> None:
    x = images()
    target = linear(x).detach() if goal == "target" else None

    result = Fixed(lambda x: x.flip(0))(linear, x, goal=goal, budget=Budget(eps_255=2), target=target)
    better = {
        "up": result.score_adv >= result.score_clean,
        "down": result.score_adv <= result.score_clean,
        "reflect": (result.score_adv - 100 + result.score_clean).abs() <= (2 * result.score_clean - 100).abs(),
        "target": result.score_adv == result.score_clean,
    }
    assert bool(better[goal].all())


def test_the_clean_image_does_not_hide_scores_that_are_not_numbers(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel]
) -> None:
    x = images(2)
    sick = make_model(lambda z: torch.where((z == x).flatten(1).all(dim=1), linear(z), torch.nan))
    result = Fixed(lambda x: x + 4 / 255)(sick, x, goal="up", budget=Budget())
    assert bool(result.score_adv.isnan().all())


@pytest.mark.parametrize(
    ("broken", "sentence"),
    [
        (
            lambda z, x, norm, eps: (x + 0.4 / 255).clamp(0, 1),
            "attack: the final images are not on the 8-bit grid; this is a bug, please report it.",
        ),
        (
            lambda z, x, norm, eps: to_8bit_grid(x + 9 / 255),
            "attack: a final image lies 9/255 from the clean one (linf), beyond the budget of 4/255;"
            " this is a bug, please report it.",
        ),
    ],
)
def test_the_final_images_are_checked(
    images: Callable[..., torch.Tensor],
    linear: IQAModel,
    monkeypatch: pytest.MonkeyPatch,
    broken: Callable[..., torch.Tensor],
    sentence: str,
) -> None:
    monkeypatch.setattr(base, "snap", broken)
    with pytest.raises(ContractError) as caught:
        attacks.create("noise")(linear, images(), goal="up", budget=Budget(eps_255=4))
    assert str(caught.value) == sentence


@pytest.mark.parametrize(
    ("name", "params", "sentence"),
    [
        ("pgd", {"restarts": "a"}, "PGD: expected restarts to be a whole number >= 1, got 'a'."),
        ("pgd", {"restarts": 1.5}, "PGD: expected restarts to be a whole number >= 1, got 1.5."),
        ("pgd", {"restarts": True}, "PGD: expected restarts to be a whole number >= 1, got True."),
        ("pgd", {"random_start": 1}, "PGD: expected random_start to be true or false, got 1."),
        ("pgd", {"momentum": "x"}, "PGD: expected momentum to be a finite number >= 0, got 'x'."),
        ("pgd", {"step_ratio": 0}, "PGD: expected step_ratio to be a finite number > 0, got 0."),
        (
            "score-reflection",
            {"momentum": float("nan")},
            "ScoreReflection: expected momentum to be a finite number >= 0, got nan.",
        ),
        ("square", {"p_init": "x"}, "Square: expected p_init to be a finite number > 0 and <= 1, got 'x'."),
        ("square", {"p_init": 0}, "Square: expected p_init to be a finite number > 0 and <= 1, got 0."),
        (
            "torchattacks/pgd",
            {"step_ratio": -1},
            "PGD: expected step_ratio to be a finite number > 0, got -1.",
        ),
        (
            "torchattacks/pgd",
            {"random_start": "no"},
            "PGD: expected random_start to be true or false, got 'no'.",
        ),
    ],
)
def test_impossible_parameters_are_refused_at_construction(name: str, params: dict[str, object], sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        attacks.create(name, **params)
    assert str(caught.value) == sentence
