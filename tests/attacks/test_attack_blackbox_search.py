"""What the query attacks share: counts, images that leave, searches side by side, and the goal by half-range."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.blackbox import search
from iqa_robust.attacks.blackbox.one_pixel import OnePixel
from iqa_robust.attacks.blackbox.parsimonious import Parsimonious
from iqa_robust.attacks.blackbox.patch_rs import PatchRS
from iqa_robust.attacks.blackbox.search import away_from_middle, evaluations, running, side_by_side
from iqa_robust.attacks.blackbox.square import Square
from iqa_robust.attacks.blackbox.yang_query import YangQuery
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.records import STANDARD_QUERIES, Budget

SIZES = {"linf": 8, "l2": 200, "psnr": 4, "l0": 10, "patch": 20}
SPENDS_ALL = ["square", "ran-bidirectional", "patch-rs", "one-pixel", "parsimonious"]
QUERY_ATTACKS = [*SPENDS_ALL, "nes", "spsa", "yang-query"]


def objective_of(model: IQAModel, x: torch.Tensor, goal: Goal, budget: Budget) -> Objective:
    with torch.no_grad():
        clean = model(x)
    return Objective(
        model, x, None, goal=goal, score_clean=clean, budget=budget, seeds=list(range(len(x))), white_box=False
    )


def up(n: int) -> Goal:
    return Goal(sign=torch.ones(n))


@pytest.mark.parametrize("queries,eot", [(1, 1), (30, 1), (31, 3)])
@pytest.mark.parametrize("name", QUERY_ATTACKS)
def test_queries_are_counted_one_by_one(
    images: Callable[..., torch.Tensor], noisy: IQAModel, linear: IQAModel, name: str, queries: int, eot: int
) -> None:
    """The model itself counts: what the result says is what it was asked, and never more than the budget."""
    attack = attacks.create(name)
    asked = 0

    class Counting(IQAModel):
        inner = noisy if eot > 1 else linear
        info = dataclasses.replace(inner.info, score_range=(0, 100))

        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            nonlocal asked
            asked += len(x)
            return self.inner(x)

    norm = attack.norms[0]
    budget = Budget(norm=norm, eps_255=SIZES[norm], queries=queries, eot=eot)
    x = images(2)
    result = attack(Counting(), x, goal="up", budget=budget)
    judged = asked - int(result.queries.sum())
    draws = 1 if eot == 1 else 5  # the judge's own draws of a randomized model
    assert 0 < judged <= (1 + 2 + 1) * 2 * draws  # clean images, at most two candidates, the untouched image
    assert bool((result.queries <= queries).all()) and not bool(result.gradients.any())
    if name in SPENDS_ALL:
        assert result.queries.tolist() == [queries // eot * eot] * 2


@pytest.mark.parametrize("name", QUERY_ATTACKS)
def test_the_standard_number_of_queries(images: Callable[..., torch.Tensor], linear: IQAModel, name: str) -> None:
    attack = attacks.create(name)
    assert attack.cost(Budget(norm=attack.norms[0], eps_255=8), "up") == (STANDARD_QUERIES, 0)
    assert attack.cost(Budget(norm=attack.norms[0], eps_255=8, queries=77), "up") == (77, 0)
    objective = objective_of(linear, images(2), up(2), Budget())
    assert evaluations(objective, Budget()) == STANDARD_QUERIES == 10_000
    limited = Budget(queries=20_000)
    assert evaluations(objective_of(linear, images(2), up(2), limited), limited) == 20_000


@pytest.mark.parametrize("attack_class", [Square, PatchRS, OnePixel, Parsimonious, YangQuery])
def test_an_image_that_has_reached_enough_leaves(
    images: Callable[..., torch.Tensor], linear: IQAModel, attack_class: type
) -> None:
    """The first image is content with any rise, the second never; each is attacked as it would be alone."""

    class Content(attack_class):  # type: ignore[misc, valid-type]
        def goal_for(self, *args: object) -> Goal:
            goal = super().goal_for(*args)
            enough = torch.tensor([1e-3, torch.inf])[: len(goal.sign)]
            return dataclasses.replace(goal, enough=enough)

    norm = attack_class.norms[0]
    budget = Budget(norm=norm, eps_255=SIZES[norm], queries=90)
    x = images(2, low=40, high=215)
    result = Content()(linear, x, goal="up", budget=budget)
    assert result.queries[0] < 90
    if attack_class is not YangQuery:  # which ends by itself where no texture passes the next boundary
        assert result.queries[1] == 90
    assert bool((result.score_adv > result.score_clean).all())
    untroubled = attack_class()(linear, x, goal="up", budget=budget)
    assert torch.equal(result.images[1], untroubled.images[1])


def test_running_counts_what_is_left(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    budget = Budget(eps_255=255, queries=5)
    x = images(3)
    objective = objective_of(linear, x, dataclasses.replace(up(3), enough=torch.tensor([1e9, 1e9, -1e9])), budget)
    objective(x[[0, 0, 0, 1, 2]], torch.tensor([0, 0, 0, 1, 2]))
    assert running(objective).tolist() == [0, 1]  # the third has reached enough
    assert running(objective, 3).tolist() == [1]


def test_searches_side_by_side_get_their_own_answers(
    images: Callable[..., torch.Tensor], linear: IQAModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of different sizes, across the limit of one call, truncated at the last query of an image."""
    monkeypatch.setattr(search, "AT_ONCE", 4)
    x = images(3)
    budget = Budget(eps_255=255, queries=10)
    objective = objective_of(linear, x, up(3), budget)
    heard: list[list[torch.Tensor]] = [[], [], []]
    closed = []

    def asking(i: int, sizes: list[int]) -> Iterator[torch.Tensor]:
        try:
            for size in sizes:
                candidates = x[i] * torch.linspace(0.2, 0.9, size).view(-1, 1, 1, 1)
                answer = yield candidates
                heard[i].append(answer - (linear(candidates) - linear(x[i : i + 1])))
        finally:
            closed.append(i)

    side_by_side(objective, [asking(0, [2, 3]), asking(1, [5, 5, 1]), asking(2, [6, 6])], 10)
    assert objective.tally.queries.tolist() == [5, 10, 10]
    assert [len(answers) for answers in heard] == [2, 2, 1]
    # float32 sums of 768 products around 100
    assert all(answer.abs().max() < 1e-3 for answers in heard for answer in answers)
    assert sorted(closed) == [0, 1, 2]
    # The first four of the third's second request were still evaluated.
    assert objective.tally.queries[2] == 10


