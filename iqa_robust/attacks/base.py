"""The contract every attack keeps: an author writes `perturb`, the base class projects, rounds and judges."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, final

import torch

from iqa_robust.attacks.known import Known, keys_of
from iqa_robust.attacks.norms import TOLERANCE, measures, snap
from iqa_robust.attacks.objectives import FEW, Goal, Objective, QueryBudgetExhaustedError
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid, to_8bit_grid
from iqa_robust.models.base import IQAModel, Swapped, check_inputs, score
from iqa_robust.models.modes import evaluation_mode
from iqa_robust.models.randomness import ImageRNG, content_seeds, derive_seed
from iqa_robust.records import GOALS, Budget

FORMS = ("published", "corrected", "adapted", "reconstructed", "ours")
"""How an attack relates to its source: as published; with a bug of the released code corrected; carried over from
another setting, such as classification; read from an incomplete text; without a source."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack reached: one entry per image in every field, measured on the final 8-bit image."""

    images: torch.Tensor
    """(N, 3, H, W) on the 8-bit grid, inside the budget."""
    score_clean: torch.Tensor
    """(N,) of the attacked model, native units, fp32."""
    score_adv: torch.Tensor
    """(N,) likewise, on `images`."""
    queries: torch.Tensor
    """(N,) forward passes of the attack, each draw of a randomized model counted; final scoring is not."""
    gradients: torch.Tensor
    """(N,) backward passes."""
    zero_gradient: torch.Tensor
    """(N,) bool: gradients were taken and every one of them was exactly zero."""
    linf: torch.Tensor
    """(N,) measured distance, fraction of full scale, float32; records hold it to the last digit."""
    l2: torch.Tensor
    """(N,) likewise."""
    curve: tuple[tuple[tuple[int, float], ...], ...]
    """Per image, (queries spent, score) at every improvement the attack saw, before rounding to the 8-bit grid."""


