"""Cells -> records. Cells that share an attack run it once: the bare cell and the oblivious cells of all defenses."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.attacks.norms import measure
from iqa_robust.datasets.base import Dataset, Row
from iqa_robust.defenses.base import Defense
from iqa_robust.errors import DataError, IqaRobustError, StorageError
from iqa_robust.harness.environment import environment, peak_memory_mb
from iqa_robust.harness.flags import NOT_FINITE
from iqa_robust.harness.probes import probe
from iqa_robust.harness.store import Store
from iqa_robust.harness.system import Batch, System, labels_on_score_scale, run_attack, score_batch
from iqa_robust.harness.visibility import visibility
from iqa_robust.models.base import SCORE_DRAWS, IQAModel
from iqa_robust.records import IMAGE_COLUMNS, RunRecord, RunSpec

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
    precision: str = "fp32"
    batch_size: int = 8
    limited: bool = False
    """Whether the caller took a part of the images that the track names."""


def run_job(job: Job, store: Store | None = None, advanced: Callable[[int], None] = lambda n: None) -> list[RunRecord]:
    """Run the cells of a job, batch by batch, and keep their records.

    Finished batches found in `store` are not run again. A cell that fails is recorded with its reason.

    Args:
        job: what to run.
        store: where parts and records are kept; None keeps nothing.
        advanced: called with the number of images each finished batch holds.

    Raises:
        StorageError: results cannot be written.
    """
    records = _Runner(job, store, advanced).run()
    if len(records) > 1 and any(record.status == "failed" for record in records):
        alone = [
            dataclasses.replace(job, specs=(spec,), defenses=(defense,))
            for spec, defense in zip(job.specs, job.defenses, strict=True)
        ]
        return [run_job(single, store)[0] for single in alone]  # one bad defense must not fail its neighbors
    return records


class _Runner:
    def __init__(self, job: Job, store: Store | None, advanced: Callable[[int], None]) -> None:
        self.job, self.store, self.advanced = job, store, advanced
        self.model = job.model.to(job.device)
        self.systems: list[System] = []
        self.done: list[dict[str, dict[str, Any]]] = [{} for _ in job.specs]
        self.probes: list[dict[str, float]] = [{} for _ in job.specs]
        self.batch_size = job.batch_size
        self.started = time.perf_counter()

    def run(self) -> list[RunRecord]:
        reason = ""
        try:
            self.systems = [System(self.model, defense) for defense in self.job.defenses]
            self._resume()
            self._probe()
            for batch, failures in self._batches():
                self._keep(failures)
                if batch is not None:
                    self._run_batch(batch)
        except StorageError:
            raise
        except (KeyboardInterrupt, SystemExit):
            raise
        except Exception as error:  # whatever a model, defense or attack does, the other cells go on
            reason = f"{type(error).__name__}: {error}" if not isinstance(error, IqaRobustError) else str(error)
        records = [self._record(i, reason) for i in range(len(self.job.specs))]
        if self.store is not None:
            for record in records:
                self.store.write(record)
        return records

    def _resume(self) -> None:
        for i, spec in enumerate(self.job.specs):
            parts = None if self.store is None else self.store.parts(spec.digest)
            if parts is not None:
                self.done[i] = {row["image_id"]: row for row in parts.to_dict("records")}
        self.advanced(len(self._finished()))

    def _finished(self) -> set[str]:
        """Images that every cell of the job has."""
        return set.intersection(*(set(done) for done in self.done))

    def _batches(self, limit: int | None = None) -> Iterator[tuple[Batch | None, list[dict[str, Any]]]]:
        """Batches of images of one size, in the dataset's order within a size, and rows of unreadable images."""
        finished = self._finished() if limit is None else set()
        by_size: dict[tuple[int, int], list[Row]] = {}
        unreadable: list[dict[str, Any]] = []
        for row in self.job.dataset.rows()[:limit]:
            if row.image_id in finished:
                continue
            try:
                by_size.setdefault(self.job.dataset.size(row), []).append(row)
            except DataError as error:
                unreadable.append(_failed_row(row, str(error)))
        if unreadable:
            yield None, unreadable
        for rows in by_size.values():
            waiting: list[Any] = []
            failed: list[dict[str, Any]] = []
            loaded = self.job.dataset.prefetch(rows)
            for row, item in zip(rows, loaded, strict=True):
                if isinstance(item, DataError):
                    failed.append(_failed_row(row, str(item)))
                else:
                    waiting.append(item)
                if len(waiting) >= self.batch_size:
                    yield _stack(waiting, self.job.device), failed
                    waiting, failed = [], []
            if waiting or failed:
                yield (_stack(waiting, self.job.device) if waiting else None), failed

    def _probe(self) -> None:
        for batch, _ in self._batches(limit=PROBE_IMAGES):
            if batch is None:
                continue
            for i, (system, spec) in enumerate(zip(self.systems, self.job.specs, strict=True)):
                measured = probe(system, batch, spec.seed)
                for name, value in measured.items():
                    self.probes[i][name] = max(value, self.probes[i].get(name, 0.0))

    def _run_batch(self, batch: Batch) -> None:
        """Run a batch; when memory runs out, halve it and go on."""
        try:
            results = self._attack(batch)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if not _out_of_memory(error) or len(batch.ids) == 1:
                raise
            if self.job.device.type == "cuda":
                torch.cuda.empty_cache()
            half = math.ceil(len(batch.ids) / 2)
            self.batch_size = min(self.batch_size, half)
            for part in (_slice(batch, slice(0, half)), _slice(batch, slice(half, None))):
                self._run_batch(part)
            return
        for i, rows in enumerate(results):
            self._keep_rows(i, rows)
        self.advanced(len(batch.ids))

    def _attack(self, batch: Batch) -> list[list[dict[str, Any]]]:
        spec = self.job.specs[0]
        attacked = self.systems[0].attacked(spec.knowledge)
        labels = labels_on_score_scale(
            batch.mos, self.job.dataset.mos_range, self.job.dataset.mos_higher_is_better, self.model
        )
        result = run_attack(self.job.attack, attacked, batch, spec, labels)
        seen = visibility(batch.x, result.images)
        rows = []
        for system in self.systems:
            scores = score_batch(system, batch, result, attacked, spec.seed)
            rows.append(_rows(batch, result, scores.clean, scores.defended_clean, scores.adv, seen))
        return rows

    def _keep(self, failures: list[dict[str, Any]]) -> None:
        if failures:
            for i in range(len(self.job.specs)):
                self._keep_rows(i, failures)
            self.advanced(len(failures))

    def _keep_rows(self, i: int, rows: list[dict[str, Any]]) -> None:
        self.done[i].update({row["image_id"]: row for row in rows})
        if self.store is not None:
            self.store.write_part(self.job.specs[i].digest, _frame(rows))

    def _record(self, i: int, reason: str) -> RunRecord:
        spec, done = self.job.specs[i], self.done[i]
        rows = [done.get(row.image_id) or _failed_row(row, reason or "not reached") for row in self.job.dataset.rows()]
        frame = _frame(rows)
        n_failed = int((frame["status"] != "ok").sum())
        status = "failed" if reason or n_failed == len(frame) else "partial" if n_failed else "ok"
        if not reason and n_failed:
            first = frame[frame["status"] != "ok"].iloc[0]
            reason = f"{n_failed} of {len(frame)} images failed; the first is {first['image_id']}: {first['reason']}"
        return RunRecord(
            spec=spec,
            status=status,
            reason=reason,
            facts=self._facts(self.systems[i].scored if self.systems else self.model),
            environment=environment(self.job.device, self.job.precision),
            probes=self.probes[i],
            seconds=time.perf_counter() - self.started,
            peak_memory_mb=peak_memory_mb(self.job.device),
            images=frame,
        )

    def _facts(self, scored: IQAModel) -> dict[str, Any]:
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
            "training_datasets": None if info.training_datasets is None else list(info.training_datasets),
            "certificate": None if scored.certificate is None else dataclasses.asdict(scored.certificate),
            "access": self.job.attack.access,
            "control": self.job.attack.control,
            "note": self.job.attack.note,
            "labels": dataset.label_kind,
        }


