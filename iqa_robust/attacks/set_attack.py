"""Attacks on a whole set of images: they choose one score per image, from all scores, and then go there."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from iqa_robust.attacks.base import Attack, per_image
from iqa_robust.attacks.objectives import Goal
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel


@dataclass(frozen=True)
class SetScores:
    """What an attacker of a set sees before it attacks: one entry per image, in the order of the set."""

    clean: torch.Tensor
    """(M,) float32 scores of the attacked model, native units; what `plan` sees is finite."""
    score_range: tuple[float, float] | None
    higher_is_better: bool
    reference_ids: Sequence[str | None]
    """The content each image shows; None where it is not known."""


class SetAttack(Attack):
    """An attack that sees the scores of the whole set first; an author writes `plan` besides `perturb`.

    Called from Python, the images of the call are the set. A harness that works in batches calls `plan` once for all
    images and passes each image's score as `target`. The goal is the attack's own, so it serves one name only,
    `away`, and what it keeps is the image nearest to its target.
    """

    scope: ClassVar[str] = "set"
    goals: ClassVar[tuple[str, ...]] = ("away",)

    @abstractmethod
    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        """The score (M,) each image is sent to, native units. `seed` is 0 where no harness passes one."""

    def aim(self, target: torch.Tensor, score_clean: torch.Tensor) -> Goal:
        """The goal (N,) of a batch, from the scores its images are sent to; by default to reach them."""
        return Goal(target=target)

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """The planned scores, or a plan for the images of this call. Raises `ContractError` for a bad plan."""
        if target is None:
            scores = SetScores(
                score_clean, model.info.score_range, model.info.higher_is_better, [None] * len(score_clean)
            )
            target = self.planned(scores, seed=0)
        return self.aim(per_image(target, score_clean, "target"), score_clean)

    def planned(self, scores: SetScores, seed: int) -> torch.Tensor:
        """`plan`, checked. Images whose clean score is not finite are left out; their target is 0.

        Raises `ContractError` when the plan is not one finite number per image.
        """
        known = torch.isfinite(scores.clean)
        targets = torch.zeros_like(scores.clean)
        if not bool(known.any()):
            return targets
        chosen = dataclasses.replace(
            scores,
            clean=scores.clean[known],
            reference_ids=[scores.reference_ids[i] for i in known.nonzero().squeeze(1).tolist()],
        )
        planned = self.plan(chosen, seed)
        if planned.shape != chosen.clean.shape or not bool(torch.isfinite(planned).all()):
            raise ContractError(
                f"{type(self).__name__}.plan: expected {len(chosen.clean)} finite scores, one per image of the set."
            )
        targets[known] = planned
        return targets
