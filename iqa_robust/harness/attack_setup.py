"""What some attacks need before the first batch: the scores of the whole set, or a fit on another split."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import partial

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.known import Known, keys_of
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.attacks.trained_attack import TrainedAttack
from iqa_robust.datasets.base import Dataset, Row
from iqa_robust.errors import ContractError, DataError
from iqa_robust.harness.decoded import Decoded
from iqa_robust.harness.store import Store
from iqa_robust.models.base import IQAModel, score
from iqa_robust.models.randomness import content_seeds, derive_seed
from iqa_robust.records import RunSpec, local_copy


def plan_targets(
    attack: Attack,
    model: IQAModel,
    images: Decoded,
    rows: Sequence[Row],
    spec: RunSpec,
    device: torch.device,
    known: Known,
) -> Mapping[str, float]:
    """The score each image is sent to, by image id; empty for an attack that needs no plan.

    Images that cannot be read are left out: they fail when their turn comes.

    Args:
        attack: of the cell.
        model: the one it attacks.
        images: gives the images of `rows`.
        rows: the whole set.
        spec: of the cell.
        device: where the model is.
        known: clean scores of `model` that earlier plans found, one image at a time, as here.
    """
    if not isinstance(attack, SetAttack):
        return {}
    scored: list[Row] = []
    clean: list[float] = []
    for row, item in zip(rows, images.items(rows), strict=True):
        if isinstance(item, DataError):
            continue
        x = item.x[None].to(device)
        ref = item.ref[None].to(device) if model.info.full_reference and item.ref is not None else None
        seeds = content_seeds(x, spec.seed)
        once = partial(score, model, x, ref, seeds=[derive_seed(s, "clean") for s in seeds])
        clean.append(float(known.scores(keys_of(seeds, ref), once)))
        scored.append(row)
    scores = SetScores(
        clean=torch.tensor(clean, dtype=torch.float32),
        score_range=model.info.score_range,
        higher_is_better=model.info.higher_is_better,
        reference_ids=[row.reference_id for row in scored],
    )
    targets = attack.planned(scores, spec.seed)
    return {row.image_id: float(target) for row, target in zip(scored, targets, strict=True)}


def fit_attack(
    attack: Attack, model: IQAModel, dataset: Dataset, spec: RunSpec, device: torch.device, store: Store | None
) -> None:
    """Let an attack that learns fit the model on the dataset's fitting split; nothing for any other attack.

    What it learned is kept in `store` under a name that follows from all it depends on, so a run that is taken up
    again does not fit again.

    Raises:
        ContractError: the dataset has no images besides those that are attacked.
    """
    if not isinstance(attack, TrainedAttack) or attack.fitted:
        return
    fitting = _other_split(dataset, attack)
    kept = None if store is None else store.folder / "attacks" / f"{_fit_digest(spec, fitting)}.safetensors"
    if kept is not None and kept.is_file():
        try:
            with local_copy(kept) as file:
                attack.load(file)
            return
        except ContractError:
            kept.unlink()  # broken; it is made again
    items = [item for item in fitting.prefetch(fitting.rows()) if not isinstance(item, DataError)]
    refs = [item.ref.to(device) for item in items if item.ref is not None] if model.info.full_reference else None
    attack.fit(
        model,
        [item.x.to(device) for item in items],
        refs,
        goal=spec.goal,
        budget=spec.budget,
        seed=spec.seed,
        target=spec.target,
    )
    if kept is not None:
        attack.save(kept)


def _other_split(dataset: Dataset, attack: TrainedAttack) -> Dataset:
    if dataset.split in (attack.fit_split, "all"):
        raise ContractError(
            f"{type(attack).__name__} fits on the {attack.fit_split} split, but the track attacks the split"
            f" {dataset.split!r}; attack another split, or give `weights` of a fitted attack."
        )
    fitting = dataset.changed(split=attack.fit_split, limit=attack.fit_images)
    if not fitting.rows():
        raise ContractError(f"{type(attack).__name__}: the {attack.fit_split} split of {dataset.name} has no images.")
    return fitting


def _fit_digest(spec: RunSpec, fitting: Dataset) -> str:
    said = spec.to_dict()
    depends = {name: said[name] for name in ("model", "weights_sha256", "attack", "goal", "target", "budget", "seed")}
    depends["defense"] = None if spec.knowledge == "oblivious" else said["defense"]
    depends["version"], depends["images"] = spec.package_version, fitting.manifest()
    return hashlib.sha256(json.dumps(depends, sort_keys=True).encode()).hexdigest()[:16]
