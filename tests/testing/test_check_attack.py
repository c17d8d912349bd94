"""The conformance suite sees what is wrong with an attack."""

from __future__ import annotations

import pytest
import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import project, steepest
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget
from iqa_robust.testing import check_attack


class Climb(Attack):
    """A sound white-box attack to break."""

    def __init__(self, *, step_ratio: float = 0.5) -> None:
        self.step_ratio = step_ratio

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        z = x
        for _ in range(budget.steps):
            _, slope = objective.gradient(z)
            z = z + self.step_ratio * budget.eps * steepest(slope, budget.norm)
            z = project(z, x, budget.norm, budget.eps)
        return z


class Search(Attack):
    """A sound black-box attack: random signs, kept where they help."""

    access = "black"
    norms = ("linf",)
    goals = ("up", "down")

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        best, value = x, objective(x)
        for _ in range((budget.queries or 100) - 1):
            trial = project(best + budget.eps * rng.signs(x.shape[1:]), x, "linf", budget.eps)
            reached = objective(trial)
            better = reached > value
            best = torch.where(better.view(-1, 1, 1, 1), trial, best)
            value = torch.where(better, reached, value)
        return best


class Autograd(Climb):
    """Differentiates through the objective itself."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        z = x.clone().requires_grad_(True)
        (slope,) = torch.autograd.grad(objective(z).sum(), z)
        return x + budget.eps * steepest(slope, budget.norm)


class Shy(Climb):
    """A control does not have to move anything."""

    control = True

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x


@pytest.mark.parametrize("attack", [Climb(), Climb(step_ratio=0.1), Search(), Autograd(), Shy()])
def test_a_sound_attack_passes(attack: Attack) -> None:
    report = check_attack(attack)
    report.raise_if_failed()
    assert report.subject == f"attack {type(attack).__name__}"
    assert all(check.detail for check in report.checks)


class WrongWay(Climb):
    """Has the model's direction mixed up: `up` takes a score down where lower is better, and up elsewhere."""

    goals = ("up", "down")

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        return Goal(sign=torch.full_like(score_clean, 1.0 if goal == "up" else -1.0))


class Idle(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x


class OnlyNoise(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x + budget.eps * rng.signs(x.shape[1:])


class NotANumber(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x * torch.nan


class Crops(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x[..., 1:]


class GlobalRandomness(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        start = project(x + budget.eps * (2 * torch.rand_like(x) - 1), x, budget.norm, budget.eps)
        _, slope = objective.gradient(start)
        return start + 0.5 * budget.eps * steepest(slope, budget.norm)


class SeedsGlobally(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        torch.manual_seed(0)
        return super().perturb(objective, x, budget, rng)


class OneDrawForAll(Search):
    """One generator serves the whole batch."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        generator = torch.Generator().manual_seed(rng.seeds[0])
        best, value = x, objective(x)
        for _ in range((budget.queries or 100) - 1):
            signs = (torch.randint(0, 2, x.shape, generator=generator) * 2 - 1).to(x.device)
            trial = project(best + budget.eps * signs, x, "linf", budget.eps)
            reached = objective(trial)
            best = torch.where((reached > value).view(-1, 1, 1, 1), trial, best)
            value = torch.maximum(reached, value)
        return best


class BatchStep(Climb):
    """Normalizes the gradient by its length over the batch."""

    norms = ("l2",)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        _, slope = objective.gradient(x)
        return x + budget.eps * slope / slope.norm()


class Remembers(Climb):
    """Starts where the last call ended, when the images look alike."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        last = getattr(self, "_last", None)
        z = x if last is None or last.shape != x.shape else last
        _, slope = objective.gradient(z)
        self._last = z + 0.3 * budget.eps * steepest(slope, budget.norm)
        return self._last


class DrawsOnTheCPU(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return super().perturb(objective, x, budget, rng) + torch.linspace(0, 1e-4, x.shape[3])


class Cheats(Search):
    """A black box opened from behind."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        with torch.enable_grad():
            z = x.clone().requires_grad_(True)
            scores = objective._model(z, objective._ref).float()
            value = objective.goal.value(scores, objective.score_clean).sum()
            (slope,) = torch.autograd.grad(value, z)
        return x + budget.eps * slope.sign()


class Uncounted(Search):
    """Asks the model without being counted."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        best, value = x, objective(x)
        for _ in range(60):
            trial = project(best + budget.eps * rng.signs(x.shape[1:]), x, "linf", budget.eps)
            reached = objective.goal.value(objective._model(trial, objective._ref).float(), objective.score_clean)
            best = torch.where((reached > value).view(-1, 1, 1, 1), trial, best)
            value = torch.maximum(reached, value)
        return best


class EditsModel(Climb):
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        with torch.no_grad():
            for parameter in objective._model.parameters():
                parameter.mul_(1.01)
        return super().perturb(objective, x, budget, rng)


class FailsOnFewQueries(Search):
    """Expects a budget of at least ten queries."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        plan = torch.ones((budget.queries or 100) - 10)
        return super().perturb(objective, x, budget, rng) if len(plan) else x


class UnknownAccess(Climb):
    access = "gray"


class UnknownNorm(Climb):
    norms = ("linf", "l7")


class NoGoals(Climb):
    goals = ()


class ChangesParameter(Climb):
    def __init__(self, *, step_ratio: float = 0.5) -> None:
        self.step_ratio = step_ratio / 2


class TakesAnything(Climb):
    def __init__(self, **options: float) -> None:
        super().__init__()
        self.options = options


class SaysNoCost(Climb):
    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        return (1.5, -1)  # type: ignore[return-value]


class DropsReference(Climb):
    """Needs the reference, which the objective does not show."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        objective._model(x)
        return super().perturb(objective, x, budget, rng)


BROKEN: list[tuple[Attack, set[str]]] = [
    (WrongWay(), {"direction"}),
    (Idle(), {"direction"}),
    (OnlyNoise(), {"direction"}),
    (NotANumber(), {"runs"}),
    (Crops(), {"runs"}),
    (GlobalRandomness(), {"repeatable", "batch", "global-randomness"}),
    (SeedsGlobally(), {"global-randomness"}),
    (OneDrawForAll(), {"batch"}),
    (BatchStep(), {"batch"}),
    (Remembers(), {"direction", "repeatable", "batch", "gpu"}),
    (DrawsOnTheCPU(), {"gpu"}),
    (Cheats(), {"access"}),
    (Uncounted(), {"access"}),
    (EditsModel(), {"honest-scores", "repeatable", "model-unchanged"}),
    (FailsOnFewQueries(), {"query-budget"}),
    (UnknownAccess(), {"declarations"}),
    (UnknownNorm(), {"declarations"}),
    (NoGoals(), {"declarations"}),
    (ChangesParameter(), {"constructor"}),
    (TakesAnything(), {"constructor", "repeatable"}),
    (SaysNoCost(), {"cost"}),
    (DropsReference(), {"runs"}),
]


@pytest.mark.parametrize(("attack", "expected"), BROKEN, ids=[type(broken).__name__ for broken, _ in BROKEN])
def test_what_is_broken_is_found(attack: Attack, expected: set[str]) -> None:
    report = check_attack(attack)
    found = {check.name for check in report.failed}
    assert found == expected, [check.detail for check in report.failed]
