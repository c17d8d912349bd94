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
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import IqaRobustError, RequestError, WorkerError
from iqa_robust.harness.components import make_model
from iqa_robust.harness.executors.base import JobRequest, Listener
from iqa_robust.harness.executors.held import blocks_of, load_block, outline
from iqa_robust.harness.executors.ray_worker import News, RayWorker, Supplies
from iqa_robust.harness.executors.schedule import WAIT_SECONDS, Event, Finished, Lost, Progress, work_through
from iqa_robust.harness.executors.tasks import Task, cut

CONNECT_SECONDS = 10
"""How long a cluster may take to answer at all."""
NEWS_SECONDS = 2
"""How long the driver waits for progress, which only moves a bar."""
PLACE_SECONDS = 300
"""How long a worker may take to answer; a cluster that adds a machine for it needs minutes."""
STARTS = 3
"""Workers in a row that may die before they answer; then their place is given up."""


class RayActors:
    """Runs jobs on a Ray cluster."""

    def __init__(self, workers: int | None, threads: int, address: str | None = None) -> None:
        """Make an executor; Ray is not touched before `run`.

        Args:
            workers: how many actors; None for as many as the cluster has GPUs, or groups of `threads` cores.
            threads: of torch in each of them.
            address: of a cluster to join, as `ray.init` takes it; None starts a cluster on this machine, whatever
                runs there already, unless the environment variable `RAY_ADDRESS` names one.

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
        """Run every job.

        Raises:
            RequestError: the cluster cannot be joined or is too small.
            WorkerError: Ray fails, or no worker is left.
        """
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
        except self._ray.exceptions.RayError as error:
            raise WorkerError(
                f"executor 'ray': Ray failed ({_said(error)}); what was finished is kept, give the same command again."
            ) from error
        finally:
            if ours:
                self._ray.shutdown()

    def _connect(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "ERROR"}
        address = self.address or os.environ.get("RAY_ADDRESS") or "local"  # None would join what was started here last
        if address == "local":
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster we start reports to nobody
            options["include_dashboard"] = False
            if self.workers is not None:
                options["num_cpus"] = self.workers * self.threads
        try:
            _knock(address)
            self._ray.init(address=address, **options)
        except (OSError, RuntimeError, ValueError, self._ray.exceptions.RayError) as error:
            if address == "local":
                raise RequestError(f"a local cluster: Ray cannot be reached ({_said(error)}).") from error
            raise RequestError(
                f"--ray-address {address}: Ray cannot be reached ({_said(error)}); see that the cluster runs there, and"
                " set RAY_AUTH_MODE=token where it asks for a token."
            ) from error

    def _room(self, cuda: bool) -> int:
        """The number of workers, after waiting a moment for what an earlier run is giving back."""
        deadline = time.monotonic() + CONNECT_SECONDS
        room = self._free(cuda)
        while room < (self.workers or 1) and time.monotonic() < deadline:
            time.sleep(WAIT_SECONDS)
            room = self._free(cuda)
        wanted = room if self.workers is None else self.workers
        if wanted < 1 or wanted > room:
            kind = "one GPU" if cuda else "one core" if self.threads == 1 else f"{self.threads} cores"
            raise RequestError(
                f"--workers {wanted}: expected at least 1 and at most {room}, for which this Ray cluster has room now"
                f" ({kind} each, on one machine)."
            )
        return wanted

    def _free(self, cuda: bool) -> int:
        """Workers that fit on the machines one by one, and into what nobody uses now."""

        def fitting(there: Mapping[str, float]) -> int:
            cpus = int(there.get("CPU", 0) // self.threads)
            return min(cpus, int(there.get("GPU", 0))) if cuda else cpus

        machines = sum(fitting(node["Resources"]) for node in self._ray.nodes() if node["Alive"])
        return min(machines, fitting(self._ray.available_resources()))


def _knock(address: str) -> None:
    """Raise `OSError` unless somebody listens at host:port; Ray itself would try for minutes."""
    found = re.fullmatch(r"(?:ray://)?(.+):([0-9]{1,5})", address)
    if found is not None:
        socket.create_connection((found[1], int(found[2])), timeout=CONNECT_SECONDS).close()


def _said(error: Exception) -> str:
    """The first line of an error of Ray, which would fill a screen."""
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)


@dataclass
class _Running:
    place: int
    number: int
    title: str


@dataclass
class _Place:
    """Room for one worker; where one is lost, another takes over."""

    worker: Any
    deaths: int
    """Workers in a row that died here before they answered."""


@dataclass
class _Actors:
    """A crew of Ray actors. Only those that answered get a task: Ray accepts calls of workers it has no room for."""

    ray: Any
    workers: int
    threads: int
    request: JobRequest
    dataset: Dataset
    _running: dict[Any, _Running] = field(default_factory=dict)
    _places: dict[int, _Place] = field(default_factory=dict)
    _asked: dict[Any, tuple[int, float]] = field(default_factory=dict)
    """Places whose worker has not answered yet, and since when, by the reference of the answer."""
    _idle: list[int] = field(default_factory=list)
    _blocks: dict[int, Any] = field(default_factory=dict)
    _models: dict[str, Any] = field(default_factory=dict)
    _why: str = ""
    """Why the last place was given up."""

    def __post_init__(self) -> None:
        said = outline(self.dataset, self.request.specs[0].dataset, self.request.data_root)
        self._rows = blocks_of(said.rows)
        self._block_of = {row.image_id: i for i, rows in enumerate(self._rows) for row in rows}
        self._outline: Any = self.ray.put(said)
        self._news, self._heard = self._spawn_news(), 0.0
        for place in range(self.workers):
            self._fill(place, deaths=0)

    def _spawn_news(self) -> Any:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        # On the machine of the driver, the only one that the run cannot do without.
        here = NodeAffinitySchedulingStrategy(self.ray.get_runtime_context().get_node_id(), soft=False)
        return self.ray.remote(News).options(num_cpus=0, scheduling_strategy=here).remote()

    def _fill(self, place: int, deaths: int) -> None:
        options = {
            "num_cpus": self.threads,
            "num_gpus": 1 if self.request.device == "cuda" else 0,
            "max_restarts": 0,
            "scheduling_strategy": "SPREAD",
        }
        worker = self.ray.remote(RayWorker).options(**options).remote(self.threads, self._news)
        self._places[place] = _Place(worker, deaths)
        self._ask(place)

    def _ask(self, place: int) -> None:
        self._asked[self._places[place].worker.ping.remote()] = place, time.monotonic()

    def free(self) -> bool:
        """Whether an actor has nothing to do."""
        return bool(self._idle)

    def start(self, number: int, task: Task, spent: float) -> None:
        """Give an idle actor the task, after putting what it needs into the object store."""
        place = self._idle.pop()
        supplies = Supplies(self._outline, self._needed(task), self._model(task.request))
        reference = self._places[place].worker.run.remote(number, task, spent, supplies)
        self._running[reference] = _Running(place, number, task.request.title)

    def events(self) -> Iterator[Event]:
        """News of all actors. Raises what a task raised, and `WorkerError` when no actor is left."""
        awaited = [*self._running, *self._asked]
        if not awaited:
            raise WorkerError(
                f"no Ray worker is left, the last one because {self._why}; what was finished is kept: see that the"
                " cluster has machines, and give the same command again."
            )
        ready, _ = self.ray.wait(awaited, timeout=WAIT_SECONDS)
        for reference in ready:
            if reference in self._asked:
                self._answered(reference)
            else:
                yield self._ended(reference)
        self._give_up_late()
        if time.monotonic() - self._heard > WAIT_SECONDS:
            self._heard = time.monotonic()
            yield from self._progress()

    def _answered(self, reference: Any) -> None:
        place, _ = self._asked.pop(reference)
        try:
            self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            self._replace(place, self._places[place].deaths + 1, error)
        else:
            self._places[place].deaths = 0
            self._idle.append(place)

    def _ended(self, reference: Any) -> Event:
        one = self._running.pop(reference)
        try:
            left = self.ray.get(reference)
        except self.ray.exceptions.RayTaskError as error:
            # What a task raises comes back as a value, so it is the task or the answer that could not be read.
            raise WorkerError(
                f"{one.title}: Ray could not hand it to a worker ({_said(error.cause)}); install the same package and"
                " plugins on every machine and give the same command again."
            ) from error
        except self.ray.exceptions.RayError as error:  # not only of dead actors: memory, machines, objects
            self._replace(one.place, 0, error)
            return Lost(one.number)
        self._idle.append(one.place)
        if isinstance(left, IqaRobustError):
            raise left
        if isinstance(left, str):
            raise RuntimeError(f"a Ray worker failed:\n{left}")
        return Lost(one.number) if left is None else Finished(one.number, left)

    def _replace(self, place: int, deaths: int, error: Exception) -> None:
        """Another worker for the place of one that is lost; all that are idle have to answer again."""
        self._end(self._places[place].worker)  # one that cannot be reached may still live, and hold its cores
        if deaths < STARTS:
            self._fill(place, deaths)
        else:
            del self._places[place]
            self._why = f"{STARTS} in a row died before they answered ({_said(error)})"
        for idle in self._idle:  # the same machine may have gone with them
            self._ask(idle)
        self._idle.clear()

    def _give_up_late(self) -> None:
        for reference, (place, since) in list(self._asked.items()):
            if time.monotonic() - since > PLACE_SECONDS:
                del self._asked[reference]
                self._end(self._places.pop(place).worker)
                self._why = f"it did not answer within {PLACE_SECONDS} s"

    def _progress(self) -> Iterator[Event]:
        try:
            reached = self.ray.get(self._news.take.remote(), timeout=NEWS_SECONDS)
        except self.ray.exceptions.RayError:
            return  # the bar moves when tasks are done
        running = {one.number for one in self._running.values()}
        yield from (Progress(number, images) for number, images in reached.items() if number in running)

    def stop(self) -> None:
        """End all actors; what they had finished is in the folder of the run."""
        for worker in [*(place.worker for place in self._places.values()), self._news]:
            self._end(worker)

    def _end(self, worker: Any) -> None:
        with contextlib.suppress(self.ray.exceptions.RayError):
            self.ray.kill(worker)

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
            except (TypeError, AttributeError, pickle.PickleError):
                self._models[key] = None
        return self._models[key]
