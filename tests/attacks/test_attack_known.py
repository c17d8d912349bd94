"""Passes at clean images are made once, and what an attack finds and is charged does not change by that."""

from __future__ import annotations

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.known import Known
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.records import Budget


class Counting(IQAModel):
    """A smooth model that counts its passes."""

    def __init__(self, *, deterministic: bool = True) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=(0, 1), deterministic=deterministic)
        self.passes = 0

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.passes += 1
        return torch.sigmoid((x[..., 1:] - x[..., :-1]).abs().mean(dim=(1, 2, 3)) * 9 - 3)


def _images() -> torch.Tensor:
    return torch.round(torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(5)) * 255) / 255


@pytest.mark.parametrize("name", ["fgsm", "pgd", "i-fgsm", "apgd"])
@pytest.mark.parametrize("goal", ["up", "away"])
def test_an_attack_finds_the_same_with_what_is_known(name: str, goal: str) -> None:
    x, budget, known, model = _images(), Budget(eps_255=2, steps=3), Known(), Counting()
    attack = attacks.create(name)
    alone = attack(model, x, goal=goal, budget=budget)
    attacks.create("fgsm")(model, x, goal="down", budget=budget, known=known)
    model.passes = 0
    informed = attack(model, x, goal=goal, budget=budget, known=known)
    saved = model.passes
    model.passes = 0
    attack(model, x, goal=goal, budget=budget)
    assert torch.equal(alone.images, informed.images)
    assert torch.equal(alone.score_adv, informed.score_adv)
    assert torch.equal(alone.queries, informed.queries)
    assert torch.equal(alone.gradients, informed.gradients)
    assert saved < model.passes


def test_slopes_of_a_randomized_model_are_not_kept() -> None:
    x, known, model = _images(), Known(), Counting(deterministic=False)
    attacks.create("fgsm")(model, x, goal="up", budget=Budget(eps_255=2, eot=2), known=known)
    assert known.slopes([0]) is None
    assert not known._slopes


def test_slopes_are_kept_while_there_is_room() -> None:
    slope = torch.ones(1, 3, 4, 4)
    known = Known(room=2 * slope.nbytes)
    for seed in range(3):
        known.keep_slopes([seed], slope * seed)
    assert known.slopes([2]) is None
    kept = known.slopes([0, 1])
    assert kept is not None
    assert kept[1].unique().tolist() == [1.0]


class Difference(IQAModel):
    """Minus the distance from the reference."""

    info = ModelInfo(full_reference=True, score_range=(-1, 1))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        assert ref is not None
        return -((x - ref) ** 2).mean(dim=(1, 2, 3))


@pytest.mark.parametrize("name", ["pgd", "pgd-reference"])
def test_images_with_other_references_are_other_images(name: str) -> None:
    x, budget, known, model = _images(), Budget(eps_255=2, steps=2), Known(), Difference()
    attack = attacks.create(name)
    for ref in (x.flip(0), x.flip(-1)):  # one image is its own reference under the first
        alone = attack(model, x, ref, goal="up", budget=budget)
        informed = attack(model, x, ref, goal="up", budget=budget, known=known)
        assert torch.equal(alone.score_clean, informed.score_clean)
        assert torch.equal(alone.images, informed.images)
    swapped = attack(model, x.flip(0), x, goal="up", budget=budget, known=known)
    assert torch.equal(swapped.images, attack(model, x.flip(0), x, goal="up", budget=budget).images)
