"""SMA: the objective against its definition, the plan against other searches, and a whole set turned around."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.attacks.set_level.sma import SMA, reversed_ranks
from iqa_robust.attacks.set_level.soft_rank import soft_ranks
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


def scores_of(clean: list[float] | np.ndarray, score_range: tuple[float, float] | None = (0.0, 100.0)) -> SetScores:
    values = torch.tensor(np.asarray(clean), dtype=torch.float32)
    return SetScores(values, score_range, higher_is_better=True, reference_ids=[None] * len(values))


@pytest.mark.parametrize("seed", range(3))
def test_the_objective_is_its_definition_and_its_slope_that_of_differences(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clean, targets = rng.uniform(0, 100, size=(2, 9))
    attack = SMA(strength=2.0, variance_weight=3e-4, error_weight=2e-4)
    value, slope = attack.loss(clean, targets)
    ranks = [soft_ranks(scores, 2.0)[0] for scores in (clean, targets)]
    expected = pearsonr(*ranks)[0] - 3e-4 * targets.var(ddof=1) - 2e-4 * ((targets - clean) ** 2).mean()
    assert value == pytest.approx(expected)
    h = 1e-5
    differences = [(attack.loss(clean, targets + h * e)[0] - attack.loss(clean, targets - h * e)[0]) / (2 * h)
                   for e in np.eye(9)]  # fmt: skip
    # Second differences of a smooth function of order 1 at h = 1e-5: far below; rounding is 1e-16 / h.
    np.testing.assert_allclose(slope, differences, atol=1e-9)


def test_no_grid_point_is_better() -> None:
    clean = np.array([12.0, 47.0, 90.0])
    attack = SMA(bounds="range")
    planned = attack.plan(scores_of(clean), seed=0).double().numpy()
    grid = itertools.product(np.linspace(0, 100, 15), repeat=3)
    lowest = min(attack.loss(clean, np.array(point))[0] for point in grid)
    # Targets are float32: 1e-5 points, at a slope below 0.1 per point.
    assert attack.loss(clean, planned)[0] <= lowest + 1e-6


@pytest.mark.parametrize("m,seed", [(12, 0), (40, 1)])
def test_it_is_at_least_as_low_as_small_sign_steps_from_the_clean_scores(m: int, seed: int) -> None:
    """The published search, with fewer and longer steps: 4,000 of 0.05 cover 200 points."""
    rng = np.random.default_rng(seed)
    clean = rng.uniform(5, 95, size=m)
    attack = SMA(bounds="range")
    planned = attack.plan(scores_of(clean), seed=0).double().numpy()
    targets, lowest = clean - 0.01 * rng.integers(0, 2, size=m), np.inf
    for _ in range(4000):
        value, slope = attack.loss(clean, targets)
        lowest = min(lowest, value)
        targets = np.clip(targets - 0.05 * np.sign(slope), 0, 100)
    assert attack.loss(clean, planned)[0] <= lowest + 1e-6  # float32 targets, as above


@pytest.mark.parametrize("targets", ["soft-rank", "reverse-ranks"])
@pytest.mark.parametrize("bounds", ["set", "range"])
def test_targets_fall_as_scores_rise_and_stay_in_bounds(targets: str, bounds: str) -> None:
    clean = np.random.default_rng(3).uniform(0.2, 0.7, size=30)
    planned = SMA(targets=targets, bounds=bounds).plan(scores_of(clean, (0.0, 1.0)), seed=0).numpy()
    assert (np.diff(planned[np.argsort(clean)]) <= 1e-6).all()
    low, high = (0.0, 1.0) if bounds == "range" else (clean.min(), clean.max())
    assert low - 1e-6 <= planned.min() and planned.max() <= high + 1e-6
    assert spearmanr(clean, planned)[0] < -0.8


def test_the_plan_follows_the_scale_of_the_scores() -> None:
    clean = np.random.default_rng(4).uniform(10, 90, size=15)
    hundred = SMA().plan(scores_of(clean), seed=0)
    five = SMA().plan(scores_of(1 + clean / 25, (1.0, 5.0)), seed=0)
    torch.testing.assert_close(five, 1 + hundred / 25, rtol=0, atol=1e-4)  # float32 scores of another size
    unknown = SMA().plan(scores_of(clean, None), seed=0)
    assert clean.min() - 1e-3 <= unknown.min() and unknown.max() <= clean.max() + 1e-3


def test_reversed_ranks_exchange_first_and_last() -> None:
    np.testing.assert_array_equal(reversed_ranks(np.array([3.0, 1.0, 2.0, 7.0])), [2.0, 7.0, 3.0, 1.0])
    np.testing.assert_array_equal(reversed_ranks(np.array([5.0, 5.0, 6.0])), [6.0, 5.0, 5.0])


def test_sets_without_an_order_are_planned_too() -> None:
    assert torch.equal(SMA().plan(scores_of([4.0, 4.0], None), seed=0), torch.tensor([4.0, 4.0]))
    # One image has no rank; in the whole range the error alone counts.
    assert SMA(bounds="range").plan(scores_of([30.0]), seed=0).item() == pytest.approx(100, abs=1e-4)
    assert torch.isfinite(SMA(bounds="range").plan(scores_of([4.0, 4.0, 4.0]), seed=0)).all()


def test_a_reachable_plan_is_reached_and_turns_the_ranking_around(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    x = images(8, low=64, high=192)
    budget = Budget(eps_255=16, steps=10)
    result = SMA(targets="reverse-ranks")(linear, x, goal="away", budget=budget)
    expected = reversed_ranks(result.score_clean.numpy())
    # One gray level moves the linear score by |w| / 255, |w| below 4; the dithered climb lands within a few of them.
    np.testing.assert_allclose(result.score_adv.numpy(), expected, atol=0.05)
    assert spearmanr(result.score_clean, result.score_adv)[0] == pytest.approx(-1)


def test_a_target_given_by_the_harness_is_kept(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(2, low=64, high=192)
    target = torch.tensor([47.0, 52.0])
    result = SMA()(linear, x, goal="away", budget=Budget(eps_255=16, steps=10), target=target)
    torch.testing.assert_close(result.score_adv, target, rtol=0, atol=0.05)  # as above


class Planned(SetAttack):
    """Plans what it is told and does nothing."""

    told = torch.zeros(0)
    seen: SetScores

    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        self.seen = scores
        return self.told

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x


def test_an_image_without_a_score_is_left_out_of_the_plan() -> None:
    attack = Planned()
    attack.told = torch.tensor([1.0, 2.0])
    scores = SetScores(torch.tensor([5.0, torch.nan, 7.0]), None, True, ["a", "b", "c"])
    assert torch.equal(attack.planned(scores, seed=0), torch.tensor([1.0, 0.0, 2.0]))
    assert attack.seen.clean.tolist() == [5.0, 7.0] and list(attack.seen.reference_ids) == ["a", "c"]
    nothing = SetScores(torch.tensor([torch.nan]), None, True, ["a"])
    assert torch.equal(attack.planned(nothing, seed=0), torch.tensor([0.0]))


@pytest.mark.parametrize("told", [torch.zeros(3), torch.tensor([1.0, torch.nan])])
def test_a_plan_must_name_one_finite_score_per_image(told: torch.Tensor) -> None:
    attack = Planned()
    attack.told = told
    with pytest.raises(ContractError, match=r"Planned.plan: expected 2 finite scores, one per image"):
        attack.planned(scores_of([1.0, 2.0]), seed=0)


def test_a_sick_image_does_not_stop_the_others(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel]
) -> None:
    x = images(4, low=64, high=192)

    def sick(z: torch.Tensor) -> torch.Tensor:
        near = (z - x[:1]).abs().flatten(1).amax(dim=1) < 0.1
        return torch.where(near, torch.nan, linear(z))

    model = make_model(sick, ModelInfo(score_range=(0, 100)))  # type: ignore[call-arg]
    result = SMA()(model, x, goal="away", budget=Budget(eps_255=16, steps=4))
    healthy = SMA()(linear, x[1:], goal="away", budget=Budget(eps_255=16, steps=4))
    assert bool(result.score_adv[0].isnan())
    assert torch.equal(result.images[1:], healthy.images)


@pytest.mark.parametrize(
    "params,message",
    [
        ({"targets": "mirror"}, "expected targets to be one of soft-rank, reverse-ranks, got 'mirror'"),
        ({"bounds": 3}, "expected bounds to be one of set, range, got 3"),
        ({"strength": 0}, "strength"),
        ({"variance_weight": -1}, "variance_weight"),
        ({"error_weight": "x"}, "error_weight"),
        ({"momentum": -0.1}, "momentum"),
        ({"step_ratio": 0}, "step_ratio"),
    ],
)
def test_parameters_are_checked(params: dict[str, object], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        SMA(**params)  # type: ignore[arg-type]


def test_it_says_that_it_needs_the_whole_set() -> None:
    assert SMA.scope == "set" and Attack.scope == "image"
