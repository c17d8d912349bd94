"""Yang et al.'s query attack on no-reference quality models: score boundaries, texture, SurFree."""

from __future__ import annotations

from collections.abc import Generator

import torch
from torch.nn import functional

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import Search, away_from_middle, evaluations, side_by_side
from iqa_robust.attacks.blackbox.surfree import SurFree
from iqa_robust.attacks.blackbox.visibility import busy_or_salient, just_noticeable
from iqa_robust.attacks.norms import distance
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget

FIRST = 0.01
"""The first boundary, as a share of the way from the clean score to the end of the range."""
FINEST = 1 / 400
"""Where no texture passes a boundary this close to the last one, the search ends."""
LEAST_JUMP = 0.005
"""A boundary is only raised at once for scores beyond this share."""
DRAWS_PER_BOUNDARY = 200
DRAWS = 6000
AMPLITUDE = 0.1
TEXTURES = 10


class YangQuery(Attack):
    """Raises a score boundary step by step, each time with a texture that passes it and SurFree to make it smaller.

    A boundary b asks for b times the way from the clean score to the end of the model's range (or to the target). For
    each, (a) up to 200 random multiples of high-frequency textures, confined to edges and salient regions, are added
    to the image; where none passes, b is halved toward the last boundary, and where one passes it by far, b is
    raised. (b) SurFree pulls what was found back toward the image of the last boundary, in ten steps and about 100
    queries. (c) The next boundary lies as far above b as b above the last. All of it stays within `jnd` just
    noticeable differences of the clean image and within the budget: for `linf` these differences are cut at eps; for
    `l2` and `psnr` they are all scaled, where they must be, until changing every pixel by them spends the budget.

    What differs from the paper: its two reference photographs are not available and are replaced by ten textures
    of high-pass noise per image; saliency is the spectral residual, not MBS; candidates are confined before they are
    asked for, where the released code does it after the last query. The released code raises the scores of some
    images and lowers those of others; here the goal `away` does what it does for the attack of Ran et al.: down above
    the middle of the range, else up. Where the range is unknown, a boundary is a share of the clean score, and for
    `away` each direction gets half of the queries. Without a limit in the budget it makes up to 10,000 queries per
    image; it usually ends by itself before.
    """

    access = "black"
    norms = ("linf", "l2", "psnr")
    source = "Yang, Liu, Li, Jiang, TCSVT 2024 (arXiv:2401.05217)"
    form = "adapted"
    note = "synthesized textures and spectral-residual saliency stand in for the paper's photographs and MBS"

    def __init__(self, *, jnd: float = 0.38, rounds: int = 20) -> None:
        """The published values.

        Args:
            jnd: largest change of a pixel, in just noticeable differences.
            rounds: boundaries.
        """
        check_number(self, "jnd", jnd, above=0)
        check_whole(self, "rounds", rounds, least=1)
        self.jnd = jnd
        self.rounds = rounds

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """For `away`, down above the middle of a known range and else up; the others as every attack reads them."""
        if goal == "away":
            return away_from_middle(model, score_clean)
        return super().goal_for(goal, model, score_clean, target, labels)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best image seen."""
        bound, places = self._bound(x, budget), busy_or_salient(x)
        sides = objective.sides()
        tries = evaluations(objective, budget) // len(sides)
        everyone = torch.arange(len(x), device=x.device)
        for side in sides:
            spans, begins = _spans(side)
            searches = []
            for i in range(len(x)):
                own = rng.select(everyone[i : i + 1])
                textures = _textures(x[i], own) * places[i]
                searches.append(_Ladder(x[i], bound[i], textures, spans[i], begins[i], own).climb(self.rounds))
            side_by_side(side, searches, tries)
        return objective.tally.best_image.clone()

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """At most the queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0

    def _bound(self, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """(N, 3, H, W): the largest change of every value."""
        noticeable = just_noticeable(x).expand_as(x)
        if budget.norm == "linf":
            return (self.jnd * noticeable).clamp(max=budget.eps)
        lengths = distance(x + noticeable, x, budget.norm)
        return (budget.eps / lengths).clamp(max=self.jnd).view(-1, 1, 1, 1) * noticeable


class _Ladder:
    """The search of one image: one boundary after the other."""

    def __init__(
        self,
        x: torch.Tensor,
        bound: torch.Tensor,
        textures: torch.Tensor,
        span: float,
        begin: float,
        rng: ImageRNG,
    ) -> None:
        """`begin` is the value of the clean image `x` (3, H, W), `begin + span` that of the end of the range."""
        self.textures, self.span, self.begin, self.rng = textures, span, begin, rng
        self.low, self.high = (x - bound).clamp(0, 1), (x + bound).clamp(0, 1)
        self.here = x
        self.value = begin
        self.last, self.boundary = 0.0, FIRST
        self.draws = 0

    def climb(self, rounds: int) -> Search:
        """Boundary after boundary, until none can be passed."""
        for _ in range(rounds):
            if self.value <= self._needed(self.boundary):
                found = yield from self._draw()
                if found is None:
                    return
                pull = SurFree(self.here, self._needed(self.boundary), self._limit, self.rng)
                self.here = yield from pull.pull(*found)
                self.value = pull.value
            self.last, self.boundary = self.boundary, 2 * self.boundary - self.last

    def _needed(self, boundary: float) -> float:
        return self.begin + self.span * boundary

    def _limit(self, z: torch.Tensor) -> torch.Tensor:
        return torch.minimum(torch.maximum(z, self.low), self.high)

    def _draw(self) -> Generator[torch.Tensor, torch.Tensor, tuple[torch.Tensor, float] | None]:
        """An image beyond the boundary and its value, after moving the boundary if need be; None if there is none."""
        while self.draws < DRAWS:
            for _ in range(DRAWS_PER_BOUNDARY):
                self.draws += 1
                texture = self.textures[int(self.rng.integers(0, TEXTURES)[0])]
                factor = float(self.rng.uniform((), -1, 1)[0])
                candidate = self._limit(self.here + AMPLITUDE * factor * texture)
                value = (yield candidate[None])[0].item()
                gap = self.boundary - self.last
                if value > self._needed(max(self.boundary + 2 * gap, LEAST_JUMP)):
                    self.boundary += max(2 * gap, LEAST_JUMP - self.boundary) / 2
                if value > self._needed(self.boundary):
                    return candidate, value
            if self.boundary - self.last <= FINEST:
                return None
            self.boundary = (self.boundary + self.last) / 2
        return None


def _spans(objective: Objective) -> tuple[list[float], list[float]]:
    """Per image, how far the objective can rise, and its value at the clean image."""
    clean, goal, known = objective.score_clean, objective.goal, objective.info.score_range
    if goal.target is not None:
        span = (clean - goal.target).abs()
        begin = -span
    else:
        sign = torch.ones_like(clean) if goal.sign is None else goal.sign
        begin = torch.zeros_like(clean)
        if known is None:
            span = clean.abs()
        else:
            low, high = known
            span = torch.where(sign > 0, high - clean, clean - low).abs()
    whole = 1.0 if known is None else known[1] - known[0]
    span = torch.where(span > 0, span, torch.full_like(span, whole))
    return span.tolist(), begin.tolist()


def _textures(x: torch.Tensor, rng: ImageRNG) -> torch.Tensor:
    """(TEXTURES, 3, H, W) in [0, 1]: gray high-pass noise, each pixel less the mean of the nine around it."""
    noise = rng.normal((TEXTURES, 1, *x.shape[-2:]))[0]
    fine = noise - functional.avg_pool2d(functional.pad(noise, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return (0.5 + 0.25 * fine).clamp(0, 1).expand(-1, 3, -1, -1)
