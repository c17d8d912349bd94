"""The ensemble: never weaker than a member, per image; images that have arrived leave; the budget holds."""

from __future__ import annotations

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget


def _pictures(n: int = 3, size: int = 16) -> torch.Tensor:
    return to_8bit_grid(torch.rand(n, 3, size, size, generator=torch.Generator().manual_seed(5)))


@pytest.mark.parametrize("goal", ["up", "down", "away", "reflect"])
def test_at_least_as_strong_as_each_member_on_every_image(convolutional: IQAModel, goal: str) -> None:
    x, budget = _pictures(), Budget(eps_255=3, steps=4)
    together = attacks.create("worst-case")(convolutional, x, goal=goal, budget=budget)
    better = 1 if convolutional.info.higher_is_better else -1

    def reached(score: torch.Tensor) -> torch.Tensor:
        shift = score - together.score_clean
        low, high = convolutional.info.score_range or (0.0, 0.0)
        mirrored = low + high - together.score_clean
        return {
            "up": better * shift,
            "down": -better * shift,
            "away": shift.abs(),
            "reflect": -(score - mirrored).abs(),
        }[goal]

    for name in ("fgsm", "pgd", "apgd", "noise"):
        alone = attacks.create(name)(convolutional, x, goal=goal, budget=budget)
        # 1e-5: float32 scores of one image differ in the last digits with the batch they came in
        assert bool((reached(together.score_adv) >= reached(alone.score_adv) - 1e-5).all()), name


def test_a_linear_model_is_driven_to_its_optimum(linear: IQAModel) -> None:
    x = _pictures()
    result = attacks.create("worst-case")(linear, x, goal="up", budget=Budget(eps_255=2, steps=2))
    weights = next(linear.parameters()).detach()
    best = to_8bit_grid((x + 2 / 255 * weights.sign()).clamp(0, 1))
    with torch.no_grad():
        torch.testing.assert_close(result.score_adv, linear(best), atol=1e-3, rtol=0)  # float32 sums of 768 values


def test_images_at_their_target_leave(linear: IQAModel) -> None:
    x = _pictures()
    with torch.no_grad():
        clean = linear(x)
    target = clean + torch.tensor([8.0, 1e4, 8.0])  # the second is out of reach
    budget = Budget(eps_255=8, steps=6)
    result = attacks.create("worst-case")(linear, x, goal="target", target=target, budget=budget)
    assert (result.score_adv - target)[[0, 2]].abs().max() < 8e-3  # a thousandth of the way
    assert result.queries[1] > 1000 > 100 > result.queries[0]
    assert result.gradients[1] > 2 * result.gradients[0]


def test_queries_are_never_exceeded(convolutional: IQAModel) -> None:
    for queries in (1, 7, 40):
        budget = Budget(eps_255=2, steps=4, queries=queries)
        result = attacks.create("worst-case")(convolutional, _pictures(), goal="away", budget=budget)
        assert result.queries.max() <= queries


def test_the_batch_does_not_matter(convolutional: IQAModel) -> None:
    x, budget = _pictures(), Budget(eps_255=2, steps=3)
    together = attacks.create("worst-case")(convolutional, x, goal="down", budget=budget)
    alone = [attacks.create("worst-case")(convolutional, image[None], goal="down", budget=budget) for image in x]
    # Float32 sums of another order may turn a sign where a gradient is next to zero; scores barely notice.
    torch.testing.assert_close(together.score_adv, torch.cat([one.score_adv for one in alone]), rtol=1e-3, atol=1e-4)
