"""A classifier with a guard that asks an IQA model and a distilled student whether its answer can be trusted.

Our reading of an abstract: Feng & Cai, "Towards robust classification with image quality assessment", 2020,
arXiv:2004.06288. It says that image quality assessment is combined with knowledge distillation to find inputs on which
a classifier that is not trained again would go wrong, for reasons of quality or of an attack. How the two are combined
is ours: the sum of what each one says, in units of its spread on clean images.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo

if TYPE_CHECKING:
    from collections.abc import Sequence

PARTS = ("quality", "student")
"""The statistics that a guard can use."""


class ClassifierGuard:
    """Statistics of images (N, 3, H, W) that a classifier is to answer; larger is more suspicious.

    `quality`: how far the IQA model's score is from the mean of clean images, either way: noise and blur lower it, and
    an attack may well raise it. `student`: the total variation distance between the class probabilities of classifier
    and student, 0 to 1. Both have their exact gradients.
    """

    def __init__(self, classifier: nn.Module, student: nn.Module, quality: IQAModel, clean: torch.Tensor) -> None:
        """`classifier` and `student` give logits (N, K); `clean` (M, 3, H, W) set the spread of each statistic.

        Raises:
            ContractError: there are fewer than two clean images, or the IQA model needs references.
        """
        if len(clean) < 2 or quality.info.full_reference:
            raise ContractError("ClassifierGuard: expected at least two clean images and a no-reference IQA model.")
        self.classifier, self.student, self.quality = classifier, student, quality
        with torch.no_grad():
            self.usual = quality(clean).mean().item()
            found = {part: self.part(part, clean) for part in PARTS}
        self.centers = {part: values.mean().item() for part, values in found.items()}
        self.spreads = {part: max(values.std().item(), 1e-6) for part, values in found.items()}

    def part(self, name: str, x: torch.Tensor) -> torch.Tensor:
        """One of `PARTS`, (N,), in its own unit."""
        if name == "quality":
            return (self.quality(x) - self.usual).abs()
        own, others = (net(x).softmax(dim=1) for net in (self.classifier, self.student))
        return (own - others).abs().sum(dim=1) / 2

    def statistic(self, x: torch.Tensor, parts: Sequence[str] = PARTS) -> torch.Tensor:
        """(N,) the sum of the named parts, each centered and in units of its spread on clean images."""
        return torch.stack([(self.part(p, x) - self.centers[p]) / self.spreads[p] for p in parts]).sum(dim=0)


class Margin(IQAModel):
    """How clearly a classifier says `label`: its logit less the largest of the others; below 0 it says something else.

    This makes a model of a classifier that every attack can be sent against, with the goal `down`. With a guard, the
    attacker also pays for what exceeds the threshold of its statistic.
    """

    def __init__(
        self,
        classifier: nn.Module,
        label: int,
        *,
        guard: ClassifierGuard | None = None,
        parts: Sequence[str] = PARTS,
        threshold: float = 0.0,
        penalty: float = 0.0,
    ) -> None:
        """`penalty` is in logits per unit of the statistic; without a guard there is none."""
        super().__init__()
        self.classifier, self.label = classifier, label
        self.guard, self.parts, self.threshold, self.penalty = guard, tuple(parts), threshold, penalty
        self.info = ModelInfo()

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) margins, plus the penalty."""
        logits = self.classifier(x)
        others = torch.cat([logits[:, : self.label], logits[:, self.label + 1 :]], dim=1)
        margin = logits[:, self.label] - others.amax(dim=1)
        if self.guard is None:
            return margin
        return margin + self.penalty * torch.relu(self.guard.statistic(x, self.parts) - self.threshold)
