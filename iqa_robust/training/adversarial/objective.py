"""The loss of a score recipe: its terms on the views of a batch, with the inner player where one is asked for."""

from __future__ import annotations

import torch

from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.training.adversarial.inner import InnerPlayer
from iqa_robust.training.adversarial.labels import labels_of
from iqa_robust.training.adversarial.terms import TERMS
from iqa_robust.training.adversarial.views import Views
from iqa_robust.training.losses import LOSSES
from iqa_robust.training.recipe import ScoreRecipe


class TrainingObjective:
    """Calls the inner player and adds up the terms. Scores and labels are mapped to [-1, 1]."""

    def __init__(
        self, recipe: ScoreRecipe, network: ScoreNetwork, score_range: tuple[float, float], *, higher_is_better: bool
    ) -> None:
        """`score_range`: of labels and scores, native units."""
        self._recipe = recipe
        self._network = network
        low, high = score_range
        self._middle, self._half = (low + high) / 2, (high - low) / 2
        self._worse = -1.0 if higher_is_better else 1.0
        self.player = None if recipe.inner is None else InnerPlayer(recipe.inner, network, self.scores, self.label_loss)
        self._attacks = any(term.sees_attacked for term in recipe.loss)

    @property
    def replays(self) -> int:
        """How often a batch is trained on before the next one comes."""
        inner = self._recipe.inner
        return inner.steps if inner is not None and inner.method == "free" else 1

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        """Scores (N,) on [-1, 1], float32."""
        return self.on_scale(self._network(images))

    def on_scale(self, scores: torch.Tensor) -> torch.Tensor:
        """Native units to [-1, 1], float32."""
        return (scores.float() - self._middle) / self._half

    def label_loss(self, scores: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """The sum of the terms that compare scores of attacked images (N,) with labels, both on [-1, 1]."""
        terms = [term for term in self._recipe.loss if term.on == "attacked"]
        return torch.stack([term.weight * LOSSES[term.name](scores, target) for term in terms]).sum()

    def loss(self, images: torch.Tensor, labels: torch.Tensor, *, share_done: float, first_visit: bool) -> torch.Tensor:
        """The sum of the terms.

        Args:
            images: (N, 3, h, w).
            labels: (N,), native units.
            share_done: of the training, in [0, 1]; the radius may rise with it.
            first_visit: whether the free training's perturbation starts anew, as it does in every epoch.
        """
        target = self.on_scale(labels)
        eps = 0.0 if self.player is None else self.player.radius(share_done)
        views = Views(
            self._network,
            self.on_scale,
            images,
            target,
            attacked=self._attacked(images, target, eps, first_visit),
            eps=eps,
            interventions=self._recipe.interventions,
            latent=self._recipe.latent,
        )
        return torch.stack([term.weight * TERMS[term.name](views, term) for term in self._recipe.loss]).sum()

    def _attacked(
        self, images: torch.Tensor, target: torch.Tensor, eps: float, first_visit: bool
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        if self.player is None or not self._attacks:
            return None
        if self.player.settings.method == "free":
            attacked = self.player.replayed(images, eps, first=first_visit)
        else:
            attacked = self.player.perturbed(images, target, eps)
        return attacked, labels_of(self.player.settings, target, images, attacked, worse=self._worse)
