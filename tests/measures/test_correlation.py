from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_robust.measures import krocc, plcc_raw, rmse, srocc

CORRELATIONS = [srocc, plcc_raw, krocc]
SCIPY = [
    (srocc, lambda a, b: stats.spearmanr(a, b).statistic),
    (plcc_raw, lambda a, b: stats.pearsonr(a, b).statistic),
    (krocc, lambda a, b: stats.kendalltau(a, b).statistic),
]
# Whole numbers: ties occur, and monotone maps of them stay distinct in float64.
columns = st.integers(3, 40).flatmap(lambda n: st.tuples(*[st.lists(st.integers(-50, 50), min_size=n, max_size=n)] * 2))


@pytest.mark.parametrize(("own", "scipy"), SCIPY)
@pytest.mark.parametrize("n", [3, 10, 1000])
@pytest.mark.parametrize("decimals", [0, 1, 12])
def test_agrees_with_scipy(own: Callable, scipy: Callable, n: int, decimals: int) -> None:
    rng = np.random.default_rng(n)
    a = rng.normal(size=n)
    b = np.round(a + rng.normal(size=n), decimals)
    if b.min() == b.max():
        pytest.skip("rounded to a constant")
    # 1e-12: float64 sums of a thousand terms in another order.
    assert own(a, b) == pytest.approx(scipy(a, b), abs=1e-12)


@pytest.mark.parametrize(("own", "value"), [(srocc, 0.8), (krocc, 2 / 3), (plcc_raw, 0.8)])
def test_worked_example(own: Callable, value: float) -> None:
    # One adjacent swap of four ranks: rho = 1 - 6 * 2 / (4 * 15), tau = (5 - 1) / 6.
    assert own([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(value, abs=1e-15)


def test_tau_b_with_ties_by_hand() -> None:
    # Six pairs: one tied in a only, one tied in b only, four concordant. 4 / sqrt(5 * 5).
    assert krocc([1, 1, 2, 3], [1, 2, 3, 3]) == pytest.approx(0.8, abs=1e-15)


@pytest.mark.parametrize("own", CORRELATIONS)
def test_undefined_is_nan(own: Callable) -> None:
    assert np.isnan(own([1, 2], [1, 2]))
    assert np.isnan(own([], []))
    assert np.isnan(own([0.1] * 7, range(7)))
    assert np.isnan(own(range(7), [0.1] * 7))
    assert np.isnan(own([1, 2, 3, np.nan], [1, 2, np.nan, 4]))


@pytest.mark.parametrize("own", [*CORRELATIONS, rmse])
def test_a_failed_image_is_left_out(own: Callable) -> None:
    a, b = np.array([3.0, 1, 4, 1, 5, 9]), np.array([2.0, 7, 1, 8, 2, 8])
    with_failures = own(np.insert(a, [0, 3], [np.nan, 2]), np.insert(b, [0, 3], [5, np.inf]))
    assert with_failures == own(a, b)


@pytest.mark.parametrize("scale", [1e-200, 1e-9, 1e9, 1e200])
def test_plcc_neither_overflows_nor_vanishes(scale: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 50))
    # 1e-12: scaling by a power of ten rounds each value once.
    assert plcc_raw(a * scale, b) == pytest.approx(plcc_raw(a, b), abs=1e-12)


@pytest.mark.parametrize("own", CORRELATIONS)
@settings(deadline=None)
@given(pair=columns)
def test_bounded_symmetric_and_odd(own: Callable, pair: tuple[list[int], list[int]]) -> None:
    a, b = (np.array(column, dtype=float) for column in pair)
    value = own(a, b)
    assert np.isnan(value) == (a.min() == a.max() or b.min() == b.max())
    if not np.isnan(value):
        assert -1 <= value <= 1
        # 1e-12: rounding of a few dozen terms.
        assert own(b, a) == pytest.approx(value, abs=1e-12)
        assert own(-a, b) == pytest.approx(-value, abs=1e-12)


@settings(deadline=None)
@given(pair=columns)
def test_ranks_do_not_see_a_monotone_map(pair: tuple[list[int], list[int]]) -> None:
    a, b = (np.array(column, dtype=float) for column in pair)
    for own in (srocc, krocc):
        np.testing.assert_equal(own(np.exp(a / 10) - 3, b**3), own(a, b))


@settings(deadline=None)
@given(pair=columns, slope=st.floats(1e-3, 1e3), offset=st.floats(-1e3, 1e3))
def test_plcc_does_not_see_a_positive_affine_map(
    pair: tuple[list[int], list[int]], slope: float, offset: float
) -> None:
    a, b = (np.array(column, dtype=float) for column in pair)
    # 1e-8: an offset of a thousand on values of a thousandth costs six of sixteen digits.
    np.testing.assert_allclose(plcc_raw(slope * a + offset, b), plcc_raw(a, b), rtol=0, atol=1e-8)


@pytest.mark.parametrize("own", [*CORRELATIONS, rmse])
@settings(deadline=None)
@given(pair=columns, seed=st.integers(0, 99))
def test_the_order_of_the_images_does_not_matter(own: Callable, pair: tuple[list[int], list[int]], seed: int) -> None:
    a, b = (np.array(column, dtype=float) for column in pair)
    order = np.random.default_rng(seed).permutation(len(a))
    # 1e-12 of the value: the same terms, summed in another order.
    np.testing.assert_allclose(own(a[order], b[order]), own(a, b), rtol=1e-12, atol=1e-12)


def test_rmse() -> None:
    assert rmse([1, 2, 3], [1, 2, 3]) == 0
    assert rmse([0, 0], [3, 4]) == pytest.approx(np.sqrt(12.5), abs=1e-15)
    assert rmse([5], [2]) == 3
    assert np.isnan(rmse([np.nan], [2]))
