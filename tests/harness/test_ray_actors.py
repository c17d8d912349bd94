"""Workers that Ray loses, cannot place or cannot supply: on a Ray of scripted answers, and on two machines."""

from __future__ import annotations

import pickle
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from job_requests import job_request

import iqa_robust as ir
from iqa_robust.errors import RequestError, WorkerError
from iqa_robust.harness.executors.base import JobRequest, Silent
from iqa_robust.harness.executors.tasks import Task
from iqa_robust.harness.executors.worker import Done
from iqa_robust.models.base import IQAModel

ray = pytest.importorskip("ray", reason="needs the extra `ray`")
from iqa_robust.harness.executors import ray_actors  # noqa: E402  (needs Ray)
from iqa_robust.harness.executors.ray_actors import RayActors  # noqa: E402
from iqa_robust.harness.executors.schedule import work_through  # noqa: E402

PHOTOS = ir.datasets.create("photos", limit=4, crop=48)
DONE = Done((), 1.0)
DRIVER = "ab" * 28
"""The machine of the driver."""
SILENCE = object()
"""The answer of a worker that is never placed."""


def request(seed: int = 0, out: Path = Path("out"), steps: int = 10) -> JobRequest:
    return job_request(model="ssim", limit=4, seed=seed, out=out, steps=steps)


TASKS = [Task(request(seed), None, 4) for seed in range(3)]


class ScriptedRay:
    """A Ray whose workers, in the order they are asked for, answer a ping and their tasks as the script says."""

    exceptions = ray.exceptions

    def __init__(self, *script: Sequence[Any]) -> None:
        self.script, self.workers, self.killed = [list(answers) for answers in script], [], []
        self.put = lambda held: held

    def remote(self, kind: type) -> Any:
        return SimpleNamespace(options=lambda **options: SimpleNamespace(remote=lambda *_: self._spawn(kind, options)))

    def _spawn(self, kind: type, options: dict[str, Any]) -> Any:
        if kind.__name__ == "News":
            assert options["scheduling_strategy"].node_id == DRIVER
            return SimpleNamespace(take=SimpleNamespace(remote=lambda: [{}]))
        answers = self.script.pop(0) if self.script else [SILENCE]
        given: list[int] = []

        def answer(*task: Any) -> Any:
            given.extend(task[:1])
            return Reference(answers.pop(0) if answers else DONE)

        worker = SimpleNamespace(ping=SimpleNamespace(remote=answer), run=SimpleNamespace(remote=answer), given=given)
        self.workers.append(worker)
        return worker

    def get_runtime_context(self) -> Any:
        return SimpleNamespace(get_node_id=lambda: DRIVER)

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        ready = [one for one in references if one.answer is not SILENCE]
        return ready[-1:], [one for one in references if one not in ready[-1:]]

    def get(self, reference: Any, timeout: float | None = None) -> Any:
        if isinstance(reference, list):
            return reference[0]
        if isinstance(reference.answer, Exception):
            raise reference.answer
        return reference.answer

    def kill(self, worker: Any) -> None:
        self.killed.append(worker)


