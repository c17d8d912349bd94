"""How well a backdoor's trigger steers the scores: each shift against the one that was poisoned into the training data.

A trigger of strength alpha was shown with labels moved by alpha times a full shift; on a scale of 0 to 100 Yu et al.
(AAAI 2025) take 40. Shifts are score with the trigger less score without, per image, in the unit of the full shift.
The means over strengths take one array (n,) per strength, each weighing the same; the strengths are not 0. Images
whose shift is not finite are left out, and where none is left the measure is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import ArrayLike

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import finite_rows, mean_or_nan

Shifts = Mapping[float, ArrayLike]
"""Strength -> shifts (n,)."""


def target_error(shift: ArrayLike, alpha: float, full_shift: float) -> float:
    """Mean absolute difference between the shifts (n,) and the wanted one, alpha times the full shift."""
    (found,) = finite_rows(shift).columns
    return mean_or_nan(np.abs(found - alpha * full_shift))


def target_ratio(shift: ArrayLike, alpha: float, full_shift: float) -> float:
    """Mean shift (n,) as a multiple of the wanted one: 1 is all of it, 0 none, below 0 the other way."""
    (found,) = finite_rows(shift).columns
    return mean_or_nan(found) / _wanted(alpha, full_shift)


def ratio_error(shift: ArrayLike, alpha: float, full_shift: float) -> float:
    """Mean over images (n,) of the absolute difference between shift / wanted shift and 1."""
    return target_error(shift, alpha, full_shift) / abs(_wanted(alpha, full_shift))


def mmae(shifts: Shifts, full_shift: float) -> float:
    """Mean over the strengths of `target_error`: the paper's mMAE, best 0."""
    return _mean_over(shifts, full_shift, target_error)


def mmra(shifts: Shifts, full_shift: float) -> float:
    """Mean over the strengths of `target_ratio`: the paper's mMRA, best 1."""
    return _mean_over(shifts, full_shift, target_ratio)


def mean_ratio_error(shifts: Shifts, full_shift: float) -> float:
    """Mean over the strengths of `ratio_error`, best 0.

    The released code prints it beside mMRA. Unlike mMRA, in which too much here makes up for too little there, it
    cannot be good by accident.
    """
    return _mean_over(shifts, full_shift, ratio_error)


def _mean_over(shifts: Shifts, full_shift: float, measure: Callable[[ArrayLike, float, float], float]) -> float:
    if not shifts:
        return float("nan")
    return float(np.mean([measure(shift, alpha, full_shift) for alpha, shift in shifts.items()]))


def _wanted(alpha: float, full_shift: float) -> float:
    if alpha == 0 or full_shift == 0:
        raise ContractError("backdoor: expected a strength and a full shift other than 0; nothing is wanted there.")
    return alpha * full_shift
