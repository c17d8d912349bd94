"""The terms of a robust loss. Scores and labels are on the scale of [-1, 1]; every term is a scalar to be minimized."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch

from iqa_robust.errors import RequestError
from iqa_robust.models.learned import into_range
from iqa_robust.models.orthogonality import orthogonality_penalty
from iqa_robust.training.adversarial.necessity import necessity
from iqa_robust.training.adversarial.settings import LossTerm
from iqa_robust.training.adversarial.views import Views
from iqa_robust.training.losses import EPSILON, LOSSES

NT_STEP = 0.01 * 0.226
"""NT's h = .01 counts in inputs normalized by ImageNet's deviations, .226 of full scale on average."""


def label_term(views: Views, term: LossTerm) -> torch.Tensor:
    """A loss of `training.losses` between scores and labels, of clean or of attacked images."""
    if term.on == "clean":
        return LOSSES[term.name](views.clean_scores, views.target)
    return LOSSES[term.name](views.attacked_scores, views.attacked_target)


def difference(views: Views, term: LossTerm) -> torch.Tensor:
    """Mean squared score difference between attacked and clean: TRADES (Zhang et al., ICML 2019), form for scores.

    It can be lowered by shrinking all scores, without any gain in robustness: see `scaled_difference`.
    """
    clean, attacked = views.pairs
    return (attacked - clean).square().mean()


def scaled_difference(views: Views, term: LossTerm) -> torch.Tensor:
    """`difference` in units of the batch's variance of clean scores: shrinking all scores gains nothing."""
    clean, _ = views.pairs
    return difference(views, term) / (clean.var() + EPSILON)


def gradient_norm(views: Views, term: LossTerm) -> torch.Tensor:
    """NT (Liu et al., CVPR 2024): half the squared finite-difference slope along the sign of the gradient.

    0.5 mean[((f(x + h v) - f(x)) / .01)^2], v = sign(grad f(x)), h = .01 of the normalized input. The published weight
    of 1e-3 beside an L1 loss is for scores of 0 to 100; on [-1, 1] the same balance is a weight of .05, since the
    penalty counts squares (50^2 / 50 * 1e-3).
    """
    clean, moved = views.compared(views.images + NT_STEP * views.slope_signs(), exact=True)
    return 0.5 * ((moved - clean) / 0.01).square().mean()


def invariance(views: Views, term: LossTerm) -> torch.Tensor:
    """Causal-invariance loss over a series of intervened images (CPRL 2025; our reading of its abstract).

    Mean squared score difference from the clean image over the series, in units of the variance of the clean scores.
    """
    clean, moved = views.compared(views.interventions())
    return (moved.reshape(-1, len(clean)) - clean).square().mean() / (clean.var() + EPSILON)


def latent_necessity(views: Views, term: LossTerm) -> torch.Tensor:
    """Necessity of the pooled features, against a latent player; see `necessity`."""
    return necessity(views.head, views.clean_features.float(), views.latent)


def auxiliary(views: Views, term: LossTerm) -> torch.Tensor:
    """Mean squared error of the gates' own predictions (CAS, CIFS), over clean and, where made, attacked images.

    Raises:
        RequestError: no gate has a predictor of its own.
    """
    if not views.auxiliary_scores:
        raise RequestError("recipe: loss: the term 'auxiliary' needs a gate with a predictor, 'cas' or 'cifs'.")
    errors = [into_range(scores, -1.0, 1.0) - views.all_targets for scores in views.auxiliary_scores]
    return torch.stack([error.square().mean() for error in errors]).mean()


def orthogonality(views: Views, term: LossTerm) -> torch.Tensor:
    """Distance of all layers from orthogonal ones, after `models.orthogonality`."""
    return orthogonality_penalty(views.network)


TERMS: Mapping[str, Callable[[Views, LossTerm], torch.Tensor]] = MappingProxyType(
    dict.fromkeys(LOSSES, label_term)
    | {
        "difference": difference,
        "scaled-difference": scaled_difference,
        "gradient-norm": gradient_norm,
        "invariance": invariance,
        "necessity": latent_necessity,
        "auxiliary": auxiliary,
        "orthogonality": orthogonality,
    }
)
"""Every term by its name."""