def _stack(items: Sequence[Any], device: torch.device) -> Batch:
    refs = [item.ref for item in items]
    return Batch(
        ids=tuple(item.image_id for item in items),
        reference_ids=tuple(item.reference_id for item in items),
        x=torch.stack([item.x for item in items]).to(device),
        ref=None if any(ref is None for ref in refs) else torch.stack(refs).to(device),
        mos=torch.tensor([item.mos for item in items], dtype=torch.float64, device=device),
    )


def _slice(batch: Batch, part: slice) -> Batch:
    return Batch(
        ids=batch.ids[part],
        reference_ids=batch.reference_ids[part],
        x=batch.x[part],
        ref=None if batch.ref is None else batch.ref[part],
        mos=batch.mos[part],
    )


def _rows(
    batch: Batch,
    result: AttackResult,
    clean: torch.Tensor,
    defended_clean: torch.Tensor | None,
    adv: torch.Tensor,
    seen: dict[str, list[float]],
) -> list[dict[str, Any]]:
    linf, l2 = measure(result.images, batch.x, "linf"), measure(result.images, batch.x, "l2")
    rows = []
    for i, image_id in enumerate(batch.ids):
        scores = [float(clean[i]), float(adv[i])]
        scores += [] if defended_clean is None else [float(defended_clean[i])]
        finite = all(math.isfinite(value) for value in scores)
        rows.append(
            {
                "image_id": image_id,
                "reference_id": batch.reference_ids[i],
                "mos": float(batch.mos[i]),
                "score_clean": scores[0],
                "score_adv": scores[1],
                "score_def_clean": math.nan if defended_clean is None else scores[2],
                "linf": float(linf[i]),
                "l2": float(l2[i]),
                **{name: values[i] for name, values in seen.items()},
                "queries": int(result.queries[i]),
                "gradients": int(result.gradients[i]),
                "zero_gradient": bool(result.zero_gradient[i]),
                "status": "ok" if finite else "failed",
                "reason": "" if finite else NOT_FINITE,
            }
        )
    return rows


def _failed_row(row: Row, reason: str) -> dict[str, Any]:
    blank = {"float64": math.nan, "int64": 0, "bool": False, "string": ""}
    filled: dict[str, Any] = {name: blank[kind] for name, kind in IMAGE_COLUMNS.items()}
    return {
        **filled,
        "image_id": row.image_id,
        "reference_id": row.reference_id,
        "mos": row.mos,
        "status": "failed",
        "reason": reason,
    }


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=list(IMAGE_COLUMNS))


def _out_of_memory(error: BaseException) -> bool:
    """PyTorch reports a CPU allocation that failed as a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return "can't allocate memory" in text or "not enough memory" in text or "out of memory" in text
