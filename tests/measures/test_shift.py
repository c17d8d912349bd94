from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from iqa_robust.errors import ContractError
from iqa_robust.measures import (
    Logistic,
    energy_distance,
    out_of_range_share,
    r_score,
    relative_gain,
    shift_abs_mean,
    shift_abs_mos,
    shift_abs_scaled,
    shift_abs_sd,
    shift_mean,
    shift_p95,
    wasserstein,
)
from iqa_robust.measures.shift import R_FLOOR

CLEAN = np.array([2.0, 4.0, 6.0, 8.0])
ADV = np.array([3.0, 3.0, 9.0, 9.0])
RANGE = (0.0, 10.0)
LOGISTIC = Logistic(left=0.0, right=5.0, center=5.0, scale=2.0, converged=True)
ALL = [
    lambda c, a: shift_mean(c, a),
    lambda c, a: shift_abs_mean(c, a),
    lambda c, a: shift_abs_scaled(c, a, RANGE),
    lambda c, a: shift_abs_sd(c, a),
    lambda c, a: shift_abs_mos(c, a, LOGISTIC),
    lambda c, a: shift_p95(c, a),
    lambda c, a: r_score(c, a, RANGE),
    lambda c, a: relative_gain(c, a, RANGE),
    lambda c, a: wasserstein(c, a, RANGE),
    lambda c, a: energy_distance(c, a, RANGE),
]


def test_by_hand() -> None:
    assert shift_mean(CLEAN, ADV) == 1.0
    assert shift_abs_mean(CLEAN, ADV) == 1.5
    assert shift_abs_scaled(CLEAN, ADV, (0, 5)) == 0.3
    # Sum of squares about the mean 5 is 20, over n - 1 = 3.
    assert shift_abs_sd(CLEAN, ADV) == pytest.approx(1.5 / np.sqrt(20 / 3), rel=1e-14)
    # Sorted absolute shifts 1, 1, 1, 3; position 0.95 * 3 = 2.85.
    assert shift_p95(CLEAN, ADV) == pytest.approx(1 + 0.85 * 2, rel=1e-14)
    assert out_of_range_share([-1, 0, 10, 11, np.nan], RANGE) == 0.5
    assert relative_gain(CLEAN, ADV, RANGE) == pytest.approx(
        np.mean([0.1 / 1.2, -0.1 / 1.4, 0.3 / 1.6, 0.1 / 1.8]), rel=1e-14
    )
    assert r_score(CLEAN, ADV, RANGE) == pytest.approx(np.mean(np.log10([8, 6, 2, 8])), rel=1e-14)


def test_mos_units() -> None:
    expected = np.mean(
        np.abs(
            [5 / (1 + np.exp(-(a - 5) / 2)) - 5 / (1 + np.exp(-(c - 5) / 2)) for c, a in zip(CLEAN, ADV, strict=True)]
        )
    )
    assert shift_abs_mos(CLEAN, ADV, LOGISTIC) == pytest.approx(expected, rel=1e-13)
    assert shift_abs_mos([5.0], [1e9], LOGISTIC) == pytest.approx(2.5, rel=1e-13)


def test_a_flat_model_does_not_look_robust() -> None:
    rng = np.random.default_rng(0)
    clean, shift = rng.normal(size=(2, 100))
    lively, flat = (clean, clean + shift), (clean * 1e-3, (clean + shift) * 1e-3)
    assert shift_abs_mean(*flat) == pytest.approx(shift_abs_mean(*lively) / 1000, rel=1e-12)
    assert shift_abs_sd(*flat) == pytest.approx(shift_abs_sd(*lively), rel=1e-12)
    assert np.isnan(shift_abs_sd([3.0] * 5, range(5)))
    assert np.isnan(shift_abs_sd([3.0], [4.0]))


@pytest.mark.parametrize("measure", ALL)
def test_failed_images_are_left_out(measure) -> None:
    clean, adv = np.append(CLEAN, [np.nan, 1, 1]), np.append(ADV, [1, np.nan, np.inf])
    assert measure(clean, adv) == measure(CLEAN, ADV)
    assert np.isnan(measure([np.nan, 1], [1, np.nan]))
    assert np.isnan(measure([], []))


