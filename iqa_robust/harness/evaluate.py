"""One cell from Python, on objects instead of names."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import pandas as pd

from iqa_robust import attacks, datasets, defenses, models
from iqa_robust.attacks.base import Attack
from iqa_robust.datasets.base import Dataset
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import ContractError
from iqa_robust.harness.components import describe_object, weights_digest
from iqa_robust.harness.environment import pick_device, prepare_numerics
from iqa_robust.harness.execute import Job, run_job
from iqa_robust.harness.flags import find_flags
from iqa_robust.harness.plan import check_served
from iqa_robust.harness.precision import choose_precision
from iqa_robust.harness.system import first_images
from iqa_robust.models.base import wrap
from iqa_robust.models.modes import evaluation_mode, placed
from iqa_robust.records import Budget, RunRecord, RunSpec
from iqa_robust.registry import package_version
from iqa_robust.tables.board import row
from iqa_robust.tables.certificates import certificate_row, certified
from iqa_robust.tables.per_image import per_image


@dataclass(frozen=True)
class Evaluation:
    """The record of one cell, as tables show it."""

    record: RunRecord

    @property
    def images(self) -> pd.DataFrame:
        """A row per image, with the columns of `iqa-robust table --per-image`."""
        return per_image([self.record])

    def measures(self) -> dict[str, Any]:
        """The board's columns of this record, and the measures the board has no room for, certificates among them."""
        certificates = certificate_row((self.record,)) if certified(self.record) else {}
        return certificates | row(self.record)

    @property
    def status(self) -> str:
        """`ok`, `partial` (some images failed) or `failed`."""
        return self.record.status

    @property
    def reason(self) -> str:
        """Why images or the cell failed; empty when nothing did."""
        return self.record.reason

    @property
    def flags(self) -> tuple[str, ...]:
        """Machine-found reasons not to trust the numbers."""
        return self.record.flags


def evaluate(
    model: Any,
    dataset: Dataset | str,
    attack: Attack | str,
    defense: Defense | str | None = None,
    *,
    budget: Budget | None = None,
    goal: str = "away",
    knowledge: str = "adaptive",
    seed: int = 0,
    target: float | None = None,
    device: str = "auto",
    precision: str = "fp32",
    batch_size: int = 8,
) -> Evaluation:
    """Attack `model`, behind `defense` if one is given, on every image of `dataset`.

    Args:
        model: an IQA model, a registry name, or any module from (N, 3, H, W) in [0, 1] to N scores.
        dataset: a dataset or a registry name.
        attack: an attack or a registry name.
        defense: a defense or a registry name; None for the bare model.
        budget: what the attacker may spend; `Budget()` when not given.
        goal: `up`, `down`, `away`, `reflect` or `target` (then `target` is the score to reach, native units). An
            attack that serves one goal only takes that one in place of the default.
        knowledge: `adaptive` attacks the defended model (the record says `black-box` where the attack only queries),
            `oblivious` the bare one.
        seed: of all randomness.
        target: see `goal`.
        device: `auto`, `cpu` or `cuda`.
        precision: arithmetic in which the attack searches: `fp32`, `bf16`, `mixed` (float32, and bfloat16 for what
            changes between the images of a random search), or `auto`, which measures them on a few images and takes
            the faster one that is as strong. Scores are float32 in any case.
        batch_size: images per batch; results do not depend on it, beyond the rounding of kernels that libraries choose
            by it. `auto` measures on a batch of this size.

    Returns:
        A record with `.images` (a row per image) and `.measures()`. A failed attack gives a record with status
        `failed` and the reason.

    Raises:
        ContractError, RequestError, UnknownNameError, DataError: the request cannot be carried out.
    """
    prepare_numerics()
    model = models.create(model) if isinstance(model, str) else model
    model = wrap(model)
    dataset = datasets.create(dataset) if isinstance(dataset, str) else dataset
    attack = attacks.create(attack) if isinstance(attack, str) else attack
    defense = defenses.create(defense) if isinstance(defense, str) else defense
    _check_types(dataset, attack, defense, seed, batch_size)
    budget = Budget() if budget is None else budget
    if not isinstance(budget, Budget):
        raise ContractError(f"budget: expected a Budget, got {type(budget).__name__}.")
    goal = attack.goals[0] if goal == "away" and len(attack.goals) == 1 else goal
    if attack.access == "black" and knowledge == "adaptive":
        knowledge = "black-box"
    if defense is None and knowledge == "oblivious":
        knowledge = "adaptive" if attack.access == "white" else "black-box"
    check_served(type(attack).__name__, attack, goal, budget.norm, (knowledge,))
    if goal == "target" and target is None:
        raise ContractError("goal 'target': give the score to reach as `target`, in the model's native units.")
    if goal == "reflect" and model.info.score_range is None:
        raise ContractError("goal 'reflect' needs the model's score range: give `score_range` in its ModelInfo.")
    if model.info.full_reference and not dataset.full_reference:
        raise ContractError(f"the model needs reference images, which the dataset {dataset.name!r} has not.")
    spec = RunSpec(
        track="",
        dataset=describe_object(dataset, datasets.registry),
        manifest=dataset.manifest(),
        model=describe_object(model, models.registry),
        weights_sha256=weights_digest(model),
        score_range=model.info.score_range,
        defense=None if defense is None else describe_object(defense, defenses.registry),
        attack=describe_object(attack, attacks.registry),
        goal=goal,
        target=target,
        budget=budget,
        knowledge=knowledge,
        seed=seed,
        package_version=package_version(),
    )
    picked = pick_device(device)
    with evaluation_mode(model), placed(model, picked):
        chosen = choose_precision(precision, model, first_images(dataset, batch_size, picked))
        job = Job((spec,), dataset, model, (defense,), attack, picked, chosen, batch_size=batch_size)
        record = run_job(job)[0]
    return Evaluation(dataclasses.replace(record, flags=find_flags(record, [record])))


def _check_types(dataset: object, attack: object, defense: object, seed: object, batch_size: object) -> None:
    for name, value, expected in (("dataset", dataset, Dataset), ("attack", attack, Attack)):
        if not isinstance(value, expected):
            raise ContractError(f"{name}: expected {expected.__name__} or a registry name, got {value!r}.")
    if defense is not None and not isinstance(defense, Defense):
        raise ContractError(f"defense: expected a Defense, a registry name or None, got {defense!r}.")
    for name, value, least in (("seed", seed, 0), ("batch_size", batch_size, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise ContractError(f"{name}: expected a whole number >= {least}, got {value!r}.")
