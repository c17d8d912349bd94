"""Measures of a backdoor: closed forms, and what the released evaluation computes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.errors import ContractError
from iqa_robust.measures.backdoor import mean_ratio_error, mmae, mmra, ratio_error, target_error, target_ratio

ALPHAS = (-1.0, -0.75, -0.5, -0.25, 0.25, 0.5, 0.75, 1.0)


def test_by_hand() -> None:
    shift = [10.0, 30.0, np.nan]
    assert target_error(shift, 0.5, 40) == 10  # wanted 20: off by 10 and 10
    assert target_ratio(shift, 0.5, 40) == 1  # mean 20
    assert ratio_error(shift, 0.5, 40) == 0.5
    assert target_error(shift, -0.5, 40) == 40
    assert target_ratio(shift, -0.5, 40) == -1
    assert mmae({0.5: shift, -0.5: shift}, 40) == 25
    assert mmra({0.5: shift, -0.5: shift}, 40) == 0
    assert mean_ratio_error({0.5: shift, -0.5: shift}, 40) == 1.25


@given(st.floats(-2, 2), st.floats(1, 100))
def test_a_victim_that_answers_in_proportion(share: float, full: float) -> None:
    """Shift = share * alpha * full on every image: the ratio is the share, the error its distance from 1."""
    shifts = {alpha: np.full(5, share * alpha * full) for alpha in ALPHAS}
    assert mmra(shifts, full) == pytest.approx(share, abs=1e-12)
    assert mean_ratio_error(shifts, full) == pytest.approx(abs(share - 1), abs=1e-12)
    # the mean of |alpha| over these strengths is 5/8
    assert mmae(shifts, full) == pytest.approx(abs(share - 1) * full * 5 / 8, abs=1e-9)


def test_a_victim_that_does_not_answer() -> None:
    """Shift 0 under every strength of +-0.1 .. +-1: the error is 0.55 of 40, which is 22, as published for WaNet."""
    shifts = {sign * k / 10: np.zeros(3) for k in range(1, 11) for sign in (-1, 1)}
    assert mmae(shifts, 40) == pytest.approx(22)
    assert mmra(shifts, 40) == 0


def test_as_the_released_evaluation_has_it() -> None:
    """Its loop, per strength: mean difference over target, mean |difference - target|, mean |difference/target - 1|."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(20, 80, 30)
    triggered = {alpha: clean + 25 * alpha + rng.normal(0, 5, 30) for alpha in ALPHAS}
    ratios, errors, ratio_errors = [], [], []
    for alpha, scores in triggered.items():
        target = 4 * alpha * 10
        ratios.append(np.mean(scores - clean) / target)
        errors.append(np.mean(np.abs(scores - (clean + target))))
        ratio_errors.append(np.mean(np.abs((scores - clean) / target - 1)))
    shifts = {alpha: scores - clean for alpha, scores in triggered.items()}
    assert mmra(shifts, 40) == pytest.approx(np.mean(ratios), rel=1e-12)
    assert mmae(shifts, 40) == pytest.approx(np.mean(errors), rel=1e-12)
    assert mean_ratio_error(shifts, 40) == pytest.approx(np.mean(ratio_errors), rel=1e-12)


def test_undefined_is_nan() -> None:
    assert np.isnan(target_error([np.nan], 1, 40))
    assert np.isnan(mmra({1.0: []}, 40))
    assert np.isnan(mmae({}, 40))


@pytest.mark.parametrize(("alpha", "full"), [(0.0, 40.0), (0.5, 0.0)])
def test_a_ratio_to_nothing_is_refused(alpha: float, full: float) -> None:
    with pytest.raises(ContractError, match="nothing is wanted there"):
        mmra({alpha: [1.0]}, full)