@pytest.mark.parametrize("measure", ALL)
@settings(deadline=None)
@given(pairs=st.lists(st.tuples(*[st.integers(0, 1000)] * 2), min_size=3, max_size=30), seed=st.integers(0, 99))
def test_the_order_of_the_images_does_not_matter(measure, pairs: list[tuple[int, int]], seed: int) -> None:
    clean, adv = np.array(pairs, dtype=float).T / 100
    order = np.random.default_rng(seed).permutation(len(clean))
    if measure in ALL[-2:] and abs(shift_mean(clean, adv)) < 1e-9:
        return  # the sign of a zero mean is rounding
    # 1e-12: the same terms in another order.
    np.testing.assert_allclose(measure(clean[order], adv[order]), measure(clean, adv), rtol=1e-12, atol=1e-12)


class TestRScore:
    def test_the_base_is_a_unit(self) -> None:
        natural = r_score(CLEAN, ADV, RANGE, base=np.e)
        assert natural == pytest.approx(r_score(CLEAN, ADV, RANGE) * np.log(10), rel=1e-14)

    def test_zero_at_the_largest_shift_and_negative_beyond(self) -> None:
        assert r_score([3.0, 8.0], [10.0, 0.0], RANGE) == pytest.approx(0, abs=1e-15)
        assert r_score([3.0], [3.0 + 70.0], RANGE) == pytest.approx(-1, abs=1e-14)

    def test_no_shift_counts_as_the_floor(self) -> None:
        # From the end of the range the largest shift is the whole range.
        assert r_score([10.0], [10.0], RANGE) == pytest.approx(-np.log10(R_FLOOR), rel=1e-14)
        assert r_score([10.0, 10.0], [10.0, 9.0], RANGE) == pytest.approx((4 + 1) / 2, rel=1e-14)

    def test_neither_scale_nor_direction_matters(self) -> None:
        # 1e-13: the same numbers after one more rounding.
        assert r_score(3 * CLEAN - 7, 3 * ADV - 7, (-7, 23)) == pytest.approx(r_score(CLEAN, ADV, RANGE), rel=1e-13)
        assert r_score(-CLEAN, -ADV, (-10, 0)) == pytest.approx(r_score(CLEAN, ADV, RANGE), rel=1e-13)

    @pytest.mark.parametrize("base", [1, 0, -2, np.nan, np.inf])
    def test_a_bad_base_is_refused(self, base: float) -> None:
        with pytest.raises(ContractError, match="base"):
            r_score(CLEAN, ADV, RANGE, base=base)


class TestDistributions:
    def test_a_uniform_shift_is_its_own_wasserstein_distance(self) -> None:
        rng = np.random.default_rng(0)
        clean = rng.uniform(0, 10, 50)
        # 1e-12: fifty differences of rounded numbers.
        assert wasserstein(clean, clean + 2, RANGE) == pytest.approx(0.2, rel=1e-12)
        assert wasserstein(clean, clean - 2, RANGE) == pytest.approx(-0.2, rel=1e-12)
        assert energy_distance(clean, clean - 2, RANGE) < 0

    def test_point_masses(self) -> None:
        # Between points a distance d apart the energy distance is sqrt(2 d).
        assert energy_distance([1.0] * 4, [6.0] * 4, RANGE) == pytest.approx(1.0, rel=1e-14)

    def test_agrees_with_the_definitions(self) -> None:
        rng = np.random.default_rng(1)
        clean, adv = rng.uniform(0, 10, 30), rng.uniform(3, 14, 30)
        quantiles = np.mean(np.abs(np.sort(clean) - np.sort(adv))) / 10
        assert wasserstein(clean, adv, RANGE) == pytest.approx(quantiles, rel=1e-12)

        def apart(p: np.ndarray, q: np.ndarray) -> float:
            return float(np.mean(np.abs(p[:, None] - q[None, :])) / 10)

        energy = np.sqrt(2 * apart(clean, adv) - apart(clean, clean) - apart(adv, adv))
        # 1e-10: differences of means of 900 terms.
        assert energy_distance(clean, adv, RANGE) == pytest.approx(energy, rel=1e-10)

    def test_a_distance_without_a_mean_shift_stays(self) -> None:
        clean, adv = np.array([4.0, 6.0]), np.array([2.0, 8.0])
        assert wasserstein(clean, adv, RANGE) == pytest.approx(stats.wasserstein_distance(clean, adv) / 10)


def test_relative_gain_of_a_clean_score_below_the_range() -> None:
    # s = -2 would make the denominator -1 and turn a rise into a fall.
    assert relative_gain([-20.0], [-10.0], RANGE) == 1.0
