"""Cells -> records. Cells that share an attack run it once: the bare cell and the oblivious cells of all defenses."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.attacks.known import Known
from iqa_robust.datasets.base import Dataset, Row
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import DataError, StorageError
from iqa_robust.harness.attack_setup import fit_attack, plan_targets
from iqa_robust.harness.cost import clean_cost
from iqa_robust.harness.decoded import Decoded
from iqa_robust.harness.environment import environment, peak_memory_mb
from iqa_robust.harness.explanations import with_explanations
from iqa_robust.harness.failures import reason_of
from iqa_robust.harness.image_rows import attack_columns, failed_row, image_frame, image_rows
from iqa_robust.harness.kept import Kept
from iqa_robust.harness.memory import is_out_of_memory, release
from iqa_robust.harness.precision import FP32, Precision
from iqa_robust.harness.probes import probe
from iqa_robust.harness.store import Store
from iqa_robust.harness.system import (
    Batch,
    System,
    certificate_of,
    labels_on_score_scale,
    run_attack,
    score_batch,
)
from iqa_robust.models.base import SCORE_DRAWS, IQAModel
from iqa_robust.records import Component, RunRecord, RunSpec

PROBE_IMAGES = 4
"""Images on which repeatability and batch invariance are measured, per cell."""


@dataclass(frozen=True)
class Job:
    """Cells that attack the same model in the same way, and the objects they need."""

    specs: tuple[RunSpec, ...]
    dataset: Dataset
    model: IQAModel
    defenses: tuple[Defense | None, ...]
    """One per spec."""
    attack: Attack
    device: torch.device
    precision: Precision = FP32
    decoded: Decoded | None = None
    """The images of the dataset that earlier jobs decoded."""
    kept: Kept = field(default_factory=Kept)
    """What earlier jobs on the same model left."""
    batch_size: int = 8
    limited: bool = False
    """Whether the caller took a part of the images that the track names."""


def run_job(
    job: Job, store: Store | None = None, advanced: Callable[[int], None] = lambda n: None, *, spent: float = 0.0
) -> list[RunRecord]:
    """Run the cells of a job, batch by batch, and keep their records.

    Finished batches found in `store` are not run again. A cell that fails is recorded with its reason.

    Args:
        job: what to run.
        store: where parts and records are kept; None keeps nothing.
        advanced: called with the number of images each finished batch holds.
        spent: seconds that went into finished batches elsewhere, which the records add to their own.

    Raises:
        StorageError: results cannot be written.
    """
    records = _Runner(job, store, advanced, spent).run()
    if len(records) > 1 and any(record.status == "failed" for record in records):
        # One bad defense must not fail its neighbors.
        return [run_job(single, store, spent=spent)[0] for single in _alone(job)]
    return records


def run_part(
    job: Job, store: Store, batches: Sequence[Sequence[str]], advanced: Callable[[int], None] = lambda n: None
) -> None:
    """Attack some batches of a job and keep their rows in `store`, where `run_job` finds them; writes no record.

    A batch that a cell fails on is left to `run_job`, which then records the reason.

    Args:
        job: what to run.
        store: where the parts are kept; batches it holds are not run again.
        batches: ids of the images of each batch, as `run_job` would form it, so that the numbers are the same.
        advanced: called with the number of images each finished batch holds.

    Raises:
        StorageError: results cannot be written.
    """
    if _Runner(job, store, advanced).run_part(store, batches) and len(job.specs) > 1:
        for single in _alone(job):
            _Runner(single, store, lambda n: None).run_part(store, batches)


def give_up(job: Job, store: Store, reason: str, *, spent: float = 0.0) -> list[RunRecord]:
    """Record the cells of a job as failed, without a look at its model; the rows of its finished batches stay.

    `spent`: seconds that went into it.

    Raises:
        StorageError: results cannot be written.
    """
    return _Runner(job, store, lambda n: None, spent).give_up(reason)


def _alone(job: Job) -> list[Job]:
    """The cells of a job as jobs of their own."""
    return [
        dataclasses.replace(job, specs=(spec,), defenses=(defense,))
        for spec, defense in zip(job.specs, job.defenses, strict=True)
    ]


class _Runner:
    def __init__(self, job: Job, store: Store | None, advanced: Callable[[int], None], spent: float = 0.0) -> None:
        self.job, self.store, self.advanced, self.spent = job, store, advanced, spent
        self.model = job.model
        self.precision = job.precision.of(job.attack.access)
        self.systems: list[System] = []
        self.decoded = job.decoded or Decoded(job.dataset)
        self.search: IQAModel | None = None
        self.done: list[dict[str, dict[str, Any]]] = [{} for _ in job.specs]
        self.probes = [job.kept.probes(spec) for spec in job.specs]
        self.targets: Mapping[str, float] = {}
        self.prepared = False
        self.batch_size = job.batch_size
        self.started = time.perf_counter()

    def run(self) -> list[RunRecord]:
        def everything() -> None:
            self._resume()
            if len(self._finished()) < len(self.job.dataset.rows()):
                self._prepare()
            self._probe()
            self._attack_all(self.job.dataset.rows())

        return self._recorded(self._reason(everything))

    def give_up(self, reason: str) -> list[RunRecord]:
        """Records of failed cells, with what is finished of them."""
        self._resume()
        return self._recorded(reason)

    def _recorded(self, reason: str) -> list[RunRecord]:
        records = [self._record(i, reason) for i in range(len(self.job.specs))]
        if self.store is not None:
            records = [self._explained(i, record) for i, record in enumerate(records)]
            for record in records:
                self.store.write(record)
        return records

    def run_part(self, store: Store, batches: Sequence[Sequence[str]]) -> str:
        """Keep the rows of the batches that `store` lacks; returns the reason of a failure."""

        def missing() -> None:
            lacking = [ids for ids in batches if not all(store.has_part(spec.digest, ids) for spec in self.job.specs)]
            self.advanced(sum(map(len, batches)) - sum(map(len, lacking)))
            wanted = {image_id for ids in lacking for image_id in ids}
            if wanted:
                self._prepare()
                self._attack_all([row for row in self.job.dataset.rows() if row.image_id in wanted])

        return self._reason(missing)

    def _reason(self, work: Callable[[], None]) -> str:
        """Do the work; returns why it failed, or nothing."""
        try:
            self.model.to(self.job.device)
            self.systems = [System(self.model, defense) for defense in self.job.defenses]
            work()
        except StorageError:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # whatever a model, defense or attack does, the other cells go on
            return reason_of(error)
        return ""

    def _attack_all(self, rows: Sequence[Row]) -> None:
        finished = self._finished()
        for batch, failures in self._batches([row for row in rows if row.image_id not in finished]):
            self._keep(failures)
            if batch is not None:
                self._in_parts(batch, self._run_batch)

    def _prepare(self) -> None:
        spec, job = self.job.specs[0], self.job
        attacked = self.systems[0].attacked(spec.knowledge)
        fit_attack(job.attack, attacked, job.dataset, spec, job.device, self.store)
        known = job.kept.alone(self._defense_of(attacked))
        self.targets = plan_targets(job.attack, attacked, self.decoded, job.dataset.rows(), spec, job.device, known)
        self.prepared = True

    def _resume(self) -> None:
        for i, spec in enumerate(self.job.specs):
            parts = None if self.store is None else self.store.parts(spec.digest)
            if parts is not None:
                self.done[i] = {row["image_id"]: row for row in parts.to_dict("records")}
        self.advanced(len(self._finished()))

    def _finished(self) -> set[str]:
        """Images that every cell of the job has."""
        return set.intersection(*(set(done) for done in self.done))

    def _batches(self, rows: Sequence[Row]) -> Iterator[tuple[Batch | None, list[dict[str, Any]]]]:
        """Batches of images of one size, in the order of `rows` within a size, and rows of unreadable images."""
        by_size, errors = group_by_size(self.job.dataset, rows)
        if errors:
            yield None, [failed_row(row, str(error)) for row, error in errors]
        for rows in by_size.values():
            waiting: list[Any] = []
            failed: list[dict[str, Any]] = []
            loaded = self.decoded.items(rows)
            for row, item in zip(rows, loaded, strict=True):
                if isinstance(item, DataError):
                    failed.append(failed_row(row, str(item)))
                else:
                    waiting.append(item)
                if len(waiting) >= self.batch_size:
                    yield Batch.of(waiting, self.job.device), failed
                    waiting, failed = [], []
            if waiting or failed:
                yield (Batch.of(waiting, self.job.device) if waiting else None), failed

    def _probe(self) -> None:
        missing = [i for i, known in enumerate(self.probes) if not known]
        for batch, _ in self._batches(self.job.dataset.rows()[:PROBE_IMAGES] if missing else ()):
            if batch is None:
                continue
            for i in missing:
                self._in_parts(batch, partial(self._probe_system, i))

    def _probe_system(self, i: int, batch: Batch) -> None:
        measured = probe(self.systems[i], batch, self.job.specs[i].seed)
        for name, value in measured.items():
            self.probes[i][name] = max(value, self.probes[i].get(name, 0.0))
        if "milliseconds" not in self.probes[i]:
            self.probes[i] |= clean_cost(self.systems[i].scored, batch)

    def _in_parts(self, batch: Batch, work: Callable[[Batch], None]) -> None:
        """Do the work on a batch, or on parts of it that fit: when memory runs out, halves are tried from there on."""
        done = 0
        while done < len(batch.ids):
            part = batch.part(slice(done, done + self.batch_size))
            try:
                work(part)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if not is_out_of_memory(error) or len(part.ids) == 1:
                    raise
            else:
                done += len(part.ids)
                continue
            release(self.job.device)
            self.batch_size = math.ceil(len(part.ids) / 2)

    def _run_batch(self, batch: Batch) -> None:
        for i, rows in enumerate(self._attack(batch)):
            self._keep_rows(i, rows)
        self.advanced(len(batch.ids))

    def _attack(self, batch: Batch) -> list[list[dict[str, Any]]]:
        spec = self.job.specs[0]
        attacked = self.systems[0].attacked(spec.knowledge)
        result, planned = self._attacked(batch, self._known(attacked))
        perturbs = self.job.attack.perturbs
        columns = attack_columns(batch, result, perturbs, planned, spec.target)
        rows = []
        for system in self.systems:
            scores = score_batch(system, batch, result, attacked, spec.seed, perturbs, self._known)
            certificate = certificate_of(system, batch, columns["l2"], spec.seed, perturbs)
            rows.append(image_rows(batch, columns, scores, certificate))
        return rows

    def _attacked(self, batch: Batch, known: Known) -> tuple[AttackResult, torch.Tensor | None]:
        """What the attack makes of a batch, and the scores it was planned to reach."""
        spec = self.job.specs[0]
        attacked = self.systems[0].attacked(spec.knowledge)
        labels = labels_on_score_scale(
            batch.mos, self.job.dataset.mos_range, self.job.dataset.mos_higher_is_better, self.model
        )
        planned = None
        if self.targets:
            planned = torch.tensor([self.targets[name] for name in batch.ids], device=batch.x.device)
        if self.search is None:
            self.search = self.job.kept.search_model(self.systems[0], spec, self.precision, batch)
        return run_attack(self.job.attack, attacked, batch, spec, labels, planned, self.search, known), planned

    def _explained(self, i: int, record: RunRecord) -> RunRecord:
        """A finished record with explanations of its first images, where its model explains itself."""

        def one_by_one(ids: list[str]) -> Iterator[Batch]:
            for row in self.job.dataset.rows():
                if row.image_id in ids:
                    yield from (batch for batch, _ in self._batches([row]) if batch is not None)

        def again(batch: Batch) -> AttackResult:
            if not self.prepared:
                self._prepare()
            # nothing is taken over from other batches, whose rounding differs
            return self._attacked(batch, Known())[0]

        if record.status == "failed":
            return record
        return with_explanations(record, self.job.attack, self.systems[i].scored, one_by_one, again)

    def _known(self, model: IQAModel) -> Known:
        """What is known of the clean images of one of this job's models."""
        return self.job.kept.known(self._defense_of(model))

    def _defense_of(self, model: IQAModel) -> Component | None:
        """The defense that one of this job's models is behind; None for the bare one."""
        pairs = zip(self.job.specs, self.systems, strict=True)
        return next((spec.defense for spec, system in pairs if model is system.defended), None)

    def _keep(self, failures: list[dict[str, Any]]) -> None:
        if failures:
            for i in range(len(self.job.specs)):
                self._keep_rows(i, failures)
            self.advanced(len(failures))

    def _keep_rows(self, i: int, rows: list[dict[str, Any]]) -> None:
        self.done[i].update({row["image_id"]: row for row in rows})
        if self.store is not None:
            self.store.write_part(self.job.specs[i].digest, image_frame(rows))

    def _record(self, i: int, reason: str) -> RunRecord:
        spec, done = self.job.specs[i], self.done[i]
        rows = [done.get(row.image_id) or failed_row(row, reason or "not reached") for row in self.job.dataset.rows()]
        frame = image_frame(rows)
        n_failed = int((frame["status"] != "ok").sum())
        status = "failed" if reason or n_failed == len(frame) else "partial" if n_failed else "ok"
        if not reason and n_failed:
            first = frame[frame["status"] != "ok"].iloc[0]
            reason = f"{n_failed} of {len(frame)} images failed; the first is {first['image_id']}: {first['reason']}"
        return RunRecord(
            spec=spec,
            status=status,
            reason=reason,
            facts=self._facts(self.systems[i].scored if self.systems else self.model, self.job.defenses[i]),
            environment=environment(self.job.device, self.precision),
            probes=self.probes[i],
            seconds=self.spent + time.perf_counter() - self.started,
            peak_memory_mb=peak_memory_mb(self.job.device),
            images=frame,
        )

    def _facts(self, scored: IQAModel, defense: Defense | None) -> dict[str, Any]:
        dataset, info = self.job.dataset, scored.info
        return {
            "higher_is_better": info.higher_is_better,
            "mos_higher_is_better": dataset.mos_higher_is_better,
            "mos_range": list(dataset.mos_range),
            "n_missing": dataset.missing,
            "limited": self.job.limited,
            "full_reference": info.full_reference,
            "deterministic": info.deterministic,
            "score_draws": 1 if info.deterministic else SCORE_DRAWS,
            "weights_source": info.weights_source,
            "weights_license": info.weights_license,
            "weights_sha256": info.weights_sha256,
            "training_datasets": None if info.training_datasets is None else list(info.training_datasets),
            "access": self.job.attack.access,
            "control": self.job.attack.control,
            "maximizes": self.job.attack.maximizes,
            "note": self.job.attack.note,
            "defense_note": "" if defense is None else type(defense).note,
            "canary": defense is not None and type(defense).canary,
            "labels": dataset.label_kind,
        }


def group_by_size(
    dataset: Dataset, rows: Sequence[Row]
) -> tuple[dict[tuple[int, int], list[Row]], list[tuple[Row, DataError]]]:
    """Rows by (H, W) of their images, in order; and the rows whose image has no size, with the error."""
    by_size: dict[tuple[int, int], list[Row]] = {}
    errors = []
    for row in rows:
        try:
            by_size.setdefault(dataset.size(row), []).append(row)
        except DataError as error:
            errors.append((row, error))
    return by_size, errors
