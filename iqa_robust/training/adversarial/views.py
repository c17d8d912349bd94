"""One batch as the terms of the loss see it: clean, attacked, intervened; every view made at most once."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch

from iqa_robust.models.gates.base import Gate
from iqa_robust.models.modes import comparing_mode, evaluation_mode
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.training.adversarial.settings import Interventions, Latent


class Views:
    """A batch, and what the network says of it. Scores and labels are on the scale of [-1, 1]."""

    def __init__(
        self,
        network: ScoreNetwork,
        on_scale: Callable[[torch.Tensor], torch.Tensor],
        images: torch.Tensor,
        target: torch.Tensor,
        *,
        attacked: tuple[torch.Tensor, torch.Tensor] | None,
        eps: float,
        interventions: Interventions | None,
        latent: Latent | None,
    ) -> None:
        """`on_scale`: from the network's units to [-1, 1].

        `attacked`: perturbed images and their labels, where a term needs them. `eps`: the radius now in force.
        """
        self.network = network
        self._on_scale = on_scale
        self.images = images
        self.target = target
        self._attacked = attacked
        self._eps = eps
        self._interventions = interventions or Interventions()
        self.latent = latent or Latent()

    def head(self, features: torch.Tensor) -> torch.Tensor:
        """Scores (N,) of pooled features (N, F) that are to be compared: without dropout, in float32."""
        with comparing_mode(self.network), torch.autocast(features.device.type, enabled=False):
            return self._on_scale(self.network.score_features(features.float()))

    def compared(self, images: torch.Tensor, *, exact: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of the clean images (N,) and of others (K N, 3, h, w), made to be compared: see `head`.

        All of them share one pass, so that batch statistics hide no shift that they have in common. `exact`: float32
        from the images on, for changes of a gray level or less, which bfloat16 rounds away.
        """
        together = torch.cat([self.images, images])
        allowed = torch.is_autocast_enabled(images.device.type) and not exact
        with comparing_mode(self.network), torch.autocast(images.device.type, torch.bfloat16, enabled=allowed):
            features = self.network.features(together)
        scores = self.head(features)
        return scores[: len(self.images)], scores[len(self.images) :]

    @cached_property
    def _all_features(self) -> torch.Tensor:
        """Clean and attacked images in one pass, so that batch statistics are those of both."""
        images = self.images if self._attacked is None else torch.cat([self.images, self._attacked[0]])
        features = self.network.features(images)
        # a later pass, over moved images, would replace them
        predicted = [gate.auxiliary_scores for gate in self.network.gates if isinstance(gate, Gate)]
        self._auxiliary = [scores for scores in predicted if scores is not None]
        return features

    @cached_property
    def _all_scores(self) -> torch.Tensor:
        return self._on_scale(self.network.score_features(self._all_features))

    @property
    def clean_features(self) -> torch.Tensor:
        """Pooled features (N, F) of the clean images."""
        return self._all_features[: len(self.images)]

    @property
    def clean_scores(self) -> torch.Tensor:
        """(N,) of the clean images."""
        return self._all_scores[: len(self.images)]

    @property
    def attacked_scores(self) -> torch.Tensor:
        """(N,) of the attacked images."""
        return self._all_scores[len(self.images) :]

    @cached_property
    def _pairs(self) -> torch.Tensor:
        return self.head(self._all_features)

    @property
    def pairs(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores of the clean and of the attacked images (N,) each, made to be compared: see `head`."""
        return self._pairs[: len(self.images)], self._pairs[len(self.images) :]

    @property
    def attacked_target(self) -> torch.Tensor:
        """Labels (N,) of the attacked images."""
        assert self._attacked is not None  # a recipe whose terms need an inner player has one
        return self._attacked[1]

    @property
    def all_targets(self) -> torch.Tensor:
        """Labels in the order of the pass: clean, then attacked where there are any."""
        return self.target if self._attacked is None else torch.cat([self.target, self._attacked[1]])

    @property
    def auxiliary_scores(self) -> list[torch.Tensor]:
        """What the gates with a predictor of their own say of `all_targets`, before `into_range`."""
        _ = self._all_features
        return self._auxiliary

    @cached_property
    def _slopes(self) -> torch.Tensor:
        """Gradients of the scores at the clean images, without a history."""
        with evaluation_mode(self.network), torch.autocast(self.images.device.type, enabled=False):
            x = self.images.detach().requires_grad_()
            (slope,) = torch.autograd.grad(self._on_scale(self.network(x)).sum(), x)
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
            signs = torch.randn_like(self.images).sign() if kind == 1 else self.slope_signs() * (1 if kind == 2 else -1)
            series.append((self.images + self._eps * number / count * signs).clamp(0, 1))
        return torch.cat(series)
