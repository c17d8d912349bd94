"""How well a statistic tells attacked images from clean ones: larger is more suspicious, and NaN is left out."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from iqa_robust.errors import ContractError
from iqa_robust.measures.finite import finite_rows, mean_or_nan


def auroc(clean: ArrayLike, attacked: ArrayLike) -> float:
    """Area under the ROC curve: the share of pairs in which the attacked image (m,) is above the clean one (n,).

    Ties count half; 0.5 is a guess. NaN where one side is empty.
    """
    (low,), (high,) = finite_rows(clean).columns, finite_rows(attacked).columns
    if not (low.size and high.size):
        return float("nan")
    ranks = rankdata(np.concatenate([low, high]))[low.size :]
    return float((ranks.sum() - high.size * (high.size + 1) / 2) / (low.size * high.size))


def threshold_at_fpr(clean: ArrayLike, fpr: float = 0.05) -> float:
    """The smallest clean value (n,) that at most a share `fpr` of the clean images exceeds; NaN without images.

    Raises:
        ContractError: `fpr` is not between 0 and 1.
    """
    if not 0 <= fpr < 1:
        raise ContractError(f"detection: expected fpr in [0, 1), got {fpr!r}.")
    (values,) = finite_rows(clean).columns
    if not values.size:
        return float("nan")
    ordered = np.sort(values)
    return float(ordered[values.size - 1 - int(np.floor(fpr * values.size + 1e-9))])


def tpr_at_fpr(clean: ArrayLike, attacked: ArrayLike, fpr: float = 0.05) -> float:
    """Share of the attacked images (m,) above the threshold that at most a share `fpr` of the clean ones exceeds."""
    threshold = threshold_at_fpr(clean, fpr)
    (high,) = finite_rows(attacked).columns
    return float("nan") if np.isnan(threshold) else mean_or_nan((high > threshold).astype(np.float64))
