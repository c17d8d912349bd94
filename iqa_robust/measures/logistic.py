"""The mapping from a model's scores to the MOS scale, fitted on clean scores, reused on attacked ones."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize
from scipy.special import expit

from iqa_robust.measures.correlation import plcc_raw
from iqa_robust.measures.finite import Floats, check_range, finite_rows

MIN_IMAGES = 5
"""Four parameters pass through four points whatever they are."""

_SCALES = 0.1 * 2.0 ** np.arange(7)
"""Starting widths in robust standard deviations of the clean scores; the first and last are its limits."""
_STARTS = 3
_ROUNDS = 300


@dataclass(frozen=True)
class Logistic:
    """The mapping `left + (right - left) / (1 + exp(-(score - center) / scale))`, `scale` > 0.

    All fields are plain numbers, so `dataclasses.asdict` stores one and `Logistic(**stored)` restores it.
    A mapping that could not be fitted has NaN in all of them and maps everything to NaN.
    """

    left: float
    """MOS that the mapping tends to for ever lower scores."""
    right: float
    """MOS that the mapping tends to for ever higher scores; below `left` where lower is better."""
    center: float
    """Score that maps to the middle of `left` and `right`."""
    scale: float
    """Width of the transition, in units of the score."""
    converged: bool
    """Whether the optimizer met its tolerance. If not, these are the best parameters it saw."""

    def __call__(self, scores: ArrayLike) -> Floats:
        """Map scores of any shape to the MOS scale. What is not finite maps to NaN."""
        scores = np.asarray(scores, dtype=np.float64)
        z = (np.where(np.isfinite(scores), scores, np.nan) - self.center) / self.scale
        return self.left + (self.right - self.left) * expit(z)


UNDEFINED = Logistic(float("nan"), float("nan"), float("nan"), float("nan"), False)


def fit_logistic(scores: ArrayLike, mos: ArrayLike, mos_range: tuple[float, float] | None = None) -> Logistic:
    """Fit the four-parameter logistic of VQEG by least squares on clean scores.

    Two mappings are in use: this one (VQEG FR-TV phase I, 2000) and one with a fifth parameter, a linear term
    (Sheikh, Sabir and Bovik, IEEE TIP 2006). Here the mapping is applied to attacked scores, which lie far
    outside the scores it was fitted on. There the linear term predicts a MOS without limit and need not even
    be monotone, so that a stronger attack could look weaker. The four-parameter logistic is monotone and
    bounded everywhere. Its asymptotes are kept near the MOS scale, because on nearly linear data they would
    otherwise run away and the mapping would be unbounded in effect. A score far beyond the clean ones so maps
    to an end of the scale.

    The direction is fitted, not assumed: swapped asymptotes describe a model that counts the other way. PLCC
    on the images of the fit is therefore never below zero by more than rounding; the sign of the agreement is
    SROCC's to tell.

    The fit is deterministic: a grid of centers and widths (best asymptotes in closed form), then a bounded
    trust-region search from the best three centers. Its answer is never worse than the best of the grid, also where
    the search does not converge. Scores are first brought to zero median and unit robust spread, so that
    their scale does not matter, and the width stays within 0.1 to 6.4 of that spread, so that a few images
    make no step function.

    Args:
        scores: clean scores (n,), native units.
        mos: mean opinion scores (n,) of the same images.
        mos_range: (low, high) of the MOS scale, the limits of the asymptotes (widened to the MOS given,
            should these exceed it). Without it: the extremes of the MOS given, widened by half their distance
            on each side.

    Returns:
        The mapping; undefined (all NaN) for fewer than five images with finite values or a constant column.

    Raises:
        ContractError: columns of different length, or a range without low < high.
    """
    limits = None if mos_range is None else check_range(mos_range, "mos_range")
    x, y = finite_rows(scores, mos).columns
    return _fitted(x.tobytes(), y.tobytes(), limits)


@lru_cache(maxsize=8)
def _fitted(scores: bytes, mos: bytes, limits: tuple[float, float] | None) -> Logistic:
    """The fit; the cells of one model share their clean scores, and a table meets these one after the other."""
    x, y = np.frombuffer(scores), np.frombuffer(mos)
    if len(x) < MIN_IMAGES or x.min() == x.max() or y.min() == y.max():
        return UNDEFINED

    middle, spread = float(np.median(x)), _robust_spread(x)
    low, span = float(y.min()), float(y.max() - y.min())
    if limits is None:
        bottom, top = -0.5, 1.5
    else:
        bottom, top = min(0.0, (limits[0] - low) / span), max(1.0, (limits[1] - low) / span)
    z, target = (x - middle) / spread, (y - low) / span

    best = min(
        (_search(z, target, start, bottom, top) for start in _grid(z, target, bottom, top)),
        key=lambda result: float(result.cost),
    )
    left, right, center, log_scale = (float(value) for value in best.x)
    return Logistic(
        left=low + span * left,
        right=low + span * right,
        center=middle + spread * center,
        scale=spread * float(np.exp(log_scale)),
        converged=bool(best.success),
    )


def plcc(scores: ArrayLike, mos: ArrayLike, logistic: Logistic) -> float:
    """Pearson's correlation of MOS and mapped scores, with a mapping that was fitted on clean scores.

    NaN for fewer than three images, an undefined mapping, or mapped scores that are all equal.
    """
    return plcc_raw(logistic(scores), mos)


def _robust_spread(x: Floats) -> float:
    """Standard deviation by the distance of the quartiles, which strays do not move; else the usual one."""
    lower, upper = np.percentile(x, [25, 75])
    return float(upper - lower) / 1.349 if upper > lower else float(np.std(x))


def _grid(z: Floats, target: Floats, bottom: float, top: float) -> list[Floats]:
    """Starting points (left, right, center, log scale), best first, each with a center of its own."""
    inside = np.quantile(z, np.linspace(0, 1, 9))
    centers = np.unique(np.concatenate([[inside[0] - 2], inside, [inside[-1] + 2]]))
    mean = target.mean()
    found = []
    for center in centers:
        best = (np.inf, np.empty(0))
        for scale in _SCALES:
            s = expit((z - center) / scale)
            offset = s - s.mean()
            power = float(offset @ offset)
            slope = float(offset @ (target - mean)) / power if power > 0 else 0.0
            left, right = np.clip(mean - slope * s.mean() + np.array([0.0, slope]), bottom, top)
            error = float(np.sum((left + (right - left) * s - target) ** 2))
            if error < best[0]:
                best = (error, np.array([left, right, center, np.log(scale)]))
        found.append(best)
    found.sort(key=lambda item: item[0])
    return [start for _, start in found[:_STARTS]]


def _search(z: Floats, target: Floats, start: Floats, bottom: float, top: float) -> optimize.OptimizeResult:
    def residuals(p: Floats) -> Floats:
        return p[0] + (p[1] - p[0]) * expit((z - p[2]) * np.exp(-p[3])) - target

    def jacobian(p: Floats) -> Floats:
        u = (z - p[2]) * np.exp(-p[3])
        s = expit(u)
        bend = -(p[1] - p[0]) * s * (1 - s)
        return np.stack([1 - s, s, bend * np.exp(-p[3]), bend * u], axis=1)

    width = np.log(_SCALES[[0, -1]])
    lower = [bottom, bottom, z.min() - 10, width[0]]
    upper = [top, top, z.max() + 10, width[1]]
    result = optimize.least_squares(
        residuals,
        start,
        jac=jacobian,
        bounds=(lower, upper),
        ftol=1e-10,
        xtol=1e-10,
        gtol=1e-10,
        max_nfev=_ROUNDS,
    )
    # The search starts strictly inside the bounds, so a start on one can beat its answer.
    at_start = 0.5 * float(np.sum(residuals(start) ** 2))
    if at_start < result.cost:
        result.x, result.cost = start, at_start
    return result
