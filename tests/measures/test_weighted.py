"""Resamples given as counts, against SciPy on the resamples written out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_robust.measures.weighted import Krocc, Mean, Plcc, Srocc

SCIPY = [
    (Srocc, lambda a, b: stats.spearmanr(a, b).statistic),
    (Krocc, lambda a, b: stats.kendalltau(a, b).statistic),
    (Plcc, lambda a, b: stats.pearsonr(a, b).statistic),
]


def written_out(reference: Callable, x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> list[float]:
    values = []
    for row in counts.astype(int):
        a, b = np.repeat(x, row), np.repeat(y, row)
        defined = len(a) >= 3 and a.min() < a.max() and b.min() < b.max()
        values.append(reference(a, b) if defined else np.nan)
    return values


@pytest.mark.parametrize(("own", "scipy"), SCIPY)
@pytest.mark.parametrize("decimals", [12, 1, 0])
@pytest.mark.parametrize("n", [3, 16, 17, 100, 513])
def test_each_resample_agrees_with_scipy(own: Callable, scipy: Callable, decimals: int, n: int) -> None:
    rng = np.random.default_rng(n)
    x = rng.normal(size=n)
    x, y = np.round(x, decimals), np.round(x + rng.normal(size=n), decimals)
    counts = rng.multinomial(n, np.full(n, 1 / n), size=40).astype(float)
    # 1e-12: ranks and pairs are exact here; SciPy sums in floating point.
    np.testing.assert_allclose(own(x, y)(counts), written_out(scipy, x, y, counts), rtol=0, atol=1e-12, equal_nan=True)


@pytest.mark.parametrize(("own", "scipy"), SCIPY)
@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-4, 4), st.integers(-4, 4), st.integers(0, 3)), min_size=1, max_size=20))
def test_any_counts_and_ties(own: Callable, scipy: Callable, rows: list[tuple[int, int, int]]) -> None:
    x, y, count = np.array(rows, dtype=float).T
    if not count.any():
        return
    # 1e-12: as above.
    np.testing.assert_allclose(
        own(x, y)(count[None]), written_out(scipy, x, y, count[None]), rtol=0, atol=1e-12, equal_nan=True
    )


def test_ranks_are_exact() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=2000)
    counts = rng.multinomial(2000, np.full(2000, 1 / 2000), size=5).astype(float)
    np.testing.assert_array_equal(Srocc(x, x)(counts), 1.0)
    np.testing.assert_array_equal(Srocc(x, -x)(counts), -1.0)
    np.testing.assert_array_equal(Krocc(x, x)(counts), 1.0)
    np.testing.assert_array_equal(Krocc(x, -x)(counts), -1.0)


def test_plcc_with_a_stray_value_that_a_resample_misses() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 30))
    x[0] = 1e6
    counts = np.ones((1, 30))
    counts[0, 0] = 0
    # 1e-8: the stray value sets the scale, so the others keep ten of sixteen digits.
    assert Plcc(x, y)(counts)[0] == pytest.approx(stats.pearsonr(x[1:], y[1:]).statistic, abs=1e-8)


def test_mean() -> None:
    counts = np.array([[1.0, 1, 1], [3, 0, 0], [0, 1, 2]])
    np.testing.assert_allclose(Mean(np.array([1.0, 2, 6]))(counts), [3, 1, 14 / 3], rtol=1e-15)
