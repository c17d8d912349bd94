"""What a cell attacks and what it scores: the bare model, the defended model, or one for the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import torch

from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.attacks.known import Known, keys_of
from iqa_robust.datasets.base import Dataset, Item
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import DataError
from iqa_robust.harness.components import behind
from iqa_robust.models.base import Certificate, IQAModel, WrappedModel, score
from iqa_robust.models.randomness import content_seeds, derive_seed, seeded
from iqa_robust.records import RunSpec


@dataclass(frozen=True)
class Batch:
    """Images of one size with their labels, on the device."""

    ids: tuple[str, ...]
    reference_ids: tuple[str | None, ...]
    x: torch.Tensor
    ref: torch.Tensor | None
    mos: torch.Tensor

    @classmethod
    def of(cls, items: Sequence[Item], device: torch.device) -> Batch:
        """Items of one size, on the device."""
        refs = [item.ref for item in items if item.ref is not None]
        return cls(
            ids=tuple(item.image_id for item in items),
            reference_ids=tuple(item.reference_id for item in items),
            x=torch.stack([item.x for item in items]).to(device),
            ref=torch.stack(refs).to(device) if len(refs) == len(items) else None,
            mos=torch.tensor([item.mos for item in items], dtype=torch.float64, device=device),
        )

    def part(self, images: slice) -> Batch:
        """Some of the images."""
        return Batch(
            ids=self.ids[images],
            reference_ids=self.reference_ids[images],
            x=self.x[images],
            ref=None if self.ref is None else self.ref[images],
            mos=self.mos[images],
        )


def first_images(dataset: Dataset, count: int, device: torch.device) -> Batch | None:
    """Of the first `count` images, those of the size of the first; None if none can be read."""
    found = dataset.prefetch(dataset.rows()[:count])
    items = [item for item in found if not isinstance(item, DataError)]
    items = [item for item in items if item.x.shape == items[0].x.shape]
    return Batch.of(items, device) if items else None


@dataclass(frozen=True)
class BatchScores:
    """Scores (N,) of one batch in one cell. `defended` is None for the bare model."""

    clean: torch.Tensor
    defended_clean: torch.Tensor | None
    adv: torch.Tensor


class System:
    """A bare model with, possibly, its defended twin."""

    def __init__(self, bare: IQAModel, defense: Defense | None) -> None:
        """The defended model is made by `defense.wrap`; the bare one is not touched."""
        self.bare = bare
        self._defense = defense
        self.defended = None if defense is None else behind(defense, bare).eval()

    @property
    def scored(self) -> IQAModel:
        """The model whose scores on attacked images count."""
        return self.bare if self.defended is None else self.defended

    def attacked(self, knowledge: str) -> IQAModel:
        """The model the attacker works on."""
        return self.bare if knowledge == "oblivious" else self.scored

    def around(self, bare: IQAModel) -> IQAModel:
        """The defense around another bare model; without a defense, that model."""
        return bare if self._defense is None else self._defense.wrap(bare).eval()


def run_attack(
    attack: Attack,
    model: IQAModel,
    batch: Batch,
    spec: RunSpec,
    labels: torch.Tensor | None,
    planned: torch.Tensor | None = None,
    search: IQAModel | None = None,
    known: Known | None = None,
) -> AttackResult:
    """One attack of one batch, as the spec asks for it; `planned` (N,) are the targets of an attack on a set.

    `search` is what the attack searches on, `known` what is known of the clean images.
    """
    return attack(
        model,
        batch.x,
        batch.ref,
        goal=spec.goal,
        budget=spec.budget,
        seed=spec.seed,
        target=spec.target if planned is None else planned,
        labels=labels,
        search=search,
        known=known,
    )


def score_batch(
    system: System,
    batch: Batch,
    result: AttackResult,
    attacked: IQAModel,
    seed: int,
    perturbs: str,
    known: Callable[[IQAModel], Known],
) -> BatchScores:
    """Final scores in fp32. What the attack's own judge, or an earlier cell, has scored already is not scored again.

    `perturbs` is the attack's: whether `result` holds images or references. `known` gives what is known of the clean
    images of the bare or the defended model.

    Clean and attacked images see different draws of a randomized defense: shared noise would hide part of the shift.
    """

    @cache
    def seeds() -> list[int]:  # most cells need none of it: their attack has scored everything
        return content_seeds(batch.x, seed)

    def scores(model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None, when: str) -> torch.Tensor:
        ref = ref if model.info.full_reference else None
        return score(model, x, ref, seeds=[derive_seed(s, when) for s in seeds()])

    def of_clean(model: IQAModel) -> torch.Tensor:
        keys = keys_of(seeds(), batch.ref if model.info.full_reference else None)
        found = known(model).scores(keys, lambda: scores(model, batch.x, batch.ref, "clean"))
        return found.to(batch.x.device)

    clean = result.score_clean if attacked is system.bare else of_clean(system.bare)
    if system.defended is None:
        return BatchScores(clean, None, result.score_adv)
    if attacked is system.defended:
        return BatchScores(clean, result.score_clean, result.score_adv)
    x, ref = (batch.x, result.images) if perturbs == "reference" else (result.images, batch.ref)
    return BatchScores(clean, of_clean(system.defended), scores(system.defended, x, ref, "adv"))


@torch.no_grad()
def certificate_of(system: System, batch: Batch, l2: list[float], seed: int, perturbs: str) -> Certificate | None:
    """What the scored model promises of images as far from the clean ones as the attacked ones are measured to be.

    Its draws are independent of those of the scores. None where it promises nothing, and for changed references.
    """
    if perturbs == "reference" or not _certifies(system.scored):
        return None
    seeds = [derive_seed(s, "certificate") for s in content_seeds(batch.x, seed)]
    with seeded(seeds):
        return system.scored.certify(batch.x, batch.ref, torch.tensor(l2, dtype=torch.float64, device=batch.x.device))


def _certifies(model: IQAModel) -> bool:
    """Whether the model may promise anything: most do not, and then need no seeds."""
    while type(model) is WrappedModel:
        model = model.model
    return type(model).certify is not IQAModel.certify


def labels_on_score_scale(
    mos: torch.Tensor, mos_range: tuple[float, float], mos_higher_is_better: bool, model: IQAModel
) -> torch.Tensor | None:
    """MOS (N,) mapped linearly onto the model's score range, best to best; None when the range is unknown."""
    if model.info.score_range is None or not mos_range[0] < mos_range[1]:
        return None
    low, high = model.info.score_range
    share = (mos - mos_range[0]) / (mos_range[1] - mos_range[0])
    if mos_higher_is_better != model.info.higher_is_better:
        share = 1 - share
    return (low + share * (high - low)).float()
