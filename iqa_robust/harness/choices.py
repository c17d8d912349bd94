"""What the driver of a run decides for the jobs on each model, by looking at a few images: precision and batch size."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from typing import Protocol

import torch

from iqa_robust.harness.batching import images_at_once
from iqa_robust.harness.components import make_model
from iqa_robust.harness.plan import Plan
from iqa_robust.harness.precision import IMAGES, UNMEASURED, Precision, choose_precision
from iqa_robust.harness.store import Store
from iqa_robust.harness.system import Batch, first_images
from iqa_robust.models.base import IQAModel
from iqa_robust.records import RunSpec


class Listener(Protocol):
    """Told which precision a model got."""

    def chose(self, model: str, precision: Precision) -> None:
        """The model of this title is attacked in this precision."""


class Choices:
    """Precision and batch size of the jobs of a run, model by model.

    A precision that was measured is kept in the folder of the run, so that a run that is taken up again, on whatever
    machine, goes on in the arithmetic it began with. The batch size belongs to the machine; it changes
    no number beyond the rounding of kernels, which libraries choose by it.
    """

    def __init__(
        self, precision: str, plan: Plan, device: torch.device, store: Store, listener: Listener, workers: int = 1
    ) -> None:
        """`precision`: `auto` or of `PRECISIONS`; `listener` is told what is measured; `workers` share the memory."""
        self._workers = workers
        self._asked, self._plan, self._device, self._store, self._listener = precision, plan, device, store, listener
        self._made: dict[str, tuple[Precision, int]] = {}

    def of(self, spec: RunSpec) -> tuple[Precision, int]:
        """The precision and the images per batch of the cells of this cell's model."""
        # A path may name other weights than it did when the run began.
        said = repr((spec.model, spec.weights_sha256, spec.score_range, self._device.type))
        key = hashlib.sha256(said.encode()).hexdigest()[:16]
        if key not in self._made:
            model = make_model(spec.model, spec.score_range).to(self._device)
            few = first_images(self._plan.dataset, IMAGES, self._device)
            asked = self._plan.track.batch_size
            size = asked if few is None else images_at_once(model, few, asked, workers=self._workers)
            self._made[key] = self._precision(key, spec, model, few, size), size
        return self._made[key]

    def _precision(self, key: str, spec: RunSpec, model: IQAModel, few: Batch | None, size: int) -> Precision:
        if self._asked != "auto":
            return choose_precision(self._asked, model, few)
        name = f"precision/{key}.note"
        kept = _parsed(self._store.note(name))
        if kept is None:
            kept = choose_precision("auto", model, self._batch(few, size))
            if kept != UNMEASURED:
                # Another shard of the run may have been first.
                kept = _parsed(self._store.note(name, json.dumps(asdict(kept), indent=1) + "\n")) or kept
        self._listener.chose(spec.model.title, kept)
        return kept

    def _batch(self, few: Batch | None, size: int) -> Batch | None:
        """As many images as the jobs take at once: what a GPU gains from rounding hangs on it."""
        if few is None or size <= IMAGES:
            return None if few is None else few.part(slice(0, size))
        return first_images(self._plan.dataset, size, self._device)


def _parsed(text: str | None) -> Precision | None:
    if text is None:
        return None
    try:
        return Precision(**json.loads(text))
    except (ValueError, TypeError):
        return None
