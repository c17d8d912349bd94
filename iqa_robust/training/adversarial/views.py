"""One batch as the terms of the loss see it: clean, attacked, intervened; every view made at most once."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import torch

from iqa_robust.models.gates.base import Gate
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.training.adversarial.inner import Scores, evaluating
from iqa_robust.training.adversarial.settings import Interventions, Latent


class Views:
    """A batch, and what the network says of it. Scores and labels are on the scale of [-1, 1]."""

    def __init__(
        self,
        network: ScoreNetwork,
        scores: Scores,
        images: torch.Tensor,
        target: torch.Tensor,
        *,
        attacked: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
        interventions: Interventions | None,
        latent: Latent | None,
    ) -> None:
        """`attacked`: perturbed images and their labels, where a term needs them. `eps`: the radius now in force."""
        self.network = network
        self.scores = scores
        self.images = images
        self.target = target
        self._attacked = attacked
        self._eps = eps
        self._interventions = interventions or Interventions()
        self.latent = latent or Latent()

    @cached_property
    def _all_scores(self) -> torch.Tensor:
        """Clean and attacked images in one pass, so that batch statistics are those of both."""
        if self._attacked is None:
            return self.scores(self.images)
        return self.scores(torch.cat([self.images, self._attacked[0]]))

    @property
    def clean_scores(self) -> torch.Tensor:
        """(N,) of the clean images."""
        return self._all_scores[: len(self.images)]

    @property
    def attacked_scores(self) -> torch.Tensor:
        """(N,) of the attacked images."""
        return self._all_scores[len(self.images) :]

    @property
    def attacked_target(self) -> torch.Tensor:
        """Labels (N,) of the attacked images."""
        assert self._attacked is not None  # a recipe whose terms need an inner player has one
        return self._attacked[1]

    @property
    def all_targets(self) -> torch.Tensor:
        """Labels in the order of the pass: clean, then attacked where there are any."""
        return self.target if self._attacked is None else torch.cat([self.target, self._attacked[1]])

    def gates(self) -> Iterator[Gate]:
        """The gates, after the pass over clean and attacked images."""
        _ = self._all_scores
        return (module for module in self.network.modules() if isinstance(module, Gate))

    @cached_property
    def _slopes(self) -> torch.Tensor:
        """Gradients of the scores at the clean images, without a history."""
        with evaluating(self.network):
            x = self.images.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self.scores(x).sum(), x)
        return slope

    def slope_signs(self) -> torch.Tensor:
        """(N, 3, h, w) of -1, 0 and 1."""
        return self._slopes.sign()

    def interventions(self) -> torch.Tensor:
        """The series of `Interventions`, (K N, 3, h, w): all images of number 1, then of number 2, and so on."""
        count = self._interventions.count
        series = []
        for number in range(1, count + 1):
            kind = number % 3
            signs = torch.randn_like(self.images).sign() if kind == 0 else self.slope_signs() * (1 if kind == 1 else -1)
            series.append((self.images + self._eps * number / count * signs).clamp(0, 1))
        return torch.cat(series)
