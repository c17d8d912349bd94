"""Attacks that learn from images of one split and then attack any image without another look at the model."""

from __future__ import annotations

import dataclasses
import inspect
import json
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch

from iqa_robust.attacks.base import Attack, frozen
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.attacks.parameters import check_whole
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, check_inputs, score
from iqa_robust.models.randomness import ImageRNG, content_seeds, derive_seed
from iqa_robust.records import Budget, Place, write_atomically

_SCORED_AT_ONCE = 8


@dataclass(frozen=True)
class Lesson:
    """Images of one size to learn from, and the objective of the attack on them."""

    x: torch.Tensor
    """(n, 3, H, W)."""
    objective: Objective
    """Without a limit of queries; `index` names images of `x`."""
    scale: float
    """Width of the model's score range; of the clean scores of all lessons where it is unknown."""


class TrainedAttack(Attack):
    """An attack with a state of its own: a universal pattern, or the weights of a generator.

    An author writes `learn`, which returns the state, and `perturb`, which reads `state`. The state belongs to one
    model, goal and budget; it may be tried on another model or budget, but not for another goal. `fit` makes it, `save`
    and `load` keep it as safetensors; `weights` names a saved file.
    """

    fit_split = "train"
    """Split of the dataset the harness fits on; it never overlaps the split that is attacked."""

    def __init__(self, *, weights: str | None = None, fit_images: int = 64, fit_epochs: int = 5) -> None:
        """`weights`: a file written by `save`, instead of fitting.

        `fit_images` and `fit_epochs`: how many images of the fitting split to learn from, and how often to see each.
        Raises `ContractError` when one of them is not a whole number of at least 1, or `weights` is not a text.
        """
        check_whole(self, "fit_images", fit_images, least=1)
        check_whole(self, "fit_epochs", fit_epochs, least=1)
        if weights is not None and not isinstance(weights, str):
            raise ContractError(f"{type(self).__name__}: expected weights to be the path of a file, got {weights!r}.")
        self.weights = weights
        self.fit_images = fit_images
        self.fit_epochs = fit_epochs
        self._state: dict[str, torch.Tensor] | None = None
        self._learned: dict[str, Any] = {}

    @abstractmethod
    def learn(self, lessons: Sequence[Lesson], budget: Budget, seed: int) -> dict[str, torch.Tensor]:
        """The state learned from `lessons`, one per size of image."""

    @property
    def fitted(self) -> bool:
        """Whether there is a state: fitted, loaded, or named by `weights`."""
        return self._state is not None or self.weights is not None

    @property
    def state(self) -> dict[str, torch.Tensor]:
        """The learned tensors, on the CPU. Raises `ContractError` before there are any."""
        if self._state is None and self.weights is not None:
            self.load(Path(self.weights))
        if self._state is None:
            raise ContractError(
                f"{type(self).__name__} learns first: call `fit` with images of another split, or give `weights`."
            )
        return self._state

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """As `Attack.goal_for`. Raises `ContractError` when nothing, or another goal, was learned."""
        assert self.state is not None  # reads the file that `weights` names
        if goal != self._learned["goal"]:
            raise ContractError(
                f"{type(self).__name__} has learned the goal {self._learned['goal']!r}, got {goal!r}; fit it again."
            )
        return super().goal_for(goal, model, score_clean, target, labels)

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

        The budget's `queries` do not limit the fit.

        Raises:
            ContractError: no images, or images, references, goal, budget or seed that do not fit.
        """
        if not images:
            raise ContractError(f"{type(self).__name__}.fit: expected at least one image.")
        if refs is not None and len(refs) != len(images):
            raise ContractError(
                f"{type(self).__name__}.fit: expected one reference per image, got {len(refs)} for {len(images)}."
            )
        for i, image in enumerate(images):
            check_inputs(model, image[None], None if refs is None else refs[i][None])
        self._check_request(model, goal, budget, seed, None, None)
        by_size: dict[tuple[int, ...], list[int]] = {}
        for i, image in enumerate(images):
            by_size.setdefault(tuple(image.shape), []).append(i)
        with torch.inference_mode(False), torch.enable_grad(), frozen(model):
            lessons = []
            for group in by_size.values():
                x = torch.stack([images[i] for i in group]).detach()
                paired = refs is not None and model.info.full_reference
                ref = torch.stack([refs[i] for i in group]).detach() if paired else None  # type: ignore[index]
                lessons.append(self._lesson(model, x, ref, goal, budget, seed, target))
            clean = torch.cat([lesson.objective.score_clean for lesson in lessons])
            low, high = model.info.score_range or (clean.min().item(), clean.max().item())
            scale = high - low if high > low else 1.0
            lessons = [dataclasses.replace(lesson, scale=scale) for lesson in lessons]
            state = self.learn(lessons, budget, seed)
        self._state = {name: value.detach().float().cpu().contiguous() for name, value in state.items()}
        self._learned = {"goal": goal, "norm": budget.norm, "eps_255": budget.eps_255}

    def _lesson(
        self,
        model: IQAModel,
        x: torch.Tensor,
        ref: torch.Tensor | None,
        goal: str,
        budget: Budget,
        seed: int,
        target: float | None,
    ) -> Lesson:
        seeds = content_seeds(x, seed)
        drawn = [derive_seed(s, "clean") for s in seeds]
        parts = [slice(i, i + _SCORED_AT_ONCE) for i in range(0, len(x), _SCORED_AT_ONCE)]
        clean = torch.cat([score(model, x[p], None if ref is None else ref[p], seeds=drawn[p]) for p in parts])
        objective = Objective(
            model,
            x,
            ref,
            goal=super().goal_for(goal, model, clean, target, None),
            score_clean=clean,
            budget=Budget(norm=budget.norm, eps_255=budget.eps_255, steps=budget.steps, eot=budget.eot),
            seeds=seeds,
            white_box=True,
        )
        return Lesson(x, objective, scale=1.0)

    def save(self, path: Place) -> None:
        """Write the state, whole or not at all. Raises `StorageError` when it cannot be written."""
        from safetensors.torch import save

        said = {"attack": type(self).__name__, "parameters": self._parameters()}
        state = self.state
        write_atomically(path, save(state, metadata={"attack": json.dumps({**said, "learned": self._learned})}))

    def load(self, path: Path) -> None:
        """Read a state that an attack of the same class and parameters saved.

        Raises:
            ContractError: the file is missing, broken, or another attack's.
        """
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(path, framework="pt") as file:
                said = json.loads((file.metadata() or {}).get("attack", "null"))
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
            kind, parameters, learned = said["attack"], dict(said["parameters"]), dict(said["learned"])
            if "goal" not in learned:
                raise ValueError("no goal")
        except (OSError, SafetensorError, ValueError, TypeError, KeyError) as error:
            raise ContractError(f"{path}: not a saved attack ({type(error).__name__}: {error}).") from error
        if kind != type(self).__name__:
            raise ContractError(f"{path}: expected a saved {type(self).__name__}, got a {kind}.")
        own = self._parameters()
        if parameters != own:
            differ = sorted(name for name in {*own, *parameters} if own.get(name) != parameters.get(name))
            told = ", ".join(f"{name}={parameters.get(name)!r} (here {own.get(name)!r})" for name in differ)
            raise ContractError(f"{path}: saved with {told}; create the attack with the parameters of the file.")
        self._state, self._learned = state, learned

    def _parameters(self) -> dict[str, Any]:
        """The constructor's parameters that the state depends on."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "weights"]
        return json.loads(json.dumps({name: getattr(self, name) for name in names}))

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """Nothing per attacked image; fitting is paid once."""
        return 0, 0


def one_pass(lessons: Sequence[Lesson], size: int, rng: ImageRNG) -> list[tuple[Lesson, torch.Tensor]]:
    """All images once, in random order: batches of up to `size` images of one lesson, as (lesson, index).

    `rng` holds one generator.
    """
    batches = []
    for lesson in lessons:
        shuffled = rng.uniform((len(lesson.x),))[0].argsort()
        batches += [(lesson, part) for part in shuffled.split(size)]
    order = rng.uniform((len(batches),))[0].argsort().tolist()
    return [batches[i] for i in order]
