"""The losses against NumPy and SciPy, and their properties."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr

from iqa_robust.training.losses import LOSSES, norm_in_norm, plcc

SCORES = st.lists(st.integers(-50, 50), min_size=3, max_size=12, unique=True)


@given(SCORES, st.randoms(use_true_random=False))
def test_plcc_is_scipys(values: list[int], random) -> None:
    other = list(values)
    random.shuffle(other)
    loss = plcc(torch.tensor(values, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)).item()
    assert loss == pytest.approx((1 - pearsonr(values, other).statistic) / 2, abs=1e-8)  # EPSILON in the norms


@given(SCORES, st.randoms(use_true_random=False))
def test_norm_in_norm_is_its_equation(values: list[int], random) -> None:
    other = list(values)
    random.shuffle(other)
    a, b = (np.array(v, dtype=float) - np.mean(v) for v in (values, other))
    expected = np.abs(a / np.linalg.norm(a) - b / np.linalg.norm(b)).sum() / (2 * np.sqrt(len(values)))
    loss = norm_in_norm(torch.tensor(values, dtype=torch.float64), torch.tensor(other, dtype=torch.float64)).item()
    assert loss == pytest.approx(expected, abs=1e-8)  # EPSILON in the norms
    assert 0 <= loss <= 1


@given(SCORES, st.floats(0.1, 10), st.floats(-5, 5))
def test_correlation_losses_do_not_see_scale_and_offset(values: list[int], scale: float, offset: float) -> None:
    target = torch.tensor(values, dtype=torch.float64)
    for loss in (plcc, norm_in_norm):
        assert loss(target * scale + offset, target).item() == pytest.approx(0, abs=1e-6)  # EPSILON over norms >= 0.1
    assert plcc(-target, target).item() == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_gradients_are_finite_even_for_constant_predictions(name: str) -> None:
    predicted = torch.full((5,), 0.3, requires_grad=True)
    LOSSES[name](predicted, torch.linspace(-1, 1, 5)).backward()
    assert predicted.grad is not None
    assert bool(torch.isfinite(predicted.grad).all())