class Reference:
    """What a call returns at once."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer


class Heard(Silent):
    """A listener that counts deaths."""

    deaths = 0

    def lost(self, title: str) -> None:
        self.deaths += 1


def work(scripted: ScriptedRay, workers: int = 1, tasks: Sequence[Task] = TASKS) -> int:
    """The workers that were lost over a task."""
    heard = Heard()
    crew = ray_actors._Actors(scripted, workers, 1, tasks[0].request, PHOTOS)
    try:
        work_through(tasks, crew, heard)
    finally:
        crew.stop()
    assert all(worker in scripted.killed for worker in scripted.workers)
    return heard.deaths


LOSSES = {
    "out of memory": ray.exceptions.OutOfMemoryError("the memory monitor ended it"),
    "a machine": ray.exceptions.NodeDiedError("the node died"),
    "an object": ray.exceptions.ObjectLostError("ab" * 14, None, ""),
    "an actor": ray.exceptions.ActorDiedError(),
    "no room": ray.exceptions.ActorUnschedulableError("the node is gone"),
    "unreachable": ray.exceptions.ActorUnavailableError("the connection broke", None),
}


@pytest.mark.parametrize("name", LOSSES)
def test_whatever_ray_calls_a_loss_costs_the_task_in_hand_only(name: str) -> None:
    scripted = ScriptedRay([None, DONE, LOSSES[name]], [None])
    assert work(scripted) == 1
    first, second = scripted.workers
    assert (first.given, second.given) == ([0, 1], [1, 2])
    assert scripted.killed[0] is first  # it may still live, and hold its cores


def test_what_the_object_store_cannot_give_is_asked_for_again_of_the_same_worker() -> None:
    scripted = ScriptedRay([None, None])
    assert work(scripted) == 1
    assert scripted.workers[0].given == [0, 0, 1, 2]


def test_what_cannot_be_handed_over_is_one_sentence() -> None:
    error = ray.exceptions.RayTaskError("run", "Traceback ...", ModuleNotFoundError("No module named 'acme'"))
    with pytest.raises(WorkerError) as caught:
        work(ScriptedRay([None, error]))
    assert str(caught.value) == (
        f"{TASKS[0].request.title}: Ray could not hand it to a worker (No module named 'acme'); install the same"
        " package and plugins on every machine and give the same command again."
    )


def test_only_workers_that_answered_get_a_task() -> None:
    scripted = ScriptedRay([SILENCE], [None])
    assert work(scripted, workers=2) == 0
    assert [worker.given for worker in scripted.workers] == [[], [0, 1, 2]]


def test_idle_workers_of_a_lost_machine_get_no_task() -> None:
    # Both on one machine: the second is lost over a task, the first has done its own and does not answer again.
    gone = LOSSES["a machine"]
    scripted = ScriptedRay([None, DONE, gone], [None, gone], [None], [None])
    assert work(scripted, workers=2, tasks=TASKS[:2]) == 1
    assert [worker.given for worker in scripted.workers[:2]] == [[1], [0]]


def test_workers_that_find_no_room_are_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_actors, "PLACE_SECONDS", 0)
    with pytest.raises(WorkerError) as caught:
        work(ScriptedRay([SILENCE], [SILENCE]), workers=2)
    assert str(caught.value) == (
        "no Ray worker is left, the last one because it did not answer within 0 s; what was finished is kept: see that"
        " the cluster has machines, and give the same command again."
    )


def test_workers_that_die_at_their_start_are_given_up() -> None:
    broken = ray.exceptions.ActorDiedError()
    scripted = ScriptedRay(*[[broken]] * 9)
    with pytest.raises(WorkerError, match=r"^no Ray worker is left, the last one because 3 in a row died before they"):
        work(scripted, workers=2)
    assert len(scripted.workers) == 2 * ray_actors.STARTS


def test_a_driver_that_ray_fails_says_so_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    executor = RayActors(1, 1)

    def full(_: Any) -> None:
        raise ray.exceptions.ObjectStoreFullError("the store is full\nand a screen of advice")

    scripted = ScriptedRay()
    scripted.put = full
    scripted.is_initialized = lambda: True
    monkeypatch.setattr(executor, "_ray", scripted)
    monkeypatch.setattr(executor, "_room", lambda cuda: 1)
    with pytest.raises(WorkerError) as caught:
        executor.run([request()], PHOTOS, Silent())
    assert str(caught.value) == (
        "executor 'ray': Ray failed (the store is full); what was finished is kept, give the same command again."
    )


@pytest.mark.parametrize("error", [pickle.PickleError, pickle.PicklingError, TypeError, AttributeError])
def test_a_model_that_cannot_be_pickled_is_made_by_the_workers(error: type[Exception]) -> None:
    scripted = ScriptedRay([None])

    def put(held: object) -> object:
        if isinstance(held, IQAModel):
            raise error("a lambda")
        return held

    scripted.put = put
    crew = ray_actors._Actors(scripted, 1, 1, request(), PHOTOS)
    assert crew._model(request()) is None


def machine(cpus: float, gpus: float = 0, alive: bool = True) -> dict[str, Any]:
    return {"Alive": alive, "Resources": {"CPU": cpus, "GPU": gpus}}


@pytest.mark.parametrize(
    ("machines", "unused", "threads", "cuda", "room"),
    [
        ([machine(3), machine(3)], {"CPU": 6}, 2, False, 2),  # not 6 // 2: a worker is on one machine
        ([machine(4), machine(4, alive=False)], {"CPU": 4}, 2, False, 2),
        ([machine(8)], {"CPU": 3}, 1, False, 3),  # somebody else uses five cores
        ([machine(8, 2), machine(1, 4)], {"CPU": 9, "GPU": 6}, 1, True, 3),
    ],
)
def test_room_is_counted_machine_by_machine(
    monkeypatch: pytest.MonkeyPatch, machines: list, unused: dict, threads: int, cuda: bool, room: int
) -> None:
    monkeypatch.setattr(ray_actors, "CONNECT_SECONDS", 0)

    def executor(workers: int | None) -> RayActors:
        made = RayActors(workers, threads)
        made._ray = SimpleNamespace(nodes=lambda: machines, available_resources=lambda: unused)
        return made

    assert executor(None)._room(cuda) == executor(room)._room(cuda) == room
    with pytest.raises(RequestError, match=f"^--workers {room + 1}: expected at least 1 and at most {room}, for which"):
        executor(room + 1)._room(cuda)


@pytest.mark.slow
@pytest.mark.parametrize("cores_left", [1, 0])
def test_a_machine_that_is_lost_costs_its_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cores_left: int
) -> None:
    from ray.cluster_utils import Cluster

    monkeypatch.setattr(ray_actors, "PLACE_SECONDS", 60)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": cores_left, "include_dashboard": False})
    lost = cluster.add_node(num_cpus=1)

    def lose_a_machine() -> None:
        for _ in range(1200):
            if len(list(tmp_path.glob("runs/*.parts/*.parquet"))) > cores_left:
                break
            time.sleep(0.1)
        cluster.remove_node(lost, allow_graceful=False)

    requests = [request(seed, tmp_path, steps=600) for seed in range(2)]
    heard, loser = Heard(), threading.Thread(target=lose_a_machine)
    try:
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        loser.start()
        if cores_left:
            RayActors(2, 1).run(requests, PHOTOS, heard)
            assert {path.stem for path in tmp_path.glob("runs/*.json")} == {one.specs[0].digest for one in requests}
        else:
            with pytest.raises(WorkerError, match=r"^no Ray worker is left, the last one because it did not answer"):
                RayActors(1, 1).run(requests, PHOTOS, heard)
            assert list(tmp_path.glob("runs/*.parts/*.parquet"))
        assert heard.deaths <= 1  # its worker may have been between two tasks
    finally:
        loser.join()
        ray.shutdown()
        cluster.shutdown()
