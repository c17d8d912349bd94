from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize

from iqa_robust.errors import ContractError
from iqa_robust.measures import Logistic, fit_logistic, plcc, plcc_raw, rmse


def noisy(n: int, seed: int = 0, noise: float = 8.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores on a nonlinear scale of their own, and MOS in 0..100."""
    rng = np.random.default_rng(seed)
    mos = rng.uniform(5, 95, n)
    return np.tanh((mos + rng.normal(0, noise, n)) / 60) * 3 + 20, mos


@pytest.mark.parametrize("ends", [(10.0, 90.0), (90.0, 10.0)])
def test_recovers_a_logistic(ends: tuple[float, float]) -> None:
    truth = Logistic(*ends, center=4.0, scale=1.5, converged=True)
    scores = np.linspace(-2, 10, 60)
    fitted = fit_logistic(scores, truth(scores))
    # 1e-3 on a scale of 100: the optimizer stops at a relative change of 1e-10 of the squared error.
    np.testing.assert_allclose(fitted(scores), truth(scores), atol=1e-3)
    assert fitted.center == pytest.approx(4.0, abs=1e-3)
    assert fitted.scale == pytest.approx(1.5, abs=1e-3)
    assert fitted.converged


# The last two have a second minimum, where a search from one start ends up.
@pytest.mark.parametrize(("n", "seed", "noise"), [(10, 0, 8), (25, 0, 8), (200, 0, 8), (10, 24, 30), (20, 31, 60)])
def test_as_good_as_a_global_search(n: int, seed: int, noise: float) -> None:
    scores, mos = noisy(n, seed, noise)
    fitted = fit_logistic(scores, mos, (0, 100))
    spread = np.subtract(*np.percentile(scores, [75, 25])) / 1.349

    def error(p: np.ndarray) -> float:
        return rmse(Logistic(*p, converged=True)(scores), mos)

    low, high = scores.min(), scores.max()
    bounds = [(0, 100), (0, 100), (low - 10 * spread, high + 10 * spread), (0.1 * spread, 6.4 * spread)]
    reference = optimize.differential_evolution(error, bounds, seed=0, tol=1e-10, maxiter=3000)
    # 0.1 percent: far below what a fit on so few images means, far above either tolerance.
    assert rmse(fitted(scores), mos) <= reference.fun * 1.001


def test_beats_the_raw_correlation_where_the_scale_is_bent() -> None:
    rng = np.random.default_rng(3)
    mos = rng.uniform(5, 95, 300)
    scores = np.exp((mos + rng.normal(0, 3, 300)) / 20)
    assert plcc(scores, mos, fit_logistic(scores, mos)) > plcc_raw(scores, mos) + 0.05


@pytest.mark.parametrize("n", [10, 100])
def test_loses_nothing_on_a_straight_line(n: int) -> None:
    scores = np.linspace(-3, 7, n)
    # With asymptotes half the range outside, a logistic is straight to better than 0.1 percent of correlation.
    assert plcc(scores, 5 * scores + 2, fit_logistic(scores, 5 * scores + 2)) > 0.999


@pytest.mark.parametrize("transform", [lambda s: 1e9 * s, lambda s: 1e-9 * s, lambda s: 7 - s, lambda s: s + 1e4])
@pytest.mark.parametrize("n", [10, 30, 300])
def test_neither_scale_nor_direction_of_the_scores_matters(transform, n: int) -> None:
    scores, mos = noisy(n, seed=n)
    plain, moved = fit_logistic(scores, mos, (0, 100)), fit_logistic(transform(scores), mos, (0, 100))
    # 0.05 of 100: the squared error is flat near its minimum, so the search may stop a little apart.
    np.testing.assert_allclose(moved(transform(scores)), plain(scores), atol=0.05)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 40), noise=st.floats(0, 300))
def test_monotone_and_bounded_far_outside_of_the_clean_scores(seed: int, n: int, noise: float) -> None:
    scores, mos = noisy(n, seed, noise)
    fitted = fit_logistic(scores, mos, (0, 100))
    span = np.ptp(scores)
    mapped = fitted(np.linspace(scores.min() - 1e4 * span, scores.max() + 1e4 * span, 2001))
    steps = np.diff(mapped)
    # 1e-9 of a scale of 100: rounding of the asymptotes.
    assert np.all(steps >= -1e-9) or np.all(steps <= 1e-9)
    assert mapped.min() >= -1e-9 and mapped.max() <= 100 + 1e-9


def test_bounded_without_a_stated_range() -> None:
    # Straight data would send unbounded asymptotes to infinity.
    fitted = fit_logistic(np.linspace(0, 1, 50), np.linspace(20, 60, 50))
    # Half of the distance of 40 beyond either end; 1e-9 for rounding.
    assert np.all(np.abs(fitted([-1e6, 1e6]) - 40) <= 40 + 1e-9)


def test_a_stray_clean_score_does_not_flatten_the_rest() -> None:
    scores, mos = noisy(50)
    clean = plcc(scores, mos, fit_logistic(scores, mos))
    strayed = np.append(scores, 1e6)
    fitted = fit_logistic(strayed, np.append(mos, 95))
    # 0.02: one more image at the top of the scale bends the mapping a little.
    assert plcc(scores, mos, fitted) > clean - 0.02


def test_reused_on_attacked_scores_it_shows_the_shift() -> None:
    scores, mos = noisy(200)
    fitted = fit_logistic(scores, mos, (0, 100))
    attacked = scores + 2
    assert rmse(fitted(attacked), mos) > 2 * rmse(fitted(scores), mos)
    refitted = fit_logistic(attacked, mos, (0, 100))
    # 1e-3 relative: the refit hides a uniform shift but for the optimizer's tolerance.
    assert rmse(refitted(attacked), mos) == pytest.approx(rmse(fitted(scores), mos), rel=1e-3)


@pytest.mark.parametrize(
    ("scores", "mos"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4]),
        ([5] * 10, range(10)),
        (range(10), [5] * 10),
        ([np.nan] * 10, range(10)),
        ([], []),
    ],
)
def test_undefined_is_nan(scores: list[float], mos: list[float]) -> None:
    fitted = fit_logistic(scores, mos)
    assert np.isnan([fitted.left, fitted.right, fitted.center, fitted.scale]).all()
    assert not fitted.converged
    assert np.isnan(fitted([0.0, 1.0])).all()
    assert np.isnan(plcc(range(10), range(10), fitted))


def test_deterministic_and_stored_as_json() -> None:
    scores, mos = noisy(40)
    fitted = fit_logistic(scores, mos)
    assert fitted == fit_logistic(scores, mos)
    assert Logistic(**json.loads(json.dumps(dataclasses.asdict(fitted)))) == fitted


def test_failed_images_are_left_out_of_the_fit_and_stay_failed() -> None:
    scores, mos = noisy(40)
    fitted = fit_logistic(np.append(scores, [np.nan, np.inf, 20]), np.append(mos, [50, 50, np.nan]))
    assert fitted == fit_logistic(scores, mos)
    assert np.isnan(fitted([np.nan, np.inf, -np.inf])).all()


def test_few_distinct_scores() -> None:
    # Quartiles coincide, so the spread falls back to the standard deviation; both levels meet their mean MOS.
    scores = np.array([1.0] * 9 + [2.0])
    mos = np.array([10.0, 12, 14, 10, 12, 14, 10, 12, 14, 50])
    # 0.5 of 40: the bounded asymptotes reach both levels up to the tail of the narrowest transition.
    np.testing.assert_allclose(fit_logistic(scores, mos)([1.0, 2.0]), [12.0, 50.0], atol=0.5)


def test_a_bad_range_is_refused() -> None:
    with pytest.raises(ContractError, match="mos_range"):
        fit_logistic(range(10), range(10), (5, 1))
