"""What certified intervals are worth: how wide they are, how often there is none, and whether a score broke out.

A certificate gives each image an interval [low, high] in native units that no score of a nearby image may leave. It is
infinite on both sides where the defense abstains, and NaN where there is no image.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from iqa_robust.measures.finite import Floats, finite_rows, mean_or_nan, vector

ROUNDING = 1e-6
"""Relative error of a mean of float32 scores, with some room."""


def width_mean(low: ArrayLike, high: ArrayLike) -> float:
    """Mean of high - low over the images (n,) whose interval is finite; NaN where there is none."""
    lower, upper = finite_rows(low, high).columns
    return mean_or_nan(upper - lower)


def abstention_share(low: ArrayLike, high: ArrayLike) -> float:
    """Share of the images (n,) without any promise, of those that have a certificate; NaN where none has."""
    lower, upper = _given(low, high)
    return mean_or_nan((np.isneginf(lower) & np.isposinf(upper)).astype(np.float64))


def shift_certified(clean: ArrayLike, low: ArrayLike, high: ArrayLike) -> Floats:
    """(n,) the largest shift from the clean score that the interval allows; infinite where it is open."""
    score = vector(clean)
    return np.maximum(vector(high) - score, score - vector(low))


def outside(scores: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.bool_]:
    """(n,) whether the score left its interval by more than `ROUNDING` of itself; False where one of them is NaN."""
    score = vector(scores)
    slack = ROUNDING * np.abs(score)
    return (score < vector(low) - slack) | (score > vector(high) + slack)


def _given(low: ArrayLike, high: ArrayLike) -> tuple[Floats, Floats]:
    lower, upper = vector(low), vector(high)
    there = ~(np.isnan(lower) | np.isnan(upper))
    return lower[there], upper[there]
