"""What a library is shown in place of a classifier: one image's objective, with the output the library expects.

The libraries attack networks that map images to the logits of classes. Each view here is such a network, made of the
objective of one image of the batch; every forward pass is a call of the objective, so queries and gradients are
counted. A view holds neither the model nor its parameters: a library may change the mode of the view, but not the
model's.
"""

from __future__ import annotations

import sys
from collections import deque

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.attacks.norms import distance, project
from iqa_robust.attacks.objectives import Objective, QueryBudgetExhaustedError
from iqa_robust.errors import ContractError
from iqa_robust.records import STANDARD_QUERIES, Budget

_REMEMBERED = 4
"""Answers that a query attack need not ask for again: libraries score an image for its loss and its class."""


_NEARLY = 0.99
"""Share of the way to a target at which a class changes: on a target itself nothing can exceed it."""


class View(nn.Module):
    """The objective of one image; the subclasses say what a library sees of it."""

    def __init__(self, objective: Objective, index: int, x: torch.Tensor, budget: Budget) -> None:
        """`index` is the image of the batch that is attacked, `x` (1, 3, H, W) its clean version."""
        super().__init__()
        self._objective = objective
        self._index = index
        self._budget = budget
        self._left = sys.maxsize if objective.white_box else budget.queries or STANDARD_QUERIES
        self._free = _REMEMBERED * self._left
        self._known: deque[tuple[torch.Tensor, torch.Tensor]] = deque(maxlen=_REMEMBERED)
        self.clean = x
        self.device_marker = nn.Parameter(torch.zeros(1, device=x.device), requires_grad=False)
        """Libraries look for the device of the first parameter."""

    def values(self, z: torch.Tensor) -> torch.Tensor:
        """The objective (n,) of versions (n, 3, h, w) of the image.

        Images of another size, which input diversity makes of images that are not square, are brought back to the
        size of the clean one. Where a library has divided by a zero slope, the pixels are the clean image's again.

        A query attack that asks again about one of the last images gets the answer it got before, for no query.

        Raises:
            QueryBudgetExhaustedError: fewer queries are left, of the image or of this run, than `z` takes; the first
                of `z` are still scored.
        """
        left = min(self._left, int(self._objective.remaining()[self._index]))
        if 0 < left < len(z):
            self(z[:left])
        if left < len(z):
            raise QueryBudgetExhaustedError
        z = z.to(self.clean.dtype)
        if z.shape[1:] != self.clean.shape[1:]:
            z = F.interpolate(z, size=self.clean.shape[-2:], mode="bilinear", align_corners=False)
        z = self.allowed(torch.where(z.isfinite(), z, self.clean))
        if len(z) > 1 or self._objective.white_box or self._objective.draws > 1:
            return self._ask(z)
        for i, (image, value) in enumerate(self._known):
            if torch.equal(image, z) and self._free > 0:  # a search that goes round in circles must end, too
                self._free -= 1
                del self._known[i]
                self._known.append((image, value))
                return value
        value = self._ask(z)
        self._known.append((z.clone(), value))
        return value

    def _ask(self, z: torch.Tensor) -> torch.Tensor:
        self._left -= len(z)
        return self._objective(z, torch.full((len(z),), self._index, device=z.device))

    def allowed(self, z: torch.Tensor) -> torch.Tensor:
        """The images that are scored when the library asks about `z`; here, `z` itself."""
        return z


class TwoLogitView(View):
    """A classifier of two classes, always "right" about class 0.

    With the value v of the objective and the clean score f(x), the logits are (2, g) with
    g = v / (1 + |f(x)| + |v|), which lies in (-1, 1) and rises strictly with v. Then

    - the cross-entropy of class 0, log(1 + exp(g - 2)), has the slope dv/dx times a positive number, so its
      sign gradient and its normalized gradient are the objective's own; so has the margin g - 2;
    - that number neither vanishes nor overflows: a score in 0..100 used as a logit would saturate the
      softmax, whose float32 gradient is then exactly zero;
    - class 0 wins whatever the objective says, so no attack stops early because it takes itself for
      successful;
    - the logits never look like probabilities, which some attacks treat in another way.
    """

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W), all of them versions of the one image, to logits (n, 2)."""
        value = self.values(z)
        clean = self._objective.score_clean[self._index].abs()
        rising = (value / (1 + clean + value.abs())).nan_to_num(nan=-1.0)  # no score is the worst score
        return torch.stack([torch.full_like(rising, 2), rising], dim=1)


class FourLogitView(TwoLogitView):
    """The two logits and two classes far below them, for losses that divide by the third or the fourth logit.

    The logits are (2, g, -2, -2), so the difference-of-logits ratio of class 0 against class 1 is
    (g - 2) / 4 and its gradient a positive number times the objective's.
    """

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) to logits (n, 4)."""
        return F.pad(super().forward(z), (0, 2), value=-2.0)


