"""Attacks that learn from images of one split and then attack any image without another look at the model."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import final

import torch

from iqa_robust.attacks.base import Attack, frozen
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_whole
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, check_inputs, score
from iqa_robust.models.randomness import ImageRNG, content_seeds, derive_seed
from iqa_robust.records import Budget, write_atomically

MakeObjective = Callable[[torch.Tensor, "torch.Tensor | None"], Objective]
"""Images (N, 3, H, W) and references -> the objective of the attack on them, without a limit of queries."""


class TrainedAttack(Attack):
    """An attack with a state of its own: a universal pattern, or the weights of a generator.

    An author writes `learn`, which returns the state, and `perturb`, which reads `state`. The state belongs to one
    model, goal and budget. `fit` makes it, `save` and `load` keep it as safetensors; `weights` names a saved file.
    """

    fit_split = "train"
    """Split of the dataset the harness fits on; it never overlaps the split that is attacked."""

    def __init__(self, *, weights: str | None = None, fit_images: int = 64, fit_epochs: int = 5) -> None:
        """`weights`: a file written by `save`, instead of fitting.

        `fit_images` and `fit_epochs`: how many images of the fitting split to learn from, and how often to see each.
        Raises `ContractError` when one of them is not a whole number of at least 1.
        """
        check_whole(self, "fit_images", fit_images, least=1)
        check_whole(self, "fit_epochs", fit_epochs, least=1)
        self.weights = weights
        self.fit_images = fit_images
        self.fit_epochs = fit_epochs
        self._state: dict[str, torch.Tensor] | None = None

    @abstractmethod
    def learn(
        self,
        make_objective: MakeObjective,
        images: Sequence[torch.Tensor],
        refs: Sequence[torch.Tensor] | None,
        budget: Budget,
        seed: int,
    ) -> dict[str, torch.Tensor]:
        """The state learned from `images`, each (3, H, W) of its own size, and their references."""

    @property
    def fitted(self) -> bool:
        """Whether there is a state: fitted, loaded, or named by `weights`."""
        return self._state is not None or self.weights is not None

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The learned tensors. Raises `ContractError` before there are any."""
        if self._state is None and self.weights is not None:
            self.load(Path(self.weights))
        if self._state is None:
            raise ContractError(
                f"{type(self).__name__} learns first: call `fit` with images of another split, or give `weights`."
            )
        return self._state

    @final
    def fit(
        self,
        model: IQAModel,
        images: Sequence[torch.Tensor],
        refs: Sequence[torch.Tensor] | None = None,
        *,
        goal: str,
        budget: Budget,
        seed: int = 0,
        target: float | None = None,
    ) -> None:
        """Learn the state for one model, goal and budget from images (3, H, W), each of its own size.

        Raises:
            ContractError: no images, or images, goal or norm that do not fit.
        """
        if not images:
            raise ContractError(f"{type(self).__name__}.fit: expected at least one image.")
        for i, image in enumerate(images):
            check_inputs(model, image[None], None if refs is None else refs[i][None])
        self._check_request(model, goal, budget, None, None)

        def make_objective(x: torch.Tensor, ref: torch.Tensor | None) -> Objective:
            seeds = content_seeds(x, seed)
            with torch.no_grad():
                clean = score(model, x, ref, seeds=[derive_seed(s, "clean") for s in seeds])
            return Objective(
                model,
                x,
                ref,
                goal=self.goal_for(goal, model, clean, target, None),
                score_clean=clean,
                budget=Budget(norm=budget.norm, eps_255=budget.eps_255, steps=budget.steps, eot=budget.eot),
                seeds=seeds,
                white_box=True,
            )

        with torch.inference_mode(False), torch.enable_grad(), frozen(model):
            state = self.learn(make_objective, images, refs if model.info.full_reference else None, budget, seed)
        self._state = {name: value.detach().float().cpu().contiguous() for name, value in state.items()}

    def save(self, path: Path) -> None:
        """Write the state, whole or not at all. Raises `StorageError` when it cannot be written."""
        from safetensors.torch import save

        write_atomically(path, save(self.state, metadata={"attack": json.dumps(self._identity())}))

    def load(self, path: Path) -> None:
        """Read a state that an attack of the same class and parameters saved.

        Raises:
            ContractError: the file is missing, broken, or another attack's.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                found = json.loads((file.metadata() or {}).get("attack", "null"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        except (OSError, SafetensorError, ValueError) as error:
            raise ContractError(f"{path}: not a saved attack ({error}).") from error
        if found != self._identity():
            raise ContractError(f"{path}: expected a saved {type(self).__name__}, got {found!r}.")
        self._state = state

    def _identity(self) -> str:
        return type(self).__name__

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """Nothing per attacked image; fitting is paid once."""
        return 0, 0


def image_batches(
    images: Sequence[torch.Tensor], refs: Sequence[torch.Tensor] | None, size: int, rng: ImageRNG
) -> list[tuple[torch.Tensor, torch.Tensor | None]]:
    """One shuffled pass over the images in batches of up to `size` images of equal height and width."""
    order = rng.uniform((len(images),))[0].argsort().tolist()
    groups: dict[tuple[int, ...], list[int]] = {}
    batches: list[list[int]] = []
    for i in order:
        group = groups.setdefault(tuple(images[i].shape), [])
        group.append(i)
        if len(group) == size:
            batches.append(groups.pop(tuple(images[i].shape)))
    batches += groups.values()
    return [
        (torch.stack([images[i] for i in batch]), None if refs is None else torch.stack([refs[i] for i in batch]))
        for batch in batches
    ]
