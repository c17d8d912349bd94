"""A plan -> a folder of records: what is missing is run, by an executor, and flags are found among all records."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from iqa_robust.errors import StorageError
from iqa_robust.harness.choices import Choices
from iqa_robust.harness.environment import pick_device, prepare_numerics
from iqa_robust.harness.executors.base import Executor, JobRequest, Listener, Silent
from iqa_robust.harness.executors.choose import sharing
from iqa_robust.harness.executors.here import Here
from iqa_robust.harness.flags import find_all_flags
from iqa_robust.harness.plan import Plan
from iqa_robust.harness.shard import Shard, of_shard
from iqa_robust.harness.store import Store
from iqa_robust.records import Place, Remote, RunRecord, RunSpec


def run(
    plan: Plan,
    out: Place,
    *,
    device: str = "auto",
    precision: str = "auto",
    executor: Executor | None = None,
    shard: Shard | None = None,
    listener: Listener | None = None,
) -> list[RunRecord]:
    """Run the cells of `plan` that `out` lacks, find flags, and return the records of all its cells in plan order.

    Args:
        plan: what to run.
        out: the folder of the run, or its URL.
        device: `auto`, `cpu` or `cuda`.
        precision: arithmetic of the attacks' search: `fp32`, `mixed`, `bf16`, or `auto`, which measures each model
            once per run and tells `listener` what it found. Final scores are float32.
        executor: who runs the cells; None is this process.
        shard: run only this part of the jobs. Some flags compare the cells of the whole plan, so they are found by the
            shard that finds all cells there when it is done; any other returns the records of its own cells.
        listener: told what happens.

    Raises:
        RequestError: the device cannot be had.
        StorageError: `out` cannot be written, or lacks records though their cells were run.
        RecordError: `out` holds records of another version.
        WorkerError: workers cannot be kept up; a cell that ends its workers is a failed one instead.
    """
    prepare_numerics()  # what is measured here decides for workers that do the same
    listener = listener or Silent()
    out, data_root = _anywhere(out), None if plan.data_root is None else _anywhere(plan.data_root)
    store = Store(out)
    picked = pick_device(device)
    store.prepare()
    if plan.cells:
        store.check_version(plan.cells[0].package_version)
    jobs = group_by_attack(plan.cells)
    if shard is not None:
        jobs = of_shard(jobs, shard)
    finished = {spec.digest for job in jobs for spec in job if store.finished(spec.digest)}
    for digest in finished:
        store.drop_parts(digest)
    pending = [tuple(spec for spec in job if spec.digest not in finished) for job in jobs]
    workers = executor or Here()
    choices = Choices(precision, plan, picked, store, listener, sharing(workers, picked))
    requests = []
    for specs in filter(None, pending):
        chosen, batch_size = choices.of(specs[0])
        requests.append(JobRequest(specs, out, data_root, picked.type, batch_size, plan.limited, chosen))
    cells = sum(len(request.specs) for request in requests)
    listener.started(cells, len(finished), len(plan.dataset) * cells)
    workers.run(requests, plan.dataset, listener)
    ours = [spec for job in jobs for spec in job]
    lacking = sum(not store.has(spec.digest) for spec in ours)
    if lacking:
        raise StorageError(
            f"{out}: {lacking} of {len(ours)} cells have no record here though they were run: the workers wrote"
            " elsewhere, or somebody removed them; give an --out that all machines reach, and the same command again."
        )
    if shard is None or all(store.has(spec.digest) for spec in plan.cells):
        return _with_flags(plan, store)
    return _read(store, ours)


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


def _anywhere(where: Place) -> Place:
    """The place by a name that holds in a worker that has another working directory, too."""
    return where if isinstance(where, Remote) else where.absolute()


def _with_flags(plan: Plan, store: Store) -> list[RunRecord]:
    records = _read(store, plan.cells)
    found = find_all_flags(records)
    return [store.replace_flags(record, flags) for record, flags in zip(records, found, strict=True)]


def _read(store: Store, cells: Iterable[RunSpec]) -> list[RunRecord]:
    return [record for record in (store.read(spec.digest) for spec in cells) if record is not None]
