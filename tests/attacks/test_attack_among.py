"""A part of a batch as a batch of its own: what it spends and finds belongs to the whole."""

from __future__ import annotations

from collections.abc import Callable

import torch

from iqa_robust import attacks
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class TestAmong:
    def test_a_part_of_the_batch_spends_and_finds_for_the_whole(
        self, images: Callable[..., torch.Tensor], linear: IQAModel
    ) -> None:
        class Halves(Attack):
            def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
                objective(x)
                with objective.among(torch.tensor([2, 0])) as part:
                    _, slope = part.gradient(x[[2, 0]])
                    part((x[[2, 0]] + budget.eps * slope.sign()).clamp(0, 1))
                return x

        x = images(3)
        budget = Budget(eps_255=4)
        result = Halves()(linear, x, goal="up", budget=budget)
        assert result.queries.tolist() == [3, 1, 3] and result.gradients.tolist() == [1, 0, 1]
        whole = attacks.create("fgsm")(linear, x, goal="up", budget=budget)
        assert torch.equal(result.images[[0, 2]], whole.images[[0, 2]])
        assert torch.equal(result.images[1], x[1])
        assert [len(points) for points in result.curve] == [2, 1, 2]
        assert [points[-1][0] for points in result.curve] == [3, 1, 3]

    def test_spent_queries_count_when_the_part_ends_early(
        self, images: Callable[..., torch.Tensor], linear: IQAModel
    ) -> None:
        class Greedy(Attack):
            access = "black"

            def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
                with objective.among(torch.tensor([1])) as part:
                    while True:
                        part(x[1:])

        result = Greedy()(linear, images(2), goal="up", budget=Budget(queries=5))
        assert result.queries.tolist() == [0, 5]
