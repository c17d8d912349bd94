"""Whether attacks that look for images on a rounded twin of a model are as strong as those on an exact one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import torch
from scipy.stats import trim_mean

from iqa_robust import attacks
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.known import Known
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget

WEAKER = 0.01
"""The share by which shifts found on the rounded twin, scored in float32, may fall short."""
OUTLIERS = 0.2
"""Share of the trials that are left out at either end of the typical share: an image that a climb leads to another
optimum in one arithmetic and not in the other says nothing of either, and one alone can be 2 % of the shift of all."""
TRIAL = Budget(norm="linf", eps_255=2, steps=10)
"""The climb that is tried; also the size of the random change whose score is compared."""
STEPS_255 = (2.0, 4.0)
"""Radii of the single steps that are tried: each is a pass, and more of them tell chance from loss."""
TRIES = 40
"""Images that a trial of random search evaluates. Its squares shrink as those of a longer one do."""
SEEDS = 6
"""Searches that are tried at most, as long as chance may decide."""
CHANCE = 0.07
"""The most that chance may explain: one trial of sixteen that ended elsewhere."""
SURE = 2.0
"""Standard errors at which it does not."""


@dataclass(frozen=True)
class Share:
    """The shift that is reached on one twin, as a share of that on another, from the same trials on both.

    Searches in two arithmetics go separate ways after the first step that they judge differently, and end higher or
    lower by chance, as two searches in float32 with another order of sums would. So the share of all shifts counts up
    to its standard error (`CHANCE` at most), which is taken from the pairs: what both find hard is no chance. A single
    image that ended elsewhere makes a loss no larger than its own error.
    """

    total: float
    """Of the sums over all trials; zero where nothing moves on the exact twin."""
    error: float
    """Standard error of `total`; infinite for a single trial."""
    typical: float
    """The trimmed mean of the trials' own shares."""

    @classmethod
    def of(cls, exact: torch.Tensor, rounded: torch.Tensor) -> Share:
        """From the shifts (N,) that the same trials, N at least one, reach on both twins; none is negative."""
        moved = exact > 0
        if not bool(moved.any()):
            return cls(0.0, 0.0, 0.0)
        n, size = len(exact), float(exact.sum())
        total = float(rounded.sum()) / size
        rest = float((rounded - total * exact).double().square().sum())
        error = (rest * n / (n - 1)) ** 0.5 / size if n > 1 else float("inf")
        return cls(total, error, float(trim_mean((rounded[moved] / exact[moved]).tolist(), OUTLIERS)))

    @property
    def suffices(self) -> bool:
        """Whether what it lacks is at most `WEAKER` and its error, up to `CHANCE`; not where it is no number."""
        return self.total + min(self.error, CHANCE) >= 1 - WEAKER

    @property
    def is_clear(self) -> bool:
        """Whether more trials would hardly change that."""
        return abs(self.total - (1 - WEAKER)) >= SURE * self.error

    def __str__(self) -> str:
        """The share of all with its error, for people."""
        return f"{self.total:.3f} +- {self.error:.3f}"


@dataclass(frozen=True)
class Trial:
    """A model in float32, two twins of it, and the images on which attacks are tried."""

    model: IQAModel
    """Scores what is found."""
    exact: IQAModel
    rounded: IQAModel
    x: torch.Tensor
    """(N, 3, H, W) in [0, 1]."""
    ref: torch.Tensor | None

    def climb(self) -> Share:
        """By the typical attack of several steps, in both directions."""
        return Share.of(*self._shifts(attacks.create(attacks.TYPICAL), [TRIAL], ("up", "down")))

    def step(self) -> Share:
        """By a single step, which no later one corrects, in both directions."""
        budgets = [Budget(norm="linf", eps_255=radius) for radius in STEPS_255]
        return Share.of(*self._shifts(attacks.create(attacks.SINGLE_STEP), budgets, ("up", "down")))

    def search(self, norm: str) -> Share:
        """By random search, with as many seeds as it takes to tell chance from loss, `SEEDS` at most.

        Args:
            norm: in `linf` it announces what it changes of an image; in `psnr` all of the image changes.
        """
        square, budget = attacks.create(attacks.RANDOM_SEARCH), Budget(norm=norm, eps_255=TRIAL.eps_255, queries=TRIES)
        exact, rounded = self._shifts(square, [budget], ("away",))
        for seed in range(1, SEEDS):
            if Share.of(exact, rounded).is_clear:
                break
            more = self._shifts(square, [budget], ("away",), seed)
            exact, rounded = torch.cat([exact, more[0]]), torch.cat([rounded, more[1]])
        return Share.of(exact, rounded)

    def _shifts(
        self, attack: Attack, budgets: Sequence[Budget], goals: Sequence[str], seed: int = 0
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Shifts of all images (N x budgets x goals,), sizes without a sign: on the exact twin and on the rounded."""
        both = []
        for twin in (self.exact, self.rounded):
            known, shifts = Known(), []  # the first slopes are those of one clean image, whatever the goal
            for budget, goal in product(budgets, goals):
                result = attack(
                    self.model, self.x, self.ref, goal=goal, budget=budget, seed=seed, search=twin, known=known
                )
                shifts.append((result.score_adv - result.score_clean).abs())
            both.append(torch.cat(shifts))
        return both[0], both[1]
