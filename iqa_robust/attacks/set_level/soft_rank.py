"""Soft ranks of a set of scores (Blondel et al., ICML 2020): a projection onto the permutahedron, with its gradient."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def soft_ranks(scores: np.ndarray, strength: float) -> tuple[np.ndarray, Callable[[np.ndarray], np.ndarray]]:
    """Ranks from 1 (lowest score) to M that change smoothly with the scores.

    The point of the permutahedron of (1, ..., M), the convex hull of its permutations, that is nearest to
    `scores / strength` in L2. Where neighboring scores are further apart than `strength` it is the hard ranks; the
    larger `strength`, the nearer all ranks come to their mean. With both sorted in falling order the projection is
    what an isotonic regression leaves over (their proposition 3), found by pooling adjacent violators.

    Args:
        scores: (M,) numbers.
        strength: of the regularization, in units of the scores, above 0.

    Returns:
        The ranks (M,) float64, and a function from a gradient (M,) with respect to the ranks to the gradient with
        respect to the scores. It is exact: within a pooled block the ranks follow the scores up to their common mean.
    """
    from sklearn.isotonic import isotonic_regression

    scores = np.asarray(scores, dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    falling = scores[order] / strength
    pooled = isotonic_regression(falling - np.arange(len(scores), 0, -1.0), increasing=False)
    ranks = np.empty_like(scores)
    ranks[order] = falling - pooled
    starts = np.flatnonzero(np.concatenate([[True], pooled[1:] != pooled[:-1]]))
    sizes = np.diff(np.append(starts, len(scores)))

    def backward(slope: np.ndarray) -> np.ndarray:
        sorted_slope = slope[order]
        means = np.repeat(np.add.reduceat(sorted_slope, starts) / sizes, sizes)
        result = np.empty_like(sorted_slope)
        result[order] = (sorted_slope - means) / strength
        return result

    return ranks, backward