class Attack(ABC):
    """Looks for a perturbed image inside a budget that moves the score.

    The constructor is the configuration: keyword-only, JSON-able, stored unchanged, no I/O.
    """

    access: ClassVar[str] = "white"
    """`"white"` may differentiate the model, `"black"` may only query it."""
    norms: ClassVar[tuple[str, ...]] = ("linf", "l2")
    goals: ClassVar[tuple[str, ...]] = GOALS
    source: ClassVar[str] = ""
    """Authors, venue and year."""
    form: ClassVar[str] = "ours"
    """One of `FORMS`."""
    perturbs: ClassVar[str] = "image"
    """`"image"`, or `"reference"` for an attack that changes the reference of a full-reference model instead."""
    scope: ClassVar[str] = "image"
    """`"set"` for an attack that must see the scores of the whole set first; see `set_attack.SetAttack`."""
    control: ClassVar[bool] = False
    """True for the control that every attack must beat: it does not try."""
    aims: ClassVar[bool] = True
    """False for an attack that never asks the model it attacks where to go: a transfer attack, or a fixed trigger."""
    maximizes: ClassVar[bool] = True
    """False for an attack that stops where its aim is met, so that others moving the score further prove nothing."""
    note: ClassVar[str] = ""
    """What a reader of the board must know, such as that the attack is a reconstruction."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        """Raise `ContractError` for a subclass that replaces the call: an attack cannot judge itself."""
        super().__init_subclass__(**kwargs)
        if "__call__" in vars(cls):
            raise ContractError(f"{cls.__name__}: an attack writes `perturb`; it may not replace `__call__`.")

    @property
    def needs_labels(self) -> bool:
        """Whether the attack reads the quality labels, so that the harness must pass them."""
        return False

    @abstractmethod
    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """Perturbed images (N, 3, H, W) that make `objective` large.

        The base class projects, clamps, rounds and judges whatever is returned, and also considers every
        image the objective has seen. `x` is a copy. `rng` draws per image, so the batch does not matter.
        """

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """Forward and backward passes per image, for the estimate of a dry run; by default one a step."""
        return (budget.steps, budget.steps) if self.access == "white" else (budget.queries or budget.steps, 0)

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """The goal in native units; overridden by attacks that define their own reading of one.

        Raises:
            ContractError: the goal needs a score range or a target that is not given.
        """
        better = 1.0 if model.info.higher_is_better else -1.0
        if goal == "up":
            return Goal(sign=torch.full_like(score_clean, better))
        if goal == "down":
            return Goal(sign=torch.full_like(score_clean, -better))
        if goal == "away":
            return Goal()
        if goal == "reflect":
            low, high = score_range(model)
            return Goal(target=low + high - score_clean)
        if target is None:
            raise ContractError("goal 'target': give the score to reach as `target`, in the model's native units.")
        return Goal(target=per_image(target, score_clean, "target"))

    @final
    def __call__(
        self,
        model: IQAModel,
        images: torch.Tensor,
        ref: torch.Tensor | None = None,
        *,
        goal: str,
        budget: Budget,
        seed: int = 0,
        target: torch.Tensor | float | None = None,
        labels: torch.Tensor | None = None,
        search: IQAModel | None = None,
        known: Known | None = None,
    ) -> AttackResult:
        """Attack `model` on `images`.

        Args:
            model: attacked as it is given; a defended model is just a model. It is left as it was found.
            images: float32 (N, 3, H, W) in [0, 1].
            ref: references of the same shape, for full-reference models; never perturbed.
            goal: `up` (toward better quality, whichever way the model counts), `down`, `away`, `reflect` or
                `target`.
            budget: what may be spent.
            seed: all randomness follows from it and from each image's pixels.
            target: score to reach (number or (N,)), native units; goal `target` only.
            labels: (N,) quality labels on the model's own scale, for attacks that read them.
            search: a cheaper twin of `model` on which the attack looks (`models.prepared`); what it finds is scored
                on `model`.
            known: what earlier attacks on the same two models found out of clean images; this one adds to it.

        Raises:
            ContractError: an argument is of another kind, or images, goal, norm or budget do not fit the model or
                the attack.
        """
        check_inputs(model, images, ref)
        self._check_request(model, goal, budget, seed, target, labels)
        search, known = model if search is None else search, Known() if known is None else known
        if self.perturbs == "reference":
            model, search = Swapped(model), Swapped(search)
            images, ref = ref if ref is not None else images, images
            known = Known()  # what is known are slopes at images, not at references
        with torch.inference_mode(False), torch.no_grad(), frozen(model), frozen(search):
            images = images.detach().clone()
            ref = ref.detach().clone() if model.info.full_reference and ref is not None else None
            untouched = images  # on the grid, mostly; else `snap` raises if no point of it is within reach
            if not torch.equal(to_8bit_grid(images), images):
                untouched = snap(images, images, budget.norm, budget.eps)
            seeds = content_seeds(images, seed)
            with _full_precision(images):
                clean = known.scores(
                    keys_of(seeds, ref),
                    lambda: score(model, images, ref, seeds=[derive_seed(s, "clean") for s in seeds]),
                ).to(images.device)
            objective = Objective(
                search,
                images,
                ref,
                goal=self.goal_for(goal, model, clean, target, labels),
                score_clean=clean,
                budget=budget,
                seeds=seeds,
                white_box=self.access == "white",
                known=known,
            )
            try:
                with torch.enable_grad() if self.access == "white" else contextlib.nullcontext():
                    returned = self.perturb(objective, images.clone(), budget, ImageRNG(seeds, images.device))
                _check_returned(self, returned, images)
            except QueryBudgetExhaustedError:
                returned = objective.tally.best_image
            with _full_precision(images):
                best, best_score = self._judge(
                    model, images, ref, objective, returned.detach(), untouched, budget, seeds
                )
            distances = measures(best, images, tuple({"linf", "l2", budget.norm}))
            _check_final(best, distances[budget.norm], budget)
        tally = objective.tally
        return AttackResult(
            images=best,
            score_clean=clean,
            score_adv=best_score,
            queries=tally.queries,
            gradients=tally.gradients,
            zero_gradient=(tally.gradients > 0) & (tally.nonzero_gradients == 0),
            linf=distances["linf"].float(),
            l2=distances["l2"].float(),
            curve=tuple(tuple(points) for points in tally.curve),
        )

    def _check_request(
        self,
        model: IQAModel,
        goal: str,
        budget: Budget,
        seed: int,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> None:
        name = type(self).__name__
        if not isinstance(budget, Budget):
            raise ContractError(f"budget: expected a Budget, such as Budget(eps_255=4), got {budget!r}.")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise ContractError(f"seed: expected a whole number >= 0, got {seed!r}.")
        if goal not in GOALS:
            raise ContractError(f"goal: expected one of {', '.join(GOALS)}, got {goal!r}.")
        if goal not in self.goals:
            raise ContractError(f"{name} serves the goals {', '.join(self.goals)}, got {goal!r}.")
        if budget.norm not in self.norms:
            raise ContractError(f"{name} serves the norms {', '.join(self.norms)}, got {budget.norm!r}.")
        if target is not None and goal != "target" and self.scope != "set":
            raise ContractError(f"target: only the goal 'target' has one, got the goal {goal!r}.")
        if self.needs_labels and labels is None:
            raise ContractError(f"{name} reads quality labels: pass `labels`, on the model's own scale.")
        draws = 1 if model.info.deterministic else budget.eot
        if budget.queries is not None and budget.queries < draws:
            raise ContractError(
                f"budget: one evaluation of this randomized model takes eot = {draws} queries,"
                f" got {budget.queries}; raise queries or lower eot."
            )

    def _judge(
        self,
        model: IQAModel,
        x: torch.Tensor,
        ref: torch.Tensor | None,
        objective: Objective,
        returned: torch.Tensor,
        untouched: torch.Tensor,
        budget: Budget,
        seeds: list[int],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The better of the returned and the best seen image after rounding into the ball, by the model's own scores.

        What was seen is scored only where the search valued it higher than the returned image turned out to be; after a
        climb it seldom did, which saves a pass. An attacker can always leave an image alone: except for a control,
        `untouched` (the clean image, on the grid) wins where neither is better. It does not hide scores that are NaN.
        """
        judged: list[tuple[torch.Tensor, torch.Tensor]] = []
        if not self.control:
            exact = model.info.deterministic and untouched is x
            still = objective.score_clean if exact else _scored(model, untouched, ref, seeds, judged)
            judged.append((untouched, still))
        best = snap(returned, x, budget.norm, budget.eps)
        best_score = _scored(model, best, ref, seeds, judged)
        judged.append((best, best_score))
        best_value = objective.judge.value(best_score, objective.score_clean)
        hoped = objective.tally.best_value  # -inf where nothing was seen
        higher = (hoped > best_value) | (best_value.isnan() & (hoped > -torch.inf))
        if bool(higher.any()):
            seen = torch.where(higher.view(-1, 1, 1, 1), objective.tally.best_image, returned)
            image = snap(seen, x, budget.norm, budget.eps)
            adv = _scored(model, image, ref, seeds, judged)
            value = objective.judge.value(adv, objective.score_clean)
            wins = best_value.isnan() | (value > best_value)
            best = torch.where(wins.view(-1, 1, 1, 1), image, best)
            best_score, best_value = torch.where(wins, adv, best_score), torch.where(wins, value, best_value)
        if self.control:
            return best, best_score
        wins = objective.judge.value(still, objective.score_clean) >= best_value
        return torch.where(wins.view(-1, 1, 1, 1), untouched, best), torch.where(wins, still, best_score)


