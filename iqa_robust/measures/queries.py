"""Shift against queries, from the improvements an attack recorded: every smaller budget from one run."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import Floats, vector


def shift_at_queries(
    score_clean: ArrayLike,
    curve_queries: Sequence[Sequence[int]],
    curve_scores: Sequence[Sequence[float]],
    at: ArrayLike,
) -> Floats:
    """Mean |shift| after each number of queries in `at` (k,), native units.

    An image's score after q queries is that of its last improvement within them, and its clean score before the first.

    Args:
        score_clean: (n,) scores of the attacked model. An image whose score is not finite is left out.
        curve_queries: per image, queries spent at each improvement, rising.
        curve_scores: per image, the score at each.
        at: numbers of queries.

    Returns:
        (k,); NaN without images.

    Raises:
        ContractError: the lists do not belong together.
    """
    clean, marks = vector(score_clean, "score_clean"), vector(at, "at")
    if not len(clean) == len(curve_queries) == len(curve_scores):
        raise ContractError(
            f"curve_queries, curve_scores: expected one list for each of {len(clean)} images,"
            f" got {len(curve_queries)} and {len(curve_scores)}."
        )
    shifts = []
    for start, queries, scores in zip(clean, curve_queries, curve_scores, strict=True):
        if len(queries) != len(scores):
            raise ContractError(f"curve_scores: expected {len(queries)} of an image, got {len(scores)}.")
        if np.isfinite(start):
            reached = np.concatenate([[start], np.asarray(scores, dtype=np.float64)])
            shifts.append(np.abs(reached[np.searchsorted(np.asarray(queries), marks, side="right")] - start))
    return np.mean(shifts, axis=0) if shifts else np.full(len(marks), np.nan)
