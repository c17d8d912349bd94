"""How far an attack moved the scores, in five units. `shift = score_adv - score_clean`, per image, literally.

All functions take score_clean (n,) and score_adv (n,) of the same images, leave out images where either is
not finite, and are NaN where no image is left. `score_range` is the frozen range (low, high) of the track,
never one fitted on the scores at hand: two runs would not be on one scale. Where a sign is given toward
better quality, the scores must have gone through `toward_better` (and the range through
`toward_better_range`) first.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import Floats, check_range, finite_rows, mean_or_nan, vector
from iqa_robust.measures.logistic import Logistic

R_FLOOR = 1e-4
"""`r_score` counts a shift below this fraction of the score range as this fraction."""


def shift_mean(score_clean: ArrayLike, score_adv: ArrayLike) -> float:
    """Mean signed shift, native units of the model."""
    clean, adv = finite_rows(score_clean, score_adv).columns
    return mean_or_nan(adv - clean)


def shift_abs_mean(score_clean: ArrayLike, score_adv: ArrayLike) -> float:
    """Mean absolute shift, native units of the model."""
    clean, adv = finite_rows(score_clean, score_adv).columns
    return mean_or_nan(np.abs(adv - clean))


def shift_abs_scaled(score_clean: ArrayLike, score_adv: ArrayLike, score_range: tuple[float, float]) -> float:
    """Mean absolute shift as a fraction of the frozen range. Above 1 where scores leave the range."""
    low, high = check_range(score_range)
    return shift_abs_mean(score_clean, score_adv) / (high - low)


def shift_abs_sd(score_clean: ArrayLike, score_adv: ArrayLike) -> float:
    """Mean absolute shift in sample standard deviations (n - 1) of the clean scores.

    A model that answers almost the same for every image has a small shift and a large value here.
    NaN where the clean scores have no spread, or fewer than two images are left.
    """
    clean, adv = finite_rows(score_clean, score_adv).columns
    if clean.size < 2 or clean.min() == clean.max():
        return float("nan")
    return float(np.mean(np.abs(adv - clean)) / np.std(clean, ddof=1))


def shift_abs_mos(score_clean: ArrayLike, score_adv: ArrayLike, logistic: Logistic) -> float:
    """Mean absolute shift in MOS units, after the logistic that was fitted on the clean scores."""
    return shift_abs_mean(logistic(score_clean), logistic(score_adv))


def shift_p95(score_clean: ArrayLike, score_adv: ArrayLike) -> float:
    """95th percentile of the absolute shift (linear interpolation), native units of the model."""
    clean, adv = finite_rows(score_clean, score_adv).columns
    return float(np.percentile(np.abs(adv - clean), 95)) if clean.size else float("nan")


def out_of_range_share(scores: ArrayLike, score_range: tuple[float, float]) -> float:
    """Share of the finite scores that lie outside the frozen range, in [0, 1]."""
    low, high = check_range(score_range)
    scores = vector(scores)
    scores = scores[np.isfinite(scores)]
    return mean_or_nan(((scores < low) | (scores > high)).astype(np.float64))


def r_score(score_clean: ArrayLike, score_adv: ArrayLike, score_range: tuple[float, float], base: float = 10) -> float:
    """R robustness score: mean of log_base(max(high - f, f - low) / |f' - f|), f clean, f' attacked.

    The numerator is the largest shift that stays inside the range, so 0 means that the attack moved a score
    as far as the scale allows, 1 (base 10) a tenth of that; below 0, the attacked score left the range.
    Higher is more robust.

    An image with no shift at all is infinitely robust, and one such image would make the mean infinite.
    Shifts are therefore counted as at least `R_FLOOR` = 1e-4 of the range: an image contributes at most
    log_base(1e4) as long as its clean score is in range. That floor is far above float32 rounding of a score
    and below any published shift (the smallest of the MSU tables is 2.8e-4 of the range), so published values
    are not touched.

    Source: Zhang et al., "Perceptual Attacks of No-Reference Image Quality Models with Human-in-the-Loop",
    NeurIPS 2022. MSU's benchmark and most code use base 10; AttackVQA uses base e.

    Raises:
        ContractError: `base` is not a finite number above 1, or the range is not low < high.
    """
    low, high = check_range(score_range)
    if not (np.isfinite(base) and base > 1):
        raise ContractError(f"base: expected a finite number above 1, got {base}.")
    clean, adv = finite_rows(score_clean, score_adv).columns
    largest = np.maximum(high - clean, clean - low)
    shift = np.maximum(np.abs(adv - clean), R_FLOOR * (high - low))
    return mean_or_nan(np.log(largest / shift) / np.log(base))


def relative_gain(score_clean: ArrayLike, score_adv: ArrayLike, score_range: tuple[float, float]) -> float:
    """Mean of (s' - s) / (s + 1), scores on the frozen scale 0..1: MSU's normalized relative gain.

    In the denominator s is held inside [0, 1]: a clean score below the range would otherwise inflate the gain
    or flip its sign.
    """
    clean, adv = _on_scale(score_clean, score_adv, score_range)
    return mean_or_nan((adv - clean) / (np.clip(clean, 0, 1) + 1))


def wasserstein(score_clean: ArrayLike, score_adv: ArrayLike, score_range: tuple[float, float]) -> float:
    """1-Wasserstein distance of clean and attacked scores on the frozen scale, signed by the mean shift.

    A distance of distributions: it sees where the scores go as a crowd, not which image moved.
    Without a mean shift it counts as positive.
    """
    clean, adv = _on_scale(score_clean, score_adv, score_range)
    return _signed(stats.wasserstein_distance, clean, adv)


def energy_distance(score_clean: ArrayLike, score_adv: ArrayLike, score_range: tuple[float, float]) -> float:
    """Energy distance (SciPy's, a square root), scaled and signed as `wasserstein`."""
    clean, adv = _on_scale(score_clean, score_adv, score_range)
    return _signed(stats.energy_distance, clean, adv)


def _on_scale(score_clean: ArrayLike, score_adv: ArrayLike, score_range: tuple[float, float]) -> tuple[Floats, Floats]:
    low, high = check_range(score_range)
    clean, adv = finite_rows(score_clean, score_adv).columns
    return (clean - low) / (high - low), (adv - low) / (high - low)


def _signed(distance: Callable[[Floats, Floats], float], clean: Floats, adv: Floats) -> float:
    if not clean.size:
        return float("nan")
    return float(distance(clean, adv)) * (-1 if np.mean(adv - clean) < 0 else 1)
