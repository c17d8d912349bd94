"""What an attacker maximizes: a goal on one model, with every evaluation counted and the best image kept."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from iqa_robust.attacks.known import Known, keys_of
from iqa_robust.attacks.norms import inside
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.randomness import derive_seed, searching, seeded
from iqa_robust.records import Budget

FEW = 3000
"""Values of an image or a gradient that are looked at first: mostly they tell that it is another one, or not zero."""


class QueryBudgetExhaustedError(Exception):
    """An image has no queries left. The base class then ends the attack and keeps the best images found."""


@dataclass
class Tally:
    """What an attack has spent, and the best feasible image seen, per image."""

    queries: torch.Tensor
    gradients: torch.Tensor
    nonzero_gradients: torch.Tensor
    best_value: torch.Tensor
    best_image: torch.Tensor
    curve: list[list[tuple[int, float]]]
    """Per image, (queries spent, score) at every improvement of the best value."""


@dataclass(frozen=True)
class Goal:
    """Where the attacker wants the score.

    `sign` (N,) is the direction of a push in native units: +1 where a higher score is wanted. `target` (N,)
    is the score wanted, for the goals that have one. Both are None for `away`, where any distance from the
    clean score counts. `enough` (N,) is the value beyond which more is not better.
    """

    sign: torch.Tensor | None = None
    target: torch.Tensor | None = None
    enough: torch.Tensor | None = None

    def value(self, scores: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        """The quantity to maximize, (N,), in native units of the score."""
        value = self._unlimited(scores, clean)
        return value if self.enough is None else torch.minimum(value, self.enough)

    def _unlimited(self, scores: torch.Tensor, clean: torch.Tensor) -> torch.Tensor:
        if self.target is not None:
            return -(scores - self.target).abs()
        shift = scores - clean
        if self.sign is not None:
            return self.sign * shift
        return torch.where(shift >= 0, shift, -shift)  # unlike abs(), it has a slope at the clean image

    def select(self, index: torch.Tensor) -> Goal:
        """The goal of some of the images."""
        return Goal(
            None if self.sign is None else self.sign[index],
            None if self.target is None else self.target[index],
            None if self.enough is None else self.enough[index],
        )


class Objective:
    """`objective(z) -> (N,)`, to be maximized; higher is better for the attacker.

    White-box attacks may differentiate it, through autograd or with `gradient`; it refuses black-box attacks.
    Randomized models are averaged over `budget.eot` draws, each counted. `index` names the images of the
    batch that `z` holds, for attacks that let finished images leave, or that try an image several times in
    one call: each of these is counted.
    """

    def __init__(
        self,
        model: IQAModel,
        x: torch.Tensor,
        ref: torch.Tensor | None,
        *,
        goal: Goal,
        score_clean: torch.Tensor,
        budget: Budget,
        seeds: list[int],
        white_box: bool,
        judge: Goal | None = None,
        tally: Tally | None = None,
        known: Known | None = None,
    ) -> None:
        """`score_clean` (N,) are the model's clean scores; `seeds` (N) name the draws of randomized models.

        `judge` is the goal by which the best image is kept, when it is not the one that is climbed (`sides`). `known`
        holds slopes at clean images, which are not taken twice.
        """
        self.goal = goal
        self.judge = judge or goal
        self.score_clean = score_clean
        self.white_box = white_box
        self._model, self._x, self._ref, self._budget, self._seeds = model, x, ref, budget, seeds
        self._known, self._keys = known or Known(), keys_of(seeds, ref)
        n = x.shape[0]
        self._everyone = torch.arange(n, device=x.device)
        self._everyone_on_cpu = torch.arange(n)
        counts = torch.zeros(n, dtype=torch.int64)
        self.tally = tally or Tally(
            queries=counts.clone(),
            gradients=counts.clone(),
            nonzero_gradients=counts.clone(),
            best_value=torch.full((n,), -torch.inf, device=x.device),
            best_image=x.clone(),
            curve=[[] for _ in range(n)],
        )
        self.draws = 1 if model.info.deterministic else budget.eot
        """Forward passes per evaluation of an image."""

    @property
    def info(self) -> ModelInfo:
        """What the attacked model declares of itself."""
        return self._model.info

    def sides(self) -> list[Objective]:
        """For the goal `away`, one objective per direction that shares counts and best image; else itself."""
        if self.goal.sign is not None or self.goal.target is not None:
            return [self]
        up = torch.ones_like(self.score_clean)
        return [self._with_goal(dataclasses.replace(self.goal, sign=sign)) for sign in (up, -up)]

    def toward(self, target: torch.Tensor) -> Objective:
        """The same images with a score (N,) to reach, sharing counts and best image."""
        return self._with_goal(Goal(target=target))

    @contextlib.contextmanager
    def among(self, index: torch.Tensor) -> Iterator[Objective]:
        """Within the block, the objective of the images `index` (n,), each named once, as if they were the batch.

        What it spends and finds is this objective's at the end of the block, however it ends.
        """
        rows, tally = index.cpu(), self.tally
        part = Objective(
            self._model,
            self._x[index],
            None if self._ref is None else self._ref[index],
            goal=self.goal.select(index),
            judge=self.judge.select(index),
            score_clean=self.score_clean[index],
            budget=self._budget,
            seeds=[self._seeds[i] for i in rows.tolist()],
            white_box=self.white_box,
            tally=Tally(
                queries=tally.queries[rows],
                gradients=tally.gradients[rows],
                nonzero_gradients=tally.nonzero_gradients[rows],
                best_value=tally.best_value[index],
                best_image=tally.best_image[index],
                curve=[tally.curve[i] for i in rows.tolist()],
            ),
            known=self._known,
        )
        try:
            yield part
        finally:
            tally.queries[rows] = part.tally.queries
            tally.gradients[rows] = part.tally.gradients
            tally.nonzero_gradients[rows] = part.tally.nonzero_gradients
            tally.best_value[index] = part.tally.best_value
            tally.best_image[index] = part.tally.best_image

    def reached(self) -> torch.Tensor:
        """(N,) bool: whether the best image seen has all the value that counts (`Goal.enough`)."""
        if self.judge.enough is None:
            return torch.zeros_like(self.tally.best_value, dtype=torch.bool)
        return self.tally.best_value >= self.judge.enough

    def _with_goal(self, goal: Goal) -> Objective:
        return Objective(
            self._model,
            self._x,
            self._ref,
            goal=goal,
            judge=self.judge,
            score_clean=self.score_clean,
            budget=self._budget,
            seeds=self._seeds,
            white_box=self.white_box,
            tally=self.tally,
            known=self._known,
        )

    def remaining(self) -> torch.Tensor:
        """(N,) evaluations each image has left; a very large number when the budget sets no limit."""
        if self._budget.queries is None:
            return torch.full_like(self.tally.queries, 2**62)
        return (self._budget.queries - self.tally.queries).div(self.draws, rounding_mode="floor")

    def __call__(
        self, z: torch.Tensor, index: torch.Tensor | None = None, memory: Memory | None = None
    ) -> torch.Tensor:
        """Values (n,) of images `z` (n, 3, H, W), which are the images `index` (n,) of the batch, or all.

        A search that announced them to a `memory` may get them faster, up to rounding.

        Raises:
            ContractError: a black-box attack passes a tensor that requires a gradient.
            QueryBudgetExhaustedError: one of the images has no query left.
        """
        index = self._indices(z, index)
        if z.requires_grad and torch.is_grad_enabled():
            if not self.white_box:
                raise ContractError("objective: this attack is black-box, so it may not differentiate the model.")
            z = z.view_as(z)  # a tensor of this call alone, so that its hook fires for this call alone
            value = self._evaluate(z, index) + 0 * z.flatten(1).sum(dim=1)  # a model without a slope has a zero slope
            value.register_hook(lambda _: self._count_gradients(index))
            z.register_hook(lambda slope: self._note_zero(index, slope))
            return value
        with torch.no_grad():
            return self._evaluate(z, index, memory)

    def gradient(self, z: torch.Tensor, index: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (n,) and gradients (n, 3, H, W) at `z`, one draw in memory at a time; raises as `__call__`.

        For a randomized model it is the gradient of the value of the mean score: the mean gradient of the
        score, times the slope of the goal there.
        """
        if not self.white_box:
            raise ContractError("objective: this attack is black-box, so it may not differentiate the model.")
        index = self._indices(z, index)
        self._spend(index)
        scores, slope = self._slope(z.detach(), index)
        self._keep_best(z.detach(), index, scores)
        with torch.enable_grad():
            leaf = scores.requires_grad_(True)
            value = self.goal.select(index).value(leaf, self.score_clean[index])
            factor = torch.autograd.grad(value.sum(), leaf)[0] / self.draws
        slope = slope * factor.view(-1, 1, 1, 1)
        self._count_gradients(index)
        self._note_zero(index, slope)
        return value.detach(), slope

    def _slope(self, z: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores (n,) and the sum of their slopes (n, 3, H, W) over the draws; at clean images, the known ones."""
        keys = [self._keys[i] for i in self._on_cpu(index).tolist()]
        clean = self._model.info.deterministic and torch.equal(z, self._of(self._x, index))
        if clean and (known := self._known.slopes(keys)) is not None:
            return self.score_clean[index], known.to(z.device)
        scores, slope = torch.zeros(z.shape[0], device=z.device), None
        calls = self.tally.gradients[self._on_cpu(index)].clone()
        for draw in range(self.draws):
            leaf = z.detach().requires_grad_(True)  # the model is handed a copy
            with torch.enable_grad(), searching(), seeded(self._draw_seeds(index, calls, draw)):
                one = self._model(self._handed(leaf), self._reference(index)).float()
                if one.requires_grad:
                    (drawn,) = torch.autograd.grad(one.sum(), leaf, materialize_grads=True)
                    slope = drawn.contiguous() if slope is None else slope + drawn  # as the images, or sums are slow
            scores = scores + one.detach()
        slope = torch.zeros_like(z) if slope is None else slope
        if clean:
            self._known.keep_slopes(keys, slope)
        return scores / self.draws, slope

    def _of(self, values: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        """The rows `index` of `values`, without a copy where these are all."""
        return values if index is self._everyone else values.index_select(0, index)

    def _on_cpu(self, index: torch.Tensor) -> torch.Tensor:
        """`index` for what is counted there; where these are all, without a wait for what a GPU is doing."""
        return self._everyone_on_cpu if index is self._everyone else index.cpu()

    def _evaluate(self, z: torch.Tensor, index: torch.Tensor, memory: Memory | None = None) -> torch.Tensor:
        calls = self.tally.queries[self._on_cpu(index)].clone()
        self._spend(index)
        total = torch.zeros(z.shape[0], device=z.device)
        for draw in range(self.draws):
            with searching(), seeded(self._draw_seeds(index, calls, draw)):
                images, ref = self._handed(z), self._reference(index)
                one = self._model(images, ref) if memory is None else self._model.score_changed(images, ref, memory)
                total = total + one.float()
        scores = total / self.draws
        self._keep_best(z.detach(), index, scores.detach())
        return self.goal.select(index).value(scores, self.score_clean[index])

    def _indices(self, z: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        index = self._everyone if index is None else index
        if z.shape != (len(index), *self._x.shape[1:]):
            raise ContractError(
                f"objective: expected images of shape {(len(index), *self._x.shape[1:])}, got {tuple(z.shape)}."
            )
        return index

    def _handed(self, z: torch.Tensor) -> torch.Tensor:
        """`z` for the model: a copy, because a model may edit its input in place, unless it makes one itself."""
        return z if self._model.copies_images else z.clone()

    def _reference(self, index: torch.Tensor) -> torch.Tensor | None:
        # Indexing copies; like the copies of the images, this keeps a model that edits its input from harm.
        return None if self._ref is None else self._ref[index]

    def _draw_seeds(self, index: torch.Tensor, calls: torch.Tensor, draw: int) -> list[int]:
        if self._model.info.deterministic:
            return [0] * len(index)
        return [
            derive_seed(self._seeds[i], "eot", call, draw)
            for i, call in zip(self._on_cpu(index).tolist(), calls.tolist(), strict=True)
        ]

    def _spend(self, index: torch.Tensor) -> None:
        times = torch.bincount(self._on_cpu(index), minlength=self._x.shape[0])
        if bool((times > self.remaining()).any()):
            raise QueryBudgetExhaustedError
        self.tally.queries += times * self.draws

    def _count_gradients(self, index: torch.Tensor) -> None:
        self.tally.gradients += torch.bincount(self._on_cpu(index), minlength=self._x.shape[0]) * self.draws

    def _note_zero(self, index: torch.Tensor, gradient: torch.Tensor) -> None:
        flat = gradient.flatten(1)
        nonzero = flat[:, :FEW].ne(0).any(dim=1)  # true of NaN
        if not bool(nonzero.all()):  # seldom, so that the rest is seldom read
            nonzero = flat.ne(0).any(dim=1)
        self.tally.nonzero_gradients += torch.bincount(index[nonzero].cpu(), minlength=self._x.shape[0])

    def _keep_best(self, z: torch.Tensor, index: torch.Tensor, scores: torch.Tensor) -> None:
        """Remember `z` where it is feasible and better than what was seen, by the caller's own goal."""
        value = self.judge.select(index).value(scores, self.score_clean[index])
        better = (value > self.tally.best_value[index]).nonzero().squeeze(1)  # not so for NaN
        if len(better) == 0:
            return
        if len(better) < len(index):
            z, index, value, scores = z.index_select(0, better), index[better], value[better], scores[better]
        flat = z.flatten(1)  # aminmax along a dimension takes many times as long as these two
        feasible = (flat.amin(dim=1) >= 0) & (flat.amax(dim=1) <= 1)
        feasible &= inside(z, self._of(self._x, index), self._budget.norm, self._budget.eps)
        value = torch.where(feasible, value, -torch.inf)
        top = self.tally.best_value.scatter_reduce(0, index, value, "amax")
        winners = ((value == top[index]) & (value > self.tally.best_value[index])).nonzero().squeeze(1)
        # An image named several times has one winner, the first: two writes to one place would mix pixels.
        first = torch.full_like(top, len(index), dtype=torch.int64)
        first = first.scatter_reduce(0, index[winners], winners, "amin")
        improved = (first < len(index)).nonzero().squeeze(1)
        self.tally.best_value.copy_(top)
        if len(improved) == len(top) and torch.equal(first, self._everyone):  # indexing would copy twice
            self.tally.best_image.copy_(z[: len(top)])
        else:
            self.tally.best_image[improved] = z.index_select(0, first[improved])
        for i, score in zip(improved.tolist(), scores[first[improved]].tolist(), strict=True):
            self.tally.curve[i].append((int(self.tally.queries[i]), score))


def best_of(
    objective: Objective, candidates: Sequence[torch.Tensor], index: torch.Tensor | None = None
) -> torch.Tensor:
    """Per image, the candidate (n, 3, H, W) of the highest value; a single one costs no query."""
    best = candidates[0]
    if len(candidates) == 1:
        return best
    highest = objective(best, index)
    for candidate in candidates[1:]:
        value = objective(candidate, index)
        wins = value > highest
        best = torch.where(wins.view(-1, 1, 1, 1), candidate, best)
        highest = torch.where(wins, value, highest)
    return best