class ProbabilityView(TwoLogitView):
    """The softmax of the two logits, for attacks that insist on probabilities."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) to probabilities (n, 2)."""
        return super().forward(z).softmax(dim=1)


class ValueView(View):
    """The objective itself, for attacks that take a regression model."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) to values (n, 1)."""
        return self.values(z)[:, None]


class BudgetView(TwoLogitView):
    """A two-logit view that scores, in place of each image asked for, the nearest one inside the budget.

    For black-box searches that know no budget of this kind: what they optimize is what counts in the end.
    """

    def allowed(self, z: torch.Tensor) -> torch.Tensor:
        """The projection of `z` onto the budget."""
        return project(z, self.clean.expand_as(z), self._budget.norm, self._budget.eps)


class BudgetProbabilityView(BudgetView):
    """The softmax of those two logits."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) to probabilities (n, 2)."""
        return super().forward(z).softmax(dim=1)


class ThresholdView(View):
    """A classifier of two classes; class 1 wins once the objective has risen by a share of the score range.

    With the gain r of the objective over the clean image, as a share of the range, the logits are
    (1 + threshold, 1 + r). A target that is nearer than the threshold lowers it to nearly the way there. The view
    remembers what an attack that looks for the nearest image of another class is after: the nearest image of class 1
    it was asked about or, while there is none, the one that came closest to it.
    """

    def __init__(self, objective: Objective, index: int, x: torch.Tensor, budget: Budget, *, threshold: float) -> None:
        """`threshold`: the share of the score range. Raises `ContractError` when the range is unknown."""
        super().__init__(objective, index, x, budget)
        bounds = objective.info.score_range
        if bounds is None:
            raise ContractError(
                "threshold: a share of the model's score range, which is unknown:"
                " give `score_range` in the track or in ModelInfo."
            )
        here = torch.tensor([index], device=x.device)
        clean = objective.score_clean[here]
        self._start = objective.goal.select(here).value(clean, clean)
        self._range = bounds[1] - bounds[0]
        self._threshold = threshold
        if objective.goal.target is not None:
            self._threshold = min(threshold, _NEARLY * -self._start.item() / self._range)
        self._merit = -torch.inf
        self.found = x
        """(1, 3, H, W), see the class."""

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W) to logits (n, 2)."""
        gain = ((self.values(z) - self._start) / self._range).nan_to_num(nan=-1.0)  # no score is the worst score
        self._remember(z.detach(), gain.detach())
        return torch.stack([torch.full_like(gain, 1 + self._threshold), 1 + gain], dim=1)

    def crossed(self, z: torch.Tensor) -> bool:
        """Whether class 1 wins for the image `z` (1, 3, H, W)."""
        return bool(self(z).argmax(dim=1) == 1)

    def ease(self) -> bool:
        """Halve the way to what came closest to the threshold, which puts it on the far side; false if nothing rose."""
        gain = self._merit + self._threshold
        if not gain > 0:
            return False
        self._threshold = gain / 2
        self._merit = -torch.inf
        return True

    def _remember(self, z: torch.Tensor, gain: torch.Tensor) -> None:
        away = distance(z.to(self.clean.dtype), self.clean.expand_as(z), self._budget.norm)
        # 1..2 on the far side, the nearer the more; below 0 on this side, the closer to the threshold the more.
        merit = torch.where(gain > self._threshold, 1 + 1 / (1 + away), gain - self._threshold)
        best = int(merit.argmax())
        if merit[best] > self._merit:
            self._merit = float(merit[best])
            self.found = z[best : best + 1].to(self.clean.dtype, copy=True)  # libraries go on writing to their images


class Cropped(nn.Module):
    """A view of the middle of the image, for attacks that fail on images of some shapes."""

    def __init__(self, view: View, height: int, width: int) -> None:
        """What lies outside the middle `height` x `width` pixels stays as it is in the clean image."""
        super().__init__()
        self._view = view
        top, left = ((a - b) // 2 for a, b in zip(view.clean.shape[-2:], (height, width), strict=True))
        self.middle = (..., slice(top, top + height), slice(left, left + width))
        """Index of the middle in an image."""

    @classmethod
    def square(cls, view: View) -> Cropped:
        """The largest square."""
        side = min(view.clean.shape[-2:])
        return cls(view, side, side)

    def forward(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, height, width) to the view's output for the whole image."""
        return self._view(self.pasted(z))

    def pasted(self, z: torch.Tensor) -> torch.Tensor:
        """(n, 3, H, W): the clean image with `z` in its middle."""
        whole = self._view.clean.expand(len(z), -1, -1, -1).clone()
        whole[self.middle] = z.to(whole.dtype)
        return whole
