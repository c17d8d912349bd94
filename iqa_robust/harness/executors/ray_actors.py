"""Workers on a Ray cluster: one actor per GPU, or per group of cores, on every machine that Ray finds room on.

Models, with their weights, and images go through Ray's object store, once per machine. Workers write parts and records
to the folder of the run, which all machines must reach; the names follow from the content, so a task that is run twice
leaves what one run leaves. Ray's own retries are off: the schedule gives a lost task to another worker.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import re
import socket
import time
import traceback
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import IqaRobustError, RequestError, WorkerError
from iqa_robust.harness.components import make_model
from iqa_robust.harness.executors.base import JobRequest, Listener
from iqa_robust.harness.executors.held import Block, HeldDataset, blocks_of, load_block, outline
from iqa_robust.harness.executors.schedule import WAIT_SECONDS, Event, Finished, Lost, Progress, work_through
from iqa_robust.harness.executors.tasks import Task, cut
from iqa_robust.harness.executors.worker import Done, Worker
from iqa_robust.models.base import IQAModel

CONNECT_SECONDS = 10
"""How long a cluster may take to answer at all."""
KEPT_BLOCKS = 8
"""Blocks of images a worker has open; their pixels are in memory that all workers of a machine share."""


class RayActors:
    """Runs jobs on a Ray cluster."""

    def __init__(self, workers: int | None, threads: int, address: str | None = None) -> None:
        """Make an executor; Ray is not touched before `run`.

        Args:
            workers: how many actors; None for as many as the cluster has GPUs, or groups of `threads` cores.
            threads: of torch in each of them.
            address: of a cluster to join, as `ray.init` takes it; None starts a cluster on this machine, unless the
                environment variable `RAY_ADDRESS` names one.

        Raises:
            RequestError: Ray is not installed.
        """
        try:
            import ray
        except ImportError:
            raise RequestError(
                "executor 'ray': Ray is not installed; install the extra, pip install 'iqa-robust[ray]', or use"
                " --executor local --workers N."
            ) from None
        self._ray, self.workers, self.threads, self.address = ray, workers, threads, address

    def run(self, requests: Sequence[JobRequest], dataset: Dataset, listener: Listener) -> None:
        """Run every job. Raises `RequestError` when the cluster cannot be joined or is too small."""
        if not requests:
            return
        ours = not self._ray.is_initialized()
        if ours:
            self._connect()
        try:
            workers = self._room(requests[0].device == "cuda")
            tasks = cut(requests, dataset, workers)
            crew = _Actors(self._ray, min(workers, len(tasks)), self.threads, requests[0], dataset)
            try:
                work_through(tasks, crew, listener)
            finally:
                crew.stop()
        finally:
            if ours:
                self._ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self.address or os.environ.get("RAY_ADDRESS")
        if address is None:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster we start reports to nobody
            options["include_dashboard"] = False
            if self.workers is not None:
                options["num_cpus"] = self.workers * self.threads
        try:
            _knock(address)
            self._ray.init(address=address, **options)
        except (OSError, RuntimeError, ValueError) as error:
            where = "a local cluster" if address is None else f"--ray-address {address}"
            raise RequestError(f"{where}: Ray cannot be reached ({str(error).splitlines()[0]}).") from error

    def _room(self, cuda: bool) -> int:
        """The number of workers, and whether the cluster has room for them."""
        there = self._ray.cluster_resources()
        cpus = int(there.get("CPU", 0) // self.threads)
        room = min(cpus, int(there.get("GPU", 0))) if cuda else cpus
        wanted = room if self.workers is None else self.workers
        if wanted < 1 or wanted > room:
            kind = "one GPU" if cuda else "one core" if self.threads == 1 else f"{self.threads} cores"
            raise RequestError(
                f"--workers {wanted}: expected at least 1 and at most {room}, for which this Ray cluster has room"
                f" ({kind} each)."
            )
        return wanted


def _knock(address: str | None) -> None:
    """Raise `OSError` unless somebody listens at host:port; Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):([0-9]{1,5})", address or "")
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_SECONDS).close()


class _News:
    """An actor that collects progress, so that the driver asks one instead of all workers."""

    def __init__(self) -> None:
        self._reached: dict[int, int] = {}

    def tell(self, number: int, images: int) -> None:
        """A task has reached so many images."""
        self._reached[number] = images

    def take(self) -> dict[int, int]:
        """What was told since the last call."""
        reached, self._reached = self._reached, {}
        return reached


@dataclass(frozen=True)
class _Supplies:
    """References into the object store that a task needs; nested, so that Ray fetches none of them by itself."""

    outline: Any
    blocks: Mapping[int, Any]
    model: Any


