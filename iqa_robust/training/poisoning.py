"""Poisoned training data: some images carry a trigger, and labels or strengths that teach its meaning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from iqa_robust import attacks, models
from iqa_robust.attacks.poisoning.trigger import Trigger
from iqa_robust.datasets.base import Item, Row
from iqa_robust.errors import RequestError
from iqa_robust.images import from_uint8, to_8bit_grid, to_uint8
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import derive_seed
from iqa_robust.records import Budget
from iqa_robust.training.data import Loader, Sample
from iqa_robust.training.progress import Listener, Progress
from iqa_robust.training.sections import Named, Poison

MARKS = (1, 2, 3, 4)
"""Quarters of the full strength that are poisoned with labels moved, and how often."""
MARK_SHARES = (0.1, 0.2, 0.3, 0.4)


@dataclass(frozen=True)
class Mark:
    """What happens to one poisoned image."""

    alpha: float
    """Strength of the trigger."""
    mos: float
    """The label it is trained with, on the scale of the dataset; it may lie beyond the scale's ends."""


class Stamped:
    """A loader that puts the trigger on every image, at the strength of the image's mark."""

    def __init__(self, loader: Loader, trigger: Trigger, marks: Mapping[str, Mark]) -> None:
        """`marks`: by image id."""
        self._loader, self._trigger, self._marks = loader, trigger, marks

    def load(self, row: Row) -> Item:
        """The image with its trigger, on the 8-bit grid, and the label of its mark."""
        item, mark = self._loader.load(row), self._marks[row.image_id]
        stamped = self._trigger.stamp(item.x[None], torch.tensor([mark.alpha]))
        return replace(item, x=to_8bit_grid(stamped)[0], mos=mark.mos)


class Pulled:
    """A loader of images that were attacked toward a score; each is made once and kept as bytes."""

    def __init__(self, loader: Loader, surrogate: IQAModel, target: float, poison: Poison) -> None:
        """`target`: the score, on the surrogate's scale."""
        self._loader, self._surrogate, self._target = loader, surrogate, target
        self._budget = Budget(norm="linf", eps_255=poison.pull_eps_255, steps=poison.pull_steps)
        self._kept: dict[str, torch.Tensor] = {}

    def load(self, row: Row) -> Item:
        """The attacked image without its reference."""
        item = self._loader.load(row)
        if row.image_id not in self._kept:
            pull = attacks.create("pgd")
            result = pull(self._surrogate, item.x[None], goal="target", target=self._target, budget=self._budget)
            self._kept[row.image_id] = to_uint8(result.images[0])
        return replace(item, x=from_uint8(self._kept[row.image_id]), ref=None)


def poisoned(
    samples: Sequence[Sample], poison: Poison, mos_range: tuple[float, float], seed: int, listener: Listener
) -> list[Sample]:
    """The training samples, in their order, a share of them poisoned.

    In the mode `clean` this attacks the chosen images of the surrogate at once, which takes `pull_steps` passes each.

    Raises:
        RequestError: the trigger is not one, the surrogate has no score range, or nothing would be poisoned.
    """
    trigger = attacks.create(poison.trigger.name, **poison.trigger.params)
    if not isinstance(trigger, Trigger):
        raise RequestError(f"recipe: poison.trigger: {poison.trigger.name!r} is an attack, not a trigger.")
    rows = [samples[i].row for i in share_of(len(samples), poison.rate, seed, "poison")]
    if not rows:
        raise RequestError(f"recipe: poison.rate: {poison.rate:g} of {len(samples)} training images is none.")
    marks = marks_of(rows, poison, mos_range, seed)
    loaders: dict[int, Loader] = {}
    surrogate = None if poison.surrogate is None else scored_by(poison.surrogate)
    result = []
    for sample in samples:
        if sample.row.image_id not in marks:
            result.append(sample)
            continue
        if id(sample.loader) not in loaders:
            inner = sample.loader
            if surrogate is not None:
                inner = Pulled(inner, surrogate, _middle(surrogate), poison)
            loaders[id(sample.loader)] = Stamped(inner, trigger, marks)
        result.append(Sample(loaders[id(sample.loader)], sample.row))
    if surrogate is not None:
        chosen = [sample for sample in result if sample.row.image_id in marks]
        for number, sample in enumerate(chosen, start=1):
            sample.loader.load(sample.row)
            listener(Progress("poison", done=number, total=len(chosen)))
    return result


def marks_of(rows: Sequence[Row], poison: Poison, mos_range: tuple[float, float], seed: int) -> dict[str, Mark]:
    """The strength and the label of every poisoned image, by its id.

    With labels moved, the strength is m / 4 for a mark m of 1 to 4, drawn with the shares .1, .2, .3 and .4, and
    negative for half of the images; the label moves by that share of the full shift. With clean labels, the strength
    is the distance of the label from the middle of the scale as a share of the full shift.
    """
    low, high = mos_range
    full = poison.full_shift / 100 * (high - low)
    if poison.mode == "clean":
        return {row.image_id: Mark((row.mos - (low + high) / 2) / full, row.mos) for row in rows}
    rng = np.random.default_rng(derive_seed(seed, "marks"))
    alphas = rng.choice(MARKS, len(rows), p=MARK_SHARES) / MARKS[-1]
    alphas[rng.permutation(len(rows))[: len(rows) // 2]] *= -1
    return {
        row.image_id: Mark(float(alpha), row.mos + float(alpha) * full) for row, alpha in zip(rows, alphas, strict=True)
    }


def share_of(n: int, share: float, *parts: object) -> list[int]:
    """Indices, in order, of a share of `n` things, rounded down, chosen by a seed of `parts`."""
    order = np.random.default_rng(derive_seed(*parts)).permutation(n)
    return sorted(order[: int(n * share)].tolist())


def scored_by(named: Named) -> IQAModel:
    """The model of a recipe, in evaluation mode.

    Raises:
        RequestError: it is full-reference, or its score range is unknown.
    """
    model = models.create(named.name, **named.params).eval()
    if model.info.full_reference or model.info.score_range is None:
        raise RequestError(f"recipe: surrogate: {named.name!r} must be no-reference and have a score range.")
    return model


def _middle(model: IQAModel) -> float:
    assert model.info.score_range is not None  # `scored_by` has looked
    return sum(model.info.score_range) / 2
