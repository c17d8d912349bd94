"""Score reflection: mirror every image's score within the model's range, which turns a ranking around."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import per_image, score_range
from iqa_robust.attacks.gradient.pgd import PGD
from iqa_robust.attacks.objectives import Goal
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel

VARIANTS = ("R1", "R2", "R3")


class ScoreReflection(PGD):
    """A reconstruction of the score reflection attack of Wang and Yuan (arXiv 2404.19567), not their method.

    The paper's equations are not available to this project; its abstract names the attack and nothing more.
    Three readings are offered; none of their numbers is a reproduction of the paper's. With the range [a, b],
    the score f and the middle m = (a + b) / 2, each runs the projected gradient loop of `pgd` on:

    - `R1` (default): |f(x') - (a + b - f(x))|, the mirror image of the prediction. Reads no labels.
    - `R2`: |f(x') - (a + b - y)|, the mirror image of the label y on the model's own scale. Reads labels.
    - `R3`: no target; f is lowered where f(x) > m and raised elsewhere (the objective L_mid of Liu et al.,
      CVPR 2024).

    The square of a distance, as a regression loss would have it, has the same sign gradient. Images whose
    score is near the middle are barely attacked by R1 and R2, which stop at the mirror point: see `pgd` with
    the goal `away` for the worst case.
    """

    source = "Wang, Yuan, 2024, arXiv:2404.19567"
    form = "reconstructed"
    goals = ("reflect",)
    note = "reconstruction: the paper's formula (arXiv:2404.19567) is not available"

    def __init__(
        self,
        *,
        variant: str = "R1",
        restarts: int = 1,
        random_start: bool = False,
        momentum: float = 0.75,
        step_ratio: float = 2.0,
    ) -> None:
        """`variant` is `R1`, `R2` or `R3`; the others are those of `PGD`."""
        super().__init__(restarts=restarts, random_start=random_start, momentum=momentum, step_ratio=step_ratio)
        if variant not in VARIANTS:
            raise ContractError(
                f"score-reflection: expected variant to be one of {', '.join(VARIANTS)}, got {variant!r}."
            )
        self.variant = variant

    @property
    def needs_labels(self) -> bool:
        """True for `R2`."""
        return self.variant == "R2"

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """The variant's target, or its direction of push for `R3`."""
        low, high = score_range(model)
        if self.variant == "R3":
            one = torch.ones_like(score_clean)
            return Goal(sign=torch.where(score_clean > (low + high) / 2, -one, one))
        mirrored = score_clean
        if self.variant == "R2":
            assert labels is not None  # the base class has checked it
            mirrored = per_image(labels, score_clean, "labels")
        return Goal(target=low + high - mirrored)
