"""A head fitted by ridge regression, before any training."""

from __future__ import annotations

import numpy as np
import torch

from iqa_robust.models.learned import from_range
from iqa_robust.models.trunk_regressor import TrunkNetwork

ALPHAS = np.logspace(0, 5, 11)
"""Strengths of regularization tried by leave-one-out."""


@torch.no_grad()
def fit_head(network: TrunkNetwork, features: torch.Tensor, mos: torch.Tensor) -> None:
    """Standardize the network's pooled features by these (M, F), and fit its head to the MOS (M,) that go with them."""
    from sklearn.linear_model import RidgeCV

    mean, scale = features.mean(dim=0), features.std(dim=0).clamp(min=1e-6)
    target = from_range(mos, *network.score_range)
    fitted = RidgeCV(ALPHAS).fit(((features - mean) / scale).numpy(), target.numpy())
    network.feature_mean.copy_(mean)
    network.feature_scale.copy_(scale)
    network.head.weight.copy_(torch.from_numpy(np.atleast_2d(fitted.coef_)).float())
    network.head.bias.fill_(float(fitted.intercept_))