def test_values_that_are_not_numbers_never_win(images: Callable[..., torch.Tensor], make_model: type[IQAModel]) -> None:
    broken = make_model(lambda x: torch.full((len(x),), torch.nan), ModelInfo(score_range=(0, 1)))
    for name in QUERY_ATTACKS:
        attack = attacks.create(name)
        norm = attack.norms[0]
        budget = Budget(norm=norm, eps_255=SIZES[norm], queries=20)
        result = attack(broken, images(1), goal="up", budget=budget)
        assert bool(result.score_adv.isnan().all()) and bool(torch.isfinite(result.images).all())


@pytest.mark.parametrize("name", ["ran-bidirectional", "yang-query"])
def test_away_is_bidirectional_where_the_range_is_known(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_linear: type[IQAModel], weights: torch.Tensor, name: str
) -> None:
    """Down above the middle, else up; the middle counts as not above."""
    x = images(3, low=60, high=200)
    scores = linear(x).detach()
    middle = scores.sort().values[1].item()
    model = with_score_range(linear, (middle - 500, middle + 500))
    attack = attacks.create(name)
    result = attack(model, x, goal="away", budget=Budget(eps_255=16, queries=60))
    shift = result.score_adv - result.score_clean
    assert bool((shift[scores > middle] < 0).all()) and bool((shift[scores <= middle] > 0).all())
    unknown = make_linear(weights, ModelInfo())
    assert away_from_middle(unknown, scores) == Goal()
    shift = attack(unknown, x, goal="away", budget=Budget(eps_255=16, queries=60))
    assert bool((shift.score_adv != shift.score_clean).all())


def test_the_other_goals_are_the_usual_ones(linear: IQAModel) -> None:
    scores = torch.tensor([20.0, 70.0])
    for name in ("ran-bidirectional", "yang-query"):
        attack = attacks.create(name)
        plain = attacks.create("pgd")
        for goal in ("up", "down", "reflect"):
            ours, usual = (a.goal_for(goal, linear, scores, None, None) for a in (attack, plain))
            for part in ("sign", "target"):
                expected = getattr(usual, part)
                got = getattr(ours, part)
                assert got is expected is None or torch.equal(got, expected)