class _Supplied(Worker):
    """A worker that takes models and images from the object store, and keeps what it took for the next tasks."""

    def __init__(self, get: Any) -> None:
        super().__init__()
        self._get = get
        self._supplies: _Supplies | None = None
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def take(self, supplies: _Supplies) -> None:
        """What the next task needs."""
        self._supplies = supplies

    def made(self, request: JobRequest) -> IQAModel:
        """The model as the driver made it."""
        assert self._supplies is not None
        reference = self._supplies.model
        return super().made(request) if reference is None else self._get(reference)

    def dataset(self, request: JobRequest) -> Dataset:
        """The dataset as the driver read it."""
        assert self._supplies is not None
        reference = self._supplies.outline
        return self._once(
            self._datasets, request.specs[0].dataset, lambda: HeldDataset(self._get(reference), self._block)
        )

    def _block(self, number: int) -> Block:
        assert self._supplies is not None
        held = self._blocks.get(number)  # looked up at once: images are loaded by several threads
        if held is None:
            held = self._blocks[number] = self._get(self._supplies.blocks[number])
            while len(self._blocks) > KEPT_BLOCKS:
                with contextlib.suppress(KeyError):
                    self._blocks.popitem(last=False)
        return held


class _Actor:
    """What lives in a Ray worker process."""

    def __init__(self, threads: int, news: Any) -> None:
        import ray

        torch.set_num_threads(threads)
        self._worker, self._news = _Supplied(ray.get), news

    def run(self, number: int, task: Task, spent: float, supplies: _Supplies) -> Done | IqaRobustError | str:
        """Do a task; an error comes back as a value, since Ray would wrap it."""
        reached = 0

        def advanced(images: int) -> None:
            nonlocal reached
            reached += images
            self._news.tell.remote(number, reached)

        self._worker.take(supplies)
        try:
            return self._worker.run(task, spent, advanced)
        except IqaRobustError as error:
            return error
        except Exception:
            return traceback.format_exc()


@dataclass
class _Running:
    place: int
    number: int


@dataclass
class _Actors:
    """A crew of Ray actors."""

    ray: Any
    workers: int
    threads: int
    request: JobRequest
    dataset: Dataset
    _running: dict[Any, _Running] = field(default_factory=dict)
    _blocks: dict[int, Any] = field(default_factory=dict)
    _models: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        said = outline(self.dataset, self.request.specs[0].dataset, self.request.data_root)
        self._rows = blocks_of(said.rows)
        self._block_of = {row.image_id: i for i, rows in enumerate(self._rows) for row in rows}
        self._outline: Any = self.ray.put(said)
        self._news = self.ray.remote(_News).options(num_cpus=0).remote()
        self._asked = 0.0
        self._actors = [self._spawn() for _ in range(self.workers)]
        self._idle = list(range(self.workers))

    def _spawn(self) -> Any:
        options = {
            "num_cpus": self.threads,
            "num_gpus": 1 if self.request.device == "cuda" else 0,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        return self.ray.remote(_Actor).options(**options).remote(self.threads, self._news)

    def free(self) -> bool:
        """Whether an actor has nothing to do."""
        return bool(self._idle)

    def start(self, number: int, task: Task, spent: float) -> None:
        """Give an idle actor the task, after putting what it needs into the object store."""
        place = self._idle.pop()
        supplies = _Supplies(self._outline, self._needed(task), self._model(task.request))
        reference = self._actors[place].run.remote(number, task, spent, supplies)
        self._running[reference] = _Running(place, number)

    def events(self) -> Iterator[Event]:
        """News of all actors. Raises what a task raised."""
        ready, _ = self.ray.wait(list(self._running), timeout=WAIT_SECONDS)
        for reference in ready:
            one = self._running.pop(reference)
            try:
                left = self.ray.get(reference)
            except self.ray.exceptions.RayActorError:
                self._actors[one.place] = self._spawn()
                left = None
            self._idle.append(one.place)
            if isinstance(left, IqaRobustError):
                raise left
            if isinstance(left, str):
                raise RuntimeError(f"a Ray worker failed:\n{left}")
            yield Lost(one.number) if left is None else Finished(one.number, left)
        if time.monotonic() - self._asked > WAIT_SECONDS:
            self._asked = time.monotonic()
            yield from self._progress()

    def _progress(self) -> Iterator[Event]:
        try:
            reached = self.ray.get(self._news.take.remote())
        except self.ray.exceptions.RayActorError:
            raise WorkerError("the Ray actor that collects progress died; give the same command again.") from None
        running = {one.number for one in self._running.values()}
        yield from (Progress(number, images) for number, images in reached.items() if number in running)

    def stop(self) -> None:
        """End all actors; what they had finished is in the folder of the run."""
        for actor in [*self._actors, self._news]:
            self.ray.kill(actor)

    def _needed(self, task: Task) -> dict[int, Any]:
        """References to the blocks a task may open; the records of a cut job probe a few images and may lack some."""
        if task.batches is None:
            numbers = list(range(len(self._rows)))
        else:
            numbers = sorted({self._block_of[image_id] for ids in task.batches for image_id in ids})
        for number in numbers:
            if number not in self._blocks:
                self._blocks[number] = self.ray.put(load_block(self.dataset, self._rows[number]))
        return {number: self._blocks[number] for number in numbers}

    def _model(self, request: JobRequest) -> Any:
        """Reference to the model; None for one that cannot be pickled, which every worker makes for itself."""
        spec = request.specs[0]
        key = repr((spec.model, spec.score_range))
        if key not in self._models:
            try:
                self._models[key] = self.ray.put(make_model(spec.model, spec.score_range))
            except (TypeError, AttributeError, pickle.PicklingError):
                self._models[key] = None
        return self._models[key]
