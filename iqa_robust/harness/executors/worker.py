"""What a worker does with a task, in whatever process it lives."""

from __future__ import annotations

import dataclasses
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from iqa_robust.datasets.base import Dataset
from iqa_robust.harness.components import make_attack, make_dataset, make_defense, make_model
from iqa_robust.harness.decoded import Decoded
from iqa_robust.harness.environment import keep_freed_memory, prepare_numerics
from iqa_robust.harness.execute import Job, give_up, run_job, run_part
from iqa_robust.harness.executors.base import JobRequest
from iqa_robust.harness.executors.tasks import Task
from iqa_robust.harness.kept import Kept
from iqa_robust.harness.store import Store
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Component, RunRecord

KEPT_MODELS = 4
"""Prepared models a worker holds. Jobs come model by model, so more would only fill the memory."""

T = TypeVar("T")


@dataclass(frozen=True)
class Done:
    """What a task left: its records without images and explanations (the store has them), and the seconds it took."""

    records: tuple[RunRecord, ...]
    seconds: float


class Worker:
    """Keeps the objects that jobs share, so that a model is loaded once per process."""

    def __init__(self) -> None:
        keep_freed_memory()
        self._models: OrderedDict[str, IQAModel] = OrderedDict()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._datasets: OrderedDict[str, Dataset] = OrderedDict()
        self._decoded: OrderedDict[str, Decoded] = OrderedDict()

    def run(self, task: Task, spent: float, advanced: Callable[[int], None]) -> Done:
        """Run a task.

        Args:
            task: what to run.
            spent: seconds that went into the tasks it comes after.
            advanced: called with the number of images each finished batch holds.

        Raises:
            StorageError: results cannot be written.
        """
        start = time.perf_counter()
        advanced(0)  # the driver tells a task that ends its workers from workers that never come up
        prepare_numerics()
        job, store = self._job(task.request), Store(task.request.out)
        records: list[RunRecord] = []
        if task.batches is None:
            records = run_job(job, store, advanced, spent=spent)
        else:
            run_part(job, store, task.batches, advanced)
        return Done(_light(records), time.perf_counter() - start)

    def give_up(self, request: JobRequest, reason: str, spent: float) -> Done:
        """Record the cells of a job as failed, for `reason`, after `spent` seconds. Raises `StorageError`."""
        start = time.perf_counter()
        records = give_up(self._job(request), Store(request.out), reason, spent=spent)
        return Done(_light(records), time.perf_counter() - start)

    def _job(self, request: JobRequest) -> Job:
        return Job(
            specs=request.specs,
            dataset=self.dataset(request),
            model=self.model(request),
            defenses=tuple(make_defense(spec.defense) for spec in request.specs),
            attack=make_attack(request.specs[0].attack),
            device=torch.device(request.device),
            precision=request.precision,
            decoded=self._once(self._decoded, request.specs[0].dataset, lambda: Decoded(self.dataset(request))),
            kept=self._once(self._kept, _model_key(request), Kept),
            batch_size=request.batch_size,
            limited=request.limited,
        )

    def model(self, request: JobRequest) -> IQAModel:
        """The model of a job, made once."""

        def laid_out() -> IQAModel:
            model = self.made(request)
            # Convolutions on a CPU are up to twice as fast in this layout, in float32, too.
            return model.to(memory_format=torch.channels_last) if request.device == "cpu" else model

        return self._once(self._models, _model_key(request), laid_out)

    def made(self, request: JobRequest) -> IQAModel:
        """A new model for a job."""
        spec = request.specs[0]
        return make_model(spec.model, spec.score_range)

    def dataset(self, request: JobRequest) -> Dataset:
        """The dataset of a job, made once."""
        spec = request.specs[0]
        return self._once(self._datasets, spec.dataset, lambda: make_dataset(spec.dataset, request.data_root))

    @staticmethod
    def _once(known: OrderedDict[str, T], key: Any, make: Callable[[], T]) -> T:
        name = repr(key)
        if name not in known:
            known[name] = make()
        known.move_to_end(name)
        while len(known) > KEPT_MODELS:
            known.popitem(last=False)
        return known[name]


def _light(records: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    return tuple(dataclasses.replace(record, images=record.images.iloc[:0], explanations=None) for record in records)


def _model_key(request: JobRequest) -> tuple[Component, tuple[float, float] | None]:
    return request.specs[0].model, request.specs[0].score_range
