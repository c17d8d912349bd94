"""Attacked patches: what a purifier learns to take back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from iqa_robust import attacks, models
from iqa_robust.attacks.base import Attack
from iqa_robust.errors import RequestError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import derive_seed
from iqa_robust.records import Budget
from iqa_robust.training.sections import Attacked


class Attacker:
    """Attacks patches as a recipe says, and whole pictures for judging."""

    def __init__(self, settings: Attacked, seed: int) -> None:
        """Makes the models and attacks; raises what their constructors raise."""
        self._settings = settings
        self._seed = seed
        self._models = [models.create(entry.name, **entry.params).eval() for entry in settings.models]
        self._attacks = [(entry.name, attacks.create(entry.name, **entry.params)) for entry in settings.attacks]

    def attacked(self, clean: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """A batch (N, 3, h, w) under one model, attack, goal and radius, each drawn from what the recipe names."""
        model = self._models[rng.integers(len(self._models))]
        _, attack = self._attacks[rng.integers(len(self._attacks))]
        goal = self._settings.goals[rng.integers(len(self._settings.goals))]
        eps_255 = float(rng.uniform(0, self._settings.eps_255))
        return self._attack(model, attack, clean, goal, eps_255, int(rng.integers(2**31)))

    def judged(self, pictures: Sequence[torch.Tensor]) -> dict[str, list[tuple[torch.Tensor, torch.Tensor]]]:
        """Whole pictures (3, H, W) under each attack on the first model at half the largest radius, by a title.

        The goals take turns from picture to picture. Every entry is (attacked, clean); a picture that an attack left
        as it was is no entry.

        Raises:
            RequestError: an attack changes none of the pictures.
        """
        eps_255, goals = self._settings.eps_255 / 2, self._settings.goals
        found = {}
        for name, attack in self._attacks:
            pairs = []
            for number, clean in enumerate(pictures):
                goal = goals[number % len(goals)]
                attacked = self._attack(self._models[0], attack, clean[None], goal, eps_255, number)[0]
                if not torch.equal(attacked, clean):
                    pairs.append((attacked, clean))
            if not pairs:
                raise RequestError(f"recipe: attack: {name!r} changes none of the pictures to be judged.")
            found[f"{name} at {eps_255:g}/255"] = pairs
        return found

    def _attack(
        self, model: IQAModel, attack: Attack, clean: torch.Tensor, goal: str, eps_255: float, seed: int
    ) -> torch.Tensor:
        budget = Budget(eps_255=eps_255, steps=self._settings.steps)
        with torch.autocast("cpu", enabled=False):
            return attack(model, clean, goal=goal, budget=budget, seed=derive_seed(self._seed, seed)).images
