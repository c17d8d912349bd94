"""Query attacks of ART that only see on which side of a threshold the score is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, ClassVar
from unittest import mock

import numpy as np
import torch
from torch.nn import functional as F

from iqa_robust.attacks.adapters.art import LABELS, ARTAttack, order
from iqa_robust.attacks.adapters.libraries import ThresholdAttack
from iqa_robust.attacks.adapters.views import ThresholdView, View
from iqa_robust.records import STANDARD_QUERIES, Budget


class DecisionAttack(ThresholdAttack, ARTAttack):
    """What the decision attacks share: a start past the threshold, and a run that ends with the queries.

    The library would start from images of noise, drawn without a seed. Here the start is the first of a series of
    patterns, of all scales and growing contrast, that passes the threshold; see `past` for what happens if none does.
    """

    access = "black"
    norms: ClassVar[tuple[str, ...]] = ("l2", "psnr")

    def __init__(self, *, threshold: float = 0.01) -> None:
        """`threshold`: as of `ThresholdAttack`; small, as most patterns move a score but little."""
        super().__init__(threshold=threshold)

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        start = past(view, patterns(x, starts(budget)))
        if start is None:
            return x
        # Where a randomized model takes its answer back, the library draws another start, from a generator of its own.
        seeded = partial(np.random.RandomState, np.random.randint(2**31))
        with mock.patch.object(np.random, "RandomState", seeded):
            found = self.build(view, x, budget).generate(x.cpu().numpy(), y=LABELS, x_adv_init=start.cpu().numpy())
        return torch.from_numpy(found).to(x)


class HopSkipJump(DecisionAttack):
    """`HopSkipJump`: along the threshold, by slopes estimated from decisions."""

    norms = ("linf", "l2", "psnr")
    source = "Chen, Jordan, Wainwright, S&P 2020, arXiv 1904.02144"
    library_class = "HopSkipJump"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Norm, and decisions per slope: 100, fewer where the queries would not make ten steps."""
        queries = budget.queries or STANDARD_QUERIES
        return {
            "norm": order(budget),
            "init_eval": min(100, max(queries // 20, 1)),
            "max_iter": queries,
            "init_size": 1,
            "verbose": False,
        }


class BoundaryAttack(DecisionAttack):
    """`BoundaryAttack`: a random walk along the threshold, toward the clean image."""

    source = "Brendel, Rauber, Bethge, ICLR 2018, arXiv 1712.04248"
    library_class = "BoundaryAttack"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Steps without end: the queries end it."""
        return {"targeted": False, "max_iter": budget.queries or STANDARD_QUERIES, "init_size": 1, "verbose": False}


class SignOPTAttack(DecisionAttack):
    """`SignOPTAttack`: the direction in which the threshold is nearest, by signs of its slope.

    It starts from noise of its own, from the seed; such noise also sets the threshold, where it does not pass it.
    """

    source = "Cheng et al., ICLR 2020, arXiv 1909.10773"
    library_class = "SignOPTAttack"
    classes = 3

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """First directions and decisions per slope: 100 and 200, fewer where the queries do not suffice."""
        queries = budget.queries or STANDARD_QUERIES
        return {
            "targeted": False,
            "num_trial": min(100, starts(budget)),
            "k": min(200, max(queries // 20, 1)),
            "max_iter": queries,
            "query_limit": queries,
            "verbose": False,
        }

    def run(self, view: View, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """Adversarial version of one image, (1, 3, H, W) to (1, 3, H, W)."""
        if past(view, noises(x, starts(budget))) is None:
            return x
        labels = np.eye(1, self.classes, dtype=np.float32)
        return torch.from_numpy(self.build(view, x, budget).generate(x.cpu().numpy(), y=labels)).to(x)


def starts(budget: Budget) -> int:
    """A tenth of the queries, at most, looks for an image past the threshold."""
    return max((budget.queries or STANDARD_QUERIES) // 10, 1)


def past(view: View, candidates: Iterable[torch.Tensor]) -> torch.Tensor | None:
    """The first of the candidates (1, 3, H, W) that passes the threshold.

    Where none does, the threshold becomes half of what the best one reached. None if all went the wrong way.
    """
    if not isinstance(view, ThresholdView):
        raise TypeError(f"expected a ThresholdView, got {type(view).__name__}")
    for z in candidates:
        if view.crossed(z):
            return z
    return view.found if view.ease() else None


def patterns(x: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """The image under random patterns of several scales and growing contrast, (1, 3, H, W) each."""
    for i in range(count):
        cells = (4, 8, 16, 64)[i % 4]
        coarse = torch.from_numpy(np.random.uniform(-1, 1, (1, 3, cells, cells)).astype(np.float32)).to(x)
        contrast = 0.1 + 0.4 * i / max(count - 1, 1)
        pattern = F.interpolate(coarse, size=x.shape[-2:], mode="bilinear", align_corners=False)
        yield (x + contrast * pattern).clamp(0, 1)


def noises(x: torch.Tensor, count: int) -> Iterator[torch.Tensor]:
    """The image under the noise that `SignOPTAttack` starts from, (1, 3, H, W) each."""
    for _ in range(count):
        yield (x + torch.from_numpy(np.random.randn(*x.shape).astype(np.float32)).to(x)).clamp(0, 1)
