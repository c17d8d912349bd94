"""A plan -> a folder of records: what is missing is run, locally in this process or in several."""

from __future__ import annotations

import contextlib
import multiprocessing
import queue
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from iqa_robust.harness.components import make_attack, make_dataset, make_defense, make_model
from iqa_robust.harness.environment import pick_device, prepare_numerics
from iqa_robust.harness.execute import Job, run_job
from iqa_robust.harness.flags import find_flags
from iqa_robust.harness.plan import Plan, cell_title
from iqa_robust.harness.store import Store
from iqa_robust.records import RunRecord, RunSpec


class Listener(Protocol):
    """Told what a run is doing; the command line draws progress from it."""

    def started(self, cells: int, skipped: int, images: int) -> None:
        """So many cells are to run, so many were there already; `images` counts one per cell and image."""

    def advanced(self, title: str, images: int) -> None:
        """A batch of the named cell is finished."""

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Cells are recorded."""


class Silent:
    """A listener that draws nothing."""

    def started(self, cells: int, skipped: int, images: int) -> None:
        """Draw nothing."""

    def advanced(self, title: str, images: int) -> None:
        """Draw nothing."""

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Draw nothing."""


@dataclass(frozen=True)
class JobRequest:
    """Everything a worker process needs to run the cells of one job."""

    specs: tuple[RunSpec, ...]
    out: Path
    data_root: Path | None
    device: str
    batch_size: int
    threads: int | None
    limited: bool

    @property
    def title(self) -> str:
        """What a progress bar shows."""
        return cell_title(self.specs[0])


def run(
    plan: Plan,
    out: Path,
    *,
    device: str = "auto",
    workers: int = 1,
    listener: Listener | None = None,
) -> list[RunRecord]:
    """Run the cells of `plan` that `out` lacks, find flags, and return the records of all its cells in plan order.

    Raises:
        RequestError: the device cannot be had.
        StorageError: `out` cannot be written.
        RecordError: `out` holds records of another version.
    """
    listener = listener or Silent()
    store = Store(out)
    picked = pick_device(device)
    store.prepare()
    if plan.cells:
        store.check_version(plan.cells[0].package_version)
    pending = [spec for spec in plan.cells if not store.finished(spec.digest)]
    n_images = len(plan.dataset)
    listener.started(len(pending), len(plan.cells) - len(pending), n_images * len(pending))
    threads = max(1, torch.get_num_threads() // workers) if workers > 1 else None
    requests = [
        JobRequest(specs, out, plan.data_root, picked.type, plan.track.batch_size, threads, plan.limited)
        for specs in group_by_attack(pending)
    ]
    run_all = _run_here if workers == 1 else _run_in_processes
    run_all(requests, workers, listener)
    return _with_flags(plan, store)


def group_by_attack(cells: Iterable[RunSpec]) -> list[tuple[RunSpec, ...]]:
    """Cells that attack the same model in the same way, in order of their first: one attack serves them all."""
    groups: dict[Any, list[RunSpec]] = {}
    for spec in cells:
        bare = spec.defense is None or spec.knowledge == "oblivious"
        attacked = None if bare else spec.defense
        key = repr(
            (
                spec.model,
                spec.score_range,
                attacked,
                spec.attack,
                spec.goal,
                spec.target,
                spec.budget,
                spec.seed,
            )
        )
        groups.setdefault(key, []).append(spec)
    return [tuple(group) for group in groups.values()]


def _with_flags(plan: Plan, store: Store) -> list[RunRecord]:
    records = [record for record in (store.read(spec.digest) for spec in plan.cells) if record is not None]
    return [store.replace_flags(record, find_flags(record, records)) for record in records]


class _Worker:
    """Keeps the objects that jobs share, so that a model is loaded once per process."""

    def __init__(self) -> None:
        self._models: dict[str, Any] = {}
        self._datasets: dict[str, Any] = {}

    def run(self, request: JobRequest, advanced: Callable[[int], None]) -> list[RunRecord]:
        prepare_numerics()
        spec = request.specs[0]
        model = self._once(
            self._models, (spec.model, spec.score_range), lambda: make_model(spec.model, spec.score_range)
        )
        dataset = self._once(self._datasets, spec.dataset, lambda: make_dataset(spec.dataset, request.data_root))
        job = Job(
            specs=request.specs,
            dataset=dataset,
            model=model,
            defenses=tuple(make_defense(spec.defense) for spec in request.specs),
            attack=make_attack(spec.attack),
            device=torch.device(request.device),
            batch_size=request.batch_size,
            limited=request.limited,
        )
        return run_job(job, Store(request.out), advanced)

    @staticmethod
    def _once(known: dict[str, Any], key: object, make: Callable[[], Any]) -> Any:
        name = repr(key)
        if name not in known:
            known[name] = make()
        return known[name]


def _run_here(requests: Sequence[JobRequest], workers: int, listener: Listener) -> None:
    worker = _Worker()
    for request in requests:

        def advanced(images: int, request: JobRequest = request) -> None:
            listener.advanced(request.title, images * len(request.specs))

        listener.finished(worker.run(request, advanced))


_worker: _Worker | None = None
_events: Any = None


def _start_process(events: Any, threads: int | None) -> None:
    global _worker, _events
    _worker, _events = _Worker(), events
    if threads is not None:
        torch.set_num_threads(threads)


def _run_in_process(request: JobRequest) -> list[RunRecord]:
    assert _worker is not None  # set by the initializer
    return _worker.run(request, lambda n: _events.put((request.title, n * len(request.specs))))


def _run_in_processes(requests: Sequence[JobRequest], workers: int, listener: Listener) -> None:
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        events = manager.Queue()
        pool = ProcessPoolExecutor(
            workers, context, _start_process, (events, requests[0].threads if requests else None)
        )
        try:
            running = {pool.submit(_run_in_process, request) for request in requests}
            while running:
                finished, running = wait(running, timeout=0.2, return_when="FIRST_COMPLETED")
                for title, images in _drained(events):
                    listener.advanced(title, images)
                for future in finished:
                    listener.finished(future.result())
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _drained(events: Any) -> Iterable[tuple[str, int]]:
    with contextlib.suppress(queue.Empty):
        while True:
            yield events.get_nowait()
