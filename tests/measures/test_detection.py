"""AUROC and true positives at a rate of false ones, against scikit-learn."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score, roc_curve

from iqa_robust.errors import ContractError
from iqa_robust.measures.detection import auroc, threshold_at_fpr, tpr_at_fpr

VALUES = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=50)
"""Few different values, so that there are many ties."""


@given(VALUES, VALUES)
def test_auroc_is_scikit_learns(clean: list[float], attacked: list[float]) -> None:
    labels = [0] * len(clean) + [1] * len(attacked)
    assert auroc(clean, attacked) == pytest.approx(roc_auc_score(labels, clean + attacked), abs=1e-12)


@given(VALUES, VALUES, st.sampled_from([0.0, 0.05, 0.1, 0.5]))
def test_tpr_is_the_highest_that_scikit_learns_curve_allows(
    clean: list[float], attacked: list[float], fpr: float
) -> None:
    labels = [0] * len(clean) + [1] * len(attacked)
    false, true, _ = roc_curve(labels, clean + attacked, drop_intermediate=False)
    best = true[false <= fpr + 1e-12].max()
    # Between two attacked values a threshold may also be lower than every clean value above it: the same point.
    assert tpr_at_fpr(clean, attacked, fpr) == pytest.approx(best, abs=1e-12)


def test_by_hand() -> None:
    clean = np.arange(20.0)
    assert threshold_at_fpr(clean) == 18  # one of twenty is above
    assert tpr_at_fpr(clean, [17.0, 18.0, 18.5, np.nan, 30.0]) == 0.5
    assert auroc(clean, [np.nan, 100.0]) == 1
    assert math.isnan(auroc([], [1.0])) and math.isnan(tpr_at_fpr([np.nan], [1.0]))
    with pytest.raises(ContractError, match=r"expected fpr in \[0, 1\), got 1\.5"):
        threshold_at_fpr(clean, 1.5)