def _scored(
    model: IQAModel,
    images: torch.Tensor,
    ref: torch.Tensor | None,
    seeds: list[int],
    judged: list[tuple[torch.Tensor, torch.Tensor]],
) -> torch.Tensor:
    """Final scores (N,); those of images that are in `judged` with their scores are taken from there."""
    known, scores = torch.zeros(len(images), dtype=torch.bool, device=images.device), images.new_zeros(len(images))
    for others, of_others in judged:
        same = _same(images, others)
        known, scores = known | same, torch.where(same, of_others, scores)
    index = (~known).nonzero().squeeze(1)
    if len(index):
        chosen = [derive_seed(seeds[i], "adv") for i in index.tolist()]
        scores[index] = score(model, images[index], None if ref is None else ref[index], seeds=chosen)
    return scores


def _same(images: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """(N,) bool: whether two batches hold the same image; few values show that most do not."""
    same = (images.flatten(1)[:, :FEW] == others.flatten(1)[:, :FEW]).all(dim=1)
    for i in same.nonzero().squeeze(1).tolist():
        same[i] = torch.equal(images[i], others[i])
    return same


def per_image(numbers: torch.Tensor | float, score_clean: torch.Tensor, what: str) -> torch.Tensor:
    """A number, or one per image, as float32 (N,). Raises `ContractError` for another shape or NaN."""
    values = torch.as_tensor(numbers, dtype=torch.float32, device=score_clean.device).detach()
    if values.ndim > 0 and values.shape != score_clean.shape:
        raise ContractError(
            f"{what}: expected a number or shape {tuple(score_clean.shape)}, got {tuple(values.shape)}."
        )
    if not bool(torch.isfinite(values).all()):
        raise ContractError(f"{what}: expected finite numbers, got NaN or infinity.")
    return values.expand_as(score_clean).clone()


def score_range(model: IQAModel) -> tuple[float, float]:
    """The model's score range. Raises `ContractError` when it is unknown."""
    if model.info.score_range is None:
        raise ContractError(
            "goal 'reflect' mirrors scores within the model's range, which is unknown:"
            " give `score_range` in the track or in ModelInfo."
        )
    return model.info.score_range


def _check_returned(attack: Attack, returned: torch.Tensor, x: torch.Tensor) -> None:
    name = type(attack).__name__
    if not isinstance(returned, torch.Tensor) or returned.shape != x.shape:
        got = tuple(returned.shape) if isinstance(returned, torch.Tensor) else type(returned).__name__
        raise ContractError(f"{name}.perturb: expected images of shape {tuple(x.shape)}, got {got}.")
    if returned.dtype != x.dtype or returned.device != x.device:
        raise ContractError(
            f"{name}.perturb: expected {x.dtype} on {x.device}, got {returned.dtype} on {returned.device}."
        )
    if not bool(torch.stack(torch.aminmax(returned)).isfinite().all()):  # NaN is both ends
        raise ContractError(f"{name}.perturb: returned NaN or infinite pixels.")


def _check_final(images: torch.Tensor, distances: torch.Tensor, budget: Budget) -> None:
    """What the base class promises of every result, checked on the result itself and its measured distances (N,)."""
    if not bool(on_8bit_grid(images).all()):
        raise ContractError("attack: the final images are not on the 8-bit grid; this is a bug, please report it.")
    if bool((distances > budget.eps + TOLERANCE * max(1.0, budget.eps)).any()):
        raise ContractError(
            f"attack: a final image lies {distances.max().item() * 255:.6g}/255 from the clean one ({budget.norm}),"
            f" beyond the budget of {budget.eps_255:.6g}/255; this is a bug, please report it."
        )


@contextlib.contextmanager
def frozen(model: IQAModel) -> Iterator[None]:
    """Evaluation mode for every module and no gradients for parameters, restored one by one afterwards.

    Libraries call `backward()`, which would otherwise add to the gradients of the parameters.
    """
    learned = [parameter for parameter in model.parameters() if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        with evaluation_mode(model):
            yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def _full_precision(x: torch.Tensor) -> torch.autocast:
    """Final scores are computed in float32, also when the attack runs under autocast."""
    return torch.autocast(x.device.type, enabled=False)
