"""The worst case: an ensemble without parameters, per image the best of all its members under one budget."""

from __future__ import annotations

from collections.abc import Callable

import torch

from iqa_robust import models
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.square import Square
from iqa_robust.attacks.gradient.apgd import APGD
from iqa_robust.attacks.gradient.ascent import ascend
from iqa_robust.attacks.gradient.auto import auto_ascend
from iqa_robust.attacks.gradient.climbing import Landing
from iqa_robust.attacks.gradient.pgd import PGD
from iqa_robust.attacks.norms import snap
from iqa_robust.attacks.objectives import Goal, Objective, QueryBudgetExhaustedError, best_of
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

SURROGATE = "compact"
"""The model that ships with the package; an attacker has it, too."""
RESTARTS = 3
"""Runs of Auto-PGD from random points of the ball."""
SQUARE_QUERIES = 1000
"""Queries of the random search, which meets no masked gradient."""
ARRIVED = 1e-3
"""A target counts as reached where so little of the way to it is left."""

Member = Callable[[Objective, torch.Tensor, Budget, ImageRNG], torch.Tensor]


class WorstCase(Attack):
    """PGD, Auto-PGD from the clean image, from a surrogate's adversarial image and from random points, then Square.

    What AutoAttack (Croce and Hein, ICML 2020) is for the labels of classifiers, this is for scores: diverse attacks
    without parameters to tune, in the order of their cost, on the same images. Per image the best 8-bit image of any
    member counts, so the ensemble is at least as strong as each of its members by itself. An image that has arrived
    at its target, or at the value beyond which more does not count, leaves; the later and more expensive members only
    get the others.

    With s = `budget.steps`, an image takes 6 s gradients per direction (the goal `away` has two) and about 1,000
    queries more. The surrogate's gradients are not counted: it is not the model that is judged. Images too small for
    the surrogate do without that start.
    """

    source = "after Croce, Hein, ICML 2020, arXiv:2003.01690"
    form = "adapted"
    norms = ("linf", "l2", "psnr")

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): per image the best end of a member, on the 8-bit grid."""
        members: list[tuple[str, Member]] = [
            ("", PGD().perturb),
            ("surrogate", _from_surrogate),
            ("", APGD(random_start=False).perturb),
            ("", APGD().perturb),
        ]
        members += [(f"restart {i}", APGD().perturb) for i in range(1, RESTARTS)]
        members.append(("", _square))
        best = x.clone()
        value = torch.full_like(objective.score_clean, -torch.inf)
        for draw, member in members:
            index = (~_finished(objective, value)).nonzero().squeeze(1)
            if len(index) == 0:
                break
            with objective.among(index) as part:
                try:
                    # Without a draw of its own, a member sees the randomness it would see by itself.
                    own = rng.select(index).child(draw) if draw else ImageRNG(rng.select(index).seeds, rng.device)
                    end = member(part, x[index], budget, own)
                    for candidate in (end.detach(), part.tally.best_image):
                        end = snap(candidate, x[index], budget.norm, budget.eps)
                        reached = part(end).nan_to_num(nan=-torch.inf)
                        wins = reached > value[index]
                        best[index] = torch.where(wins.view(-1, 1, 1, 1), end, best[index])
                        value[index] = torch.where(wins, reached, value[index])
                except QueryBudgetExhaustedError:
                    return torch.where((value > -torch.inf).view(-1, 1, 1, 1), best, objective.tally.best_image)
        return best

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """Passes of all members, and two more of each for its ends."""
        parts = [PGD().cost(budget, goal), *[APGD().cost(budget, goal)] * (2 + RESTARTS)]
        sides = 2 if goal == "away" else 1
        queries = sum(queries for queries, _ in parts) + 2 * sides + SQUARE_QUERIES + 2 * (len(parts) + 1)
        gradients = sum(gradients for _, gradients in parts)
        return (queries if budget.queries is None else min(queries, budget.queries)), gradients


def _finished(objective: Objective, value: torch.Tensor) -> torch.Tensor:
    """(N,) bool: images that gain nothing from another member."""
    goal = objective.judge
    done = torch.zeros_like(value, dtype=torch.bool) if goal.enough is None else value >= goal.enough
    if goal.target is not None:
        done |= -value <= ARRIVED * (goal.target - objective.score_clean).abs()
    return done


def _from_surrogate(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
    """Auto-PGD that starts where the surrogate's score is extreme, per direction at the end that suits it better."""
    surrogate = models.create(SURROGATE).to(x.device).eval()
    if min(x.shape[-2:]) < surrogate.info.min_size:
        return x
    for parameter in surrogate.parameters():
        parameter.requires_grad_(False)
    with torch.no_grad():
        clean = surrogate(x).float()
    free = Budget(norm=budget.norm, eps_255=budget.eps_255, steps=budget.steps)
    starts = []
    for sign in (1.0, -1.0):
        other = Objective(
            surrogate,
            x,
            None,
            goal=Goal(sign=torch.full_like(clean, sign)),
            score_clean=clean,
            budget=free,
            seeds=rng.seeds,
            white_box=True,
        )
        starts.append(ascend(other, x, x, free, rng, step_ratio=2.0, momentum=0.75))
    ends = []
    radius = x.new_full((len(x),), budget.eps)
    for side in objective.sides():
        landing = Landing(side, x, budget, rng)
        start = best_of(side, starts)
        ends.append(auto_ascend(side, start, x, budget.norm, radius, budget.steps, landing=landing))
    return best_of(objective, ends)


def _square(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
    """The random search, with its own number of queries or what is left of the budget."""
    left = int(objective.remaining().min()) * objective.draws
    spend = Budget(
        norm=budget.norm,
        eps_255=budget.eps_255,
        queries=max(min(SQUARE_QUERIES, left), objective.draws),
        eot=budget.eot,
    )
    return Square().perturb(objective, x, spend, rng)
