"""Soft ranks: the projection against its definition, its limits, and its gradient against differences."""

from __future__ import annotations

import itertools

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from scipy.stats import rankdata

from iqa_robust.attacks.set_level.soft_rank import soft_ranks


@given(st.lists(st.floats(-10, 10), min_size=2, max_size=5), st.sampled_from([0.05, 0.5, 1.0, 5.0]))
@settings(deadline=None)
def test_it_is_the_projection_onto_the_permutahedron(values: list[float], strength: float) -> None:
    """A point p of a polytope is nearest to z if and only if (z - p, v - p) <= 0 at every corner v."""
    m, wanted = len(values), np.array(values) / strength
    point = soft_ranks(np.array(values), strength)[0]
    least = np.cumsum(np.arange(1, m + 1))
    slack = 1e-9 * (1 + np.abs(wanted).max()) * m  # float64 sums of numbers of this size
    for k in range(1, m + 1):
        for subset in itertools.combinations(point, k):
            assert sum(subset) >= least[k - 1] - slack
    assert point.sum() == pytest.approx(least[-1], abs=slack)
    for corner in itertools.permutations(range(1, m + 1)):
        assert (wanted - point) @ (np.array(corner) - point) <= m * slack * (1 + np.abs(wanted).max())


scores_of_any_kind = st.lists(st.integers(-40, 40).map(lambda i: i / 4), min_size=1, max_size=12).map(np.array)


@given(scores_of_any_kind, st.sampled_from([0.01, 0.3, 1.0, 10.0]))
@settings(deadline=None)
def test_ranks_keep_the_order_and_the_sum(scores: np.ndarray, strength: float) -> None:
    m = len(scores)
    ranks = soft_ranks(scores, strength)[0]
    assert ranks.sum() == pytest.approx(m * (m + 1) / 2)
    order = np.argsort(scores, kind="stable")
    # Sums of float64 numbers up to 4,000, pooled in another order.
    assert (np.diff(ranks[order]) >= -1e-9).all()
    tied = np.diff(scores[order]) == 0
    np.testing.assert_allclose(np.diff(ranks[order])[tied], 0, atol=1e-9)


@given(scores_of_any_kind)
@settings(deadline=None)
def test_a_small_strength_gives_hard_ranks_and_a_large_one_their_mean(scores: np.ndarray) -> None:
    # Scores are multiples of a quarter: at 1/100 of that, only ties are pooled, at their mean rank.
    np.testing.assert_allclose(soft_ranks(scores, 0.0025)[0], rankdata(scores), atol=1e-7)
    m = len(scores)
    np.testing.assert_allclose(soft_ranks(scores, 1e9)[0], np.full(m, (m + 1) / 2), atol=1e-7)


@pytest.mark.parametrize("strength", [0.2, 1.0, 4.0])
@pytest.mark.parametrize("seed", range(4))
def test_the_gradient_is_that_of_central_differences(seed: int, strength: float) -> None:
    """Scores without a kink nearby: the ranks are piecewise linear, so differences are exact up to rounding."""
    rng = np.random.default_rng(seed)
    scores, slope, h = rng.uniform(0, 10, size=8), rng.normal(size=8), 1e-6
    expected = [
        (slope @ soft_ranks(scores + h * unit, strength)[0] - slope @ soft_ranks(scores - h * unit, strength)[0])
        / (2 * h)
        for unit in np.eye(8)
    ]
    np.testing.assert_allclose(soft_ranks(scores, strength)[1](slope), expected, atol=1e-7)
