"""The inner player: perturbed images of a batch, found on the network in training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from iqa_robust import attacks, models
from iqa_robust.models.base import ModelInfo
from iqa_robust.models.modes import evaluation_mode
from iqa_robust.records import Budget
from iqa_robust.training.adversarial.settings import Inner

Scores = Callable[[torch.Tensor], torch.Tensor]
"""Images (N, 3, h, w) -> scores (N,), on the scale of [-1, 1]."""
Value = Callable[[torch.Tensor], torch.Tensor]
"""Scores (N,) -> what the player maximizes, (N,), or one number for the batch."""


def _step_ratio(settings: Inner) -> float:
    """Of FGSM from a random start (Wong et al., 2020) and of N-FGSM; several steps cross the ball."""
    if settings.steps > 1:
        return 2.5 / settings.steps
    return 1.0 if settings.start == "noise" else 1.25


def aim(name: str, clean: torch.Tensor, target: torch.Tensor) -> Value:
    """The quantity that the player maximizes, per image, as `Inner.aim` names it.

    Args:
        name: the aim.
        clean: scores of the clean images (N,), without a history.
        target: labels (N,).
    """
    if name == "error":
        return lambda scores: (scores - target).square()
    if name == "difference":
        return lambda scores: (scores - clean).square()
    if name == "reflect":
        return lambda scores: -(scores + clean).square()
    side = torch.where(target > target.median(), 1.0, -1.0)
    return away_from(side)


def away_from(side: torch.Tensor) -> Value:
    """Scores of images on the upper side (+1) are pushed down, those on the lower side (-1) up."""
    return lambda scores: -side * scores


class InnerPlayer:
    """Perturbs batches as a recipe says. Randomness is torch's global one, which the training loop seeds per epoch."""

    def __init__(
        self,
        settings: Inner,
        network: nn.Module,
        scores: Scores,
        label_loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] | None = None,
    ) -> None:
        """`scores` are those of `network`, which is in evaluation mode while the player looks for images.

        `label_loss`: scores and labels (N,) of attacked images to the terms of the loss that compare them; for the aim
        `loss`.
        """
        self.settings = settings
        self._network = network
        self._scores = scores
        self._label_loss = label_loss
        self._replayed: torch.Tensor | None = None

    def radius(self, share_done: float) -> float:
        """Eps, a fraction of full scale, after `share_done` of the training."""
        ramp = self.settings.ramp
        return self.settings.eps_255 / 255 * (min(share_done / ramp, 1.0) if ramp else 1.0)

    def perturbed(self, images: torch.Tensor, target: torch.Tensor, eps: float) -> torch.Tensor:
        """Images (N, 3, h, w) in [0, 1], within `eps` of the clean ones (twice plus a step for the start `noise`)."""
        name = self.settings.aim
        assert name is not None  # only the free training has none, and it replays
        if self.settings.method == "apgd":
            return self._apgd(name, images, target, eps)
        with evaluation_mode(self._network):
            with torch.no_grad():
                clean = self._scores(images)
            value = self._loss_for(target) if name == "loss" else aim(name, clean, target)
            return self._climb(images, value, eps)

    def _loss_for(self, target: torch.Tensor) -> Value:
        label_loss = self._label_loss
        assert label_loss is not None  # the objective gives one
        return lambda scores: label_loss(scores, target)

    def pushed(self, images: torch.Tensor, side: torch.Tensor, eps: float) -> torch.Tensor:
        """Images whose scores are pushed away from their side, (N,) of +1 and -1, whatever the recipe's aim."""
        with evaluation_mode(self._network):
            return self._climb(images, away_from(side), eps)

    def replayed(self, images: torch.Tensor, eps: float, *, first: bool) -> torch.Tensor:
        """The batch of free training: moved by the gradient that its last visit left, from the clean images at first.

        The perturbation stays from batch to batch, as published. It is a leaf; its gradient comes from the loss.
        """
        delta = None if first else self._replayed
        if delta is None or delta.shape[0] != images.shape[0]:
            delta = torch.zeros_like(images)
        elif delta.grad is not None:
            delta = (delta + eps * delta.grad.sign()).detach()
        self._replayed = ((images + delta.clamp(-eps, eps)).clamp(0, 1) - images).detach().requires_grad_()
        return images + self._replayed

    def _climb(self, images: torch.Tensor, value: Value, eps: float) -> torch.Tensor:
        settings = self.settings
        step = eps * (settings.step_ratio or _step_ratio(settings))
        wide = 2.0 if settings.start == "noise" else 1.0
        x = images
        if settings.start != "clean":
            x = (images + torch.empty_like(images).uniform_(-wide * eps, wide * eps)).clamp_(0, 1)
        for _ in range(settings.steps):
            x = x.detach().requires_grad_()
            (slope,) = torch.autograd.grad(value(self._scores(x)).sum(), x)
            x = x.detach() + step * slope.sign_()
            if settings.start != "noise":
                x = torch.minimum(torch.maximum(x, images - eps), images + eps)
            x = x.clamp_(0, 1)
        return x.detach()

    def _apgd(self, name: str, images: torch.Tensor, target: torch.Tensor, eps: float) -> torch.Tensor:
        """The registry's APGD toward a score: the end of the scale that the aim points to, or the mirrored score."""
        if not eps:
            return images
        with evaluation_mode(self._network):
            with torch.no_grad():
                clean = self._scores(images)
            wanted = -clean
            if name != "reflect":
                lower = {"error": clean < target, "difference": clean > 0, "against-ranking": target > target.median()}
                wanted = torch.where(lower[name], -1.0, 1.0)
            model = models.wrap(self._scores, ModelInfo(score_range=(-1.0, 1.0)))
            budget = Budget(eps_255=255 * eps, steps=self.settings.steps)
            return attacks.create("apgd")(model, images, goal="target", target=wanted, budget=budget).images
