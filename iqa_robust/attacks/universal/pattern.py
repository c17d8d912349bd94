"""What the universal attacks share: a pattern repeated over an image, scaled to a budget, and how it is learned."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod
from collections.abc import Callable, Sequence

import torch

from iqa_robust.attacks.norms import reach, steepest
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.trained_attack import Lesson, TrainedAttack, one_pass
from iqa_robust.models.randomness import ImageRNG, derive_seed
from iqa_robust.records import Budget

BATCH = 4
"""Images per step."""

State = dict[str, torch.Tensor]


def tiled(pattern: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """(N, 3, height, width): `pattern` (N, 3, s, t) repeated from the top left corner and cut."""
    down, across = -(-height // pattern.shape[-2]), -(-width // pattern.shape[-1])
    return pattern.repeat(1, 1, down, across)[..., :height, :width]


def scaled(pattern: torch.Tensor, x: torch.Tensor, norm: str, eps: float) -> torch.Tensor:
    """(N, 3, H, W) the perturbation of images `x` that `pattern` (N or 1, 3, H, W) stands for; differentiable.

    For `linf` a value of 1 is eps. For the other norms the pattern is a direction, and the perturbation as long as the
    budget allows.
    """
    if norm == "linf":
        return eps * pattern.clamp(-1, 1).expand_as(x)
    direction = steepest(pattern, norm).expand_as(x)
    return reach(x, direction.detach(), norm, eps).view(-1, 1, 1, 1) * direction


class UniversalAttack(TrainedAttack):
    """Learns in which direction to change any image, and then changes images without a look at the model.

    An attacked image costs no query and no gradient; only `fit` asks the model. A universal change pushes all images
    one way, so the goals are `up`, `down` and `away`. For `away` both directions are learned, each from all images, and
    the one that moves the scores of the fitting images further on average is kept: choosing for every image would take
    queries.
    """

    norms = ("linf", "l2", "psnr", "ssim")
    goals = ("up", "down", "away")

    @abstractmethod
    def learn_side(self, lessons: Sequence[Lesson], budget: Budget, rng: ImageRNG) -> State:
        """The state for one direction; `rng` holds one generator."""

    @abstractmethod
    def change(self, state: State, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """The perturbation (N, 3, H, W) of images `x`."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the changed images. Asks the model nothing."""
        with torch.no_grad():
            return x + self.change({name: value.to(x.device) for name, value in self.state.items()}, x, budget)

    def learn(self, lessons: Sequence[Lesson], budget: Budget, seed: int) -> State:
        """The state of the goal's direction, or of the better of two."""
        tried = []
        for side, objectives in enumerate(zip(*(lesson.objective.sides() for lesson in lessons), strict=True)):
            turned = [dataclasses.replace(a, objective=b) for a, b in zip(lessons, objectives, strict=True)]
            rng = ImageRNG([derive_seed(seed, "fit", side)], lessons[0].x.device)
            tried.append((turned, self.learn_side(turned, budget, rng)))
        if len(tried) == 1:
            return tried[0][1]
        gains = [self._gain(turned, state, budget) for turned, state in tried]
        return tried[gains.index(max(gains))][1]

    def _gain(self, lessons: Sequence[Lesson], state: State, budget: Budget) -> float:
        """Mean value of the objectives over the fitting images."""
        values = []
        with torch.no_grad():
            for lesson in lessons:
                for index in torch.arange(len(lesson.x), device=lesson.x.device).split(BATCH):
                    x = lesson.x[index]
                    z = (x + self.change(state, x, budget)).clamp(0, 1)
                    values.append(lesson.objective(z, index))
        return torch.cat(values).mean().item()

    def train(
        self,
        lessons: Sequence[Lesson],
        rng: ImageRNG,
        change: Callable[[torch.Tensor], torch.Tensor],
        step: Callable[[], None],
    ) -> None:
        """`fit_epochs` passes over the images, a step after every batch.

        Args:
            lessons: what is learned from.
            rng: one generator, for the order of the images.
            change: images (n, 3, H, W) to their perturbations, made of leaves that require gradients.
            step: moves the leaves. They then hold the slope along them of the mean value in units of the score range;
                clearing it is up to `step`.
        """
        batches = [batch for _ in range(self.fit_epochs) for batch in one_pass(lessons, BATCH, rng)]
        for lesson, index in batches:
            x = lesson.x[index]
            delta = change(x)
            # As in the released code, the slope passes the clamp to [0, 1] unchanged.
            _, slope = lesson.objective.gradient((x + delta.detach()).clamp(0, 1), index)
            delta.backward(torch.nan_to_num(slope) / (len(index) * lesson.scale))
            step()
