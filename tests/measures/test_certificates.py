"""Measures of certified intervals, by hand."""

from __future__ import annotations

import math

import numpy as np

from iqa_robust.measures.certificates import abstention_share, outside, shift_certified, width_mean

INF, NAN = math.inf, math.nan
LOW = [10.0, 20.0, -INF, -INF, NAN]
HIGH = [30.0, 24.0, INF, 5.0, NAN]


def test_width_is_a_mean_of_the_finite_ones() -> None:
    assert width_mean(LOW, HIGH) == 12
    assert math.isnan(width_mean([-INF, NAN], [INF, NAN]))


def test_abstained_is_without_any_promise() -> None:
    assert abstention_share(LOW, HIGH) == 0.25  # one of the four that have a certificate
    assert math.isnan(abstention_share([NAN], [NAN]))


def test_the_certified_shift_is_that_to_the_farther_end() -> None:
    np.testing.assert_array_equal(shift_certified([11.0, 23.0, 1.0, 1.0, 1.0], LOW, HIGH), [19, 3, INF, INF, NAN])


def test_outside() -> None:
    assert outside([9.9, 24.1, 1e9, 5.0, 0.0], LOW, HIGH).tolist() == [True, True, False, False, False]
    assert outside([10 - 9e-6, 24 + 3e-5, NAN, 5 + 4e-6, 0.0], LOW, HIGH).tolist() == [False, True, False, False, False]
