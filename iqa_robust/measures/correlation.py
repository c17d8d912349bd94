"""Agreement of two columns: Spearman, Pearson and Kendall correlation, and the root mean squared error.

All leave out the images where either value is not finite (`finite_rows` says how many) and are NaN where
undefined: fewer than three images, or a constant column. A model flattened by an attack is not
"uncorrelated", it is undefined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from iqa_robust.measures.finite import Floats, finite_rows

MIN_IMAGES = 3
"""With two images every correlation is 1 or -1 and says nothing."""


def srocc(a: ArrayLike, b: ArrayLike) -> float:
    """Spearman's rank-order correlation: Pearson's of the ranks, ties share their mean rank.

    Args:
        a: values (n,).
        b: values (n,) of the same images.

    Returns:
        A value in [-1, 1], or NaN.
    """
    pair = _defined_pair(a, b)
    if pair is None:
        return float("nan")
    return _pearson(stats.rankdata(pair[0]), stats.rankdata(pair[1]))


def plcc_raw(a: ArrayLike, b: ArrayLike) -> float:
    """Pearson's linear correlation of the values as they are, without a fitted mapping.

    Args:
        a: values (n,).
        b: values (n,) of the same images.

    Returns:
        A value in [-1, 1], or NaN.
    """
    pair = _defined_pair(a, b)
    return float("nan") if pair is None else _pearson(*pair)


def krocc(a: ArrayLike, b: ArrayLike) -> float:
    """Kendall's tau-b: (concordant - discordant pairs) / sqrt(pairs untied in a * pairs untied in b).

    Args:
        a: values (n,).
        b: values (n,) of the same images.

    Returns:
        A value in [-1, 1], or NaN.
    """
    pair = _defined_pair(a, b)
    if pair is None:
        return float("nan")
    # The p-value is not used; the asymptotic one never enumerates permutations.
    return float(stats.kendalltau(*pair, variant="b", method="asymptotic").statistic)


def rmse(a: ArrayLike, b: ArrayLike) -> float:
    """Root mean squared difference in the unit of the values; defined from one image on."""
    a, b = finite_rows(a, b).columns
    return float(np.sqrt(np.mean((a - b) ** 2))) if a.size else float("nan")


def _defined_pair(a: ArrayLike, b: ArrayLike) -> tuple[Floats, Floats] | None:
    a, b = finite_rows(a, b).columns
    if len(a) < MIN_IMAGES or a.min() == a.max() or b.min() == b.max():
        return None
    return a, b


def _pearson(a: Floats, b: Floats) -> float:
    a, b = _unit(a), _unit(b)
    return float(np.clip(np.dot(a, b), -1.0, 1.0))


def _unit(values: Floats) -> Floats:
    """Center and scale to length 1, in two steps so that squares neither overflow nor vanish."""
    centered = values - values.mean()
    centered = centered / np.abs(centered).max()
    centered -= centered.mean()
    return centered / np.linalg.norm(centered)
