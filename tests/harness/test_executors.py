"""Jobs cut into tasks, tasks handed out, workers lost; on crews and components of known answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from job_requests import job_request as request

import iqa_robust as ir
from iqa_robust import attacks
from iqa_robust.attacks.set_attack import SetAttack
from iqa_robust.attacks.trained_attack import TrainedAttack
from iqa_robust.datasets.base import Dataset, Item, Row
from iqa_robust.errors import DataError, RequestError, StorageError, WorkerError
from iqa_robust.harness.executors import schedule
from iqa_robust.harness.executors.base import JobRequest, Silent
from iqa_robust.harness.executors.choose import choose, sharing
from iqa_robust.harness.executors.held import HeldDataset, blocks_of, load_block, outline
from iqa_robust.harness.executors.here import Here
from iqa_robust.harness.executors.processes import Processes
from iqa_robust.harness.executors.schedule import Event, Finished, Lost, Progress, work_through
from iqa_robust.harness.executors.tasks import Task, cut
from iqa_robust.harness.executors.worker import Done
from iqa_robust.records import Component


class Sized(Dataset):
    """Images that have sizes and no pixels."""

    name = "sized"
    mos_range = (0.0, 100.0)

    def __init__(self, *, sizes: str = "abab") -> None:
        super().__init__(split="all")
        self.sizes = sizes

    def _table(self) -> Sequence[Row]:
        return [Row(f"{i}{size}", "", float(i % 100)) for i, size in enumerate(self.sizes)]

    def size(self, row: Row) -> tuple[int, int]:
        if row.image_id.endswith("!"):
            raise DataError(f"{row.image_id} is broken.")
        return (8, ord(row.image_id[-1]))

    def load(self, row: Row) -> Item:
        raise NotImplementedError

    def _digests(self, row: Row) -> tuple[str, str | None]:
        raise NotImplementedError


def test_one_worker_gets_whole_jobs() -> None:
    assert cut([request(), request(seed=1)], Sized(), workers=1) == [
        Task(request(), None, 4),
        Task(request(seed=1), None, 4),
    ]


def test_shards_are_the_batches_that_one_worker_would_form() -> None:
    tasks = cut([request()], Sized(sizes="abaab!ba"), workers=8)
    *shards, last = tasks
    assert [task.batches for task in shards] == [
        (("0a", "2a"),),
        (("3a", "7a"),),
        (("1b", "4b"),),
        (("6b",),),
    ]
    # The image without a size is left to the task that writes the record.
    assert (last.batches, last.images, last.after) == (None, 1, (0, 1, 2, 3))
    assert sum(task.images for task in tasks) == 8


def test_many_jobs_are_not_cut_and_many_images_are() -> None:
    jobs = [request(seed=seed) for seed in range(8)]
    assert len(cut(jobs, Sized(sizes="a" * 200), workers=2)) == 8
    tasks = cut(jobs, Sized(sizes="a" * 600), workers=2)  # 600 images are three shards of at most 256
    assert len(tasks) == 8 * 4
    assert max(task.images for task in tasks) <= 256
    assert tasks[7].after == (4, 5, 6)


@pytest.mark.parametrize("kind", [SetAttack, TrainedAttack])
def test_attacks_that_see_the_whole_set_or_learn_first_stay_whole(kind: type) -> None:
    name = next(name for name in attacks.names() if issubclass(attacks.get(name), kind))
    assert cut([request(attack=name)], Sized(sizes="a" * 600), workers=2) == [Task(request(attack=name), None, 600)]


class Scripted:
    """A crew of two that follows a script, task by task: "done", "lost" on the way, "dead" before, or an error."""

    def __init__(self, script: dict[int, list[Any]]) -> None:
        self.script, self.given, self.news = script, [], deque()
        self.spent: dict[int, float] = {}
        self.busy = 0

    def free(self) -> bool:
        return self.busy < 2

    def start(self, number: int, task: Task, spent: float) -> None:
        self.given.append(number)
        self.busy += 1
        self.spent[number] = spent
        what = self.script.get(number, ["done"]).pop(0)
        if what != "dead":
            self.news.append(Progress(number, task.images // 2))
        if isinstance(what, Exception):
            self.news.append(what)
        else:
            self.news.append(Lost(number) if what in ("lost", "dead") else Finished(number, Done((), 1.0 + number)))

    def events(self) -> Iterator[Event]:
        while self.news:
            event = self.news.popleft()
            if isinstance(event, Exception):
                raise event
            if not isinstance(event, Progress):
                self.busy -= 1
            yield event


class Heard(Silent):
    """A listener that adds up."""

    def __init__(self) -> None:
        self.images, self.deaths = 0, 0

    def advanced(self, title: str, images: int) -> None:
        self.images += images

    def lost(self, title: str) -> None:
        self.deaths += 1


def three_shards() -> list[Task]:
    tasks = cut([request(seed=seed) for seed in range(3)], Sized(sizes="a" * 600), workers=2)[:8]
    assert [task.after for task in tasks] == [(), (), (), (0, 1, 2), (), (), (), (4, 5, 6)]
    return tasks


def test_records_follow_their_shards_and_know_what_was_spent() -> None:
    crew, heard = Scripted({}), Heard()
    work_through(three_shards(), crew, heard)
    assert sorted(crew.given) == list(range(8))
    for number in (3, 7):
        assert all(crew.given.index(shard) < crew.given.index(number) for shard in range(number - 3, number))
    assert (crew.spent[3], crew.spent[7]) == (1 + 2 + 3, 5 + 6 + 7)
    assert heard.images == 2 * 600


def test_a_lost_worker_costs_its_task_and_nothing_is_counted_twice() -> None:
    crew, heard = Scripted({1: ["lost", "lost", "done"], 3: ["lost", "done"]}), Heard()
    work_through(three_shards(), crew, heard)
    assert sorted(crew.given) == sorted([*range(8), 1, 1, 3])
    assert (heard.images, heard.deaths) == (2 * 600, 3)


class Recorder:
    """Stands for a worker that records what was given up."""

    recorded: list[tuple[int, str, float]]

    def give_up(self, request: JobRequest, reason: str, spent: float) -> Done:
        self.recorded.append((request.specs[0].seed, reason, spent))
        return Done((), 0.0)


@pytest.fixture
def recorded(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str, float]]:
    """Seed, reason and seconds of the jobs that were given up."""
    monkeypatch.setattr(schedule, "Worker", Recorder)
    monkeypatch.setattr(Recorder, "recorded", [], raising=False)
    return Recorder.recorded


REASON = "3 workers died over it; look for too little memory, or leave the cell out"


def test_a_task_that_ends_every_worker_fails_its_job_after_the_others_are_done(recorded: list[Any]) -> None:
    crew, heard = Scripted({5: ["lost"] * 3}), Heard()
    work_through(three_shards(), crew, heard)
    assert set(crew.given) == {0, 1, 2, 3, 4, 5, 6}  # 7 waits for the shard that is lost
    assert recorded == [(1, REASON, 5.0 + 7.0)]
    assert (heard.images, heard.deaths) == (2 * 600, 3)


def test_a_job_that_ends_every_worker_is_given_up_as_a_whole_and_others_go_on(recorded: list[Any]) -> None:
    crew = Scripted({number: ["lost"] * 9 for number in (0, 1, 2)})
    work_through(three_shards(), crew, Silent())
    # Both workers begin with its shards; when one has cost three of them nobody begins another shard of the job.
    assert (crew.given.count(0), crew.given.count(1), crew.given.count(2)) == (3, 3, 0)
    assert sorted(set(crew.given)) == [0, 1, 4, 5, 6, 7]
    assert recorded == [(0, REASON, 0.0)]


def test_workers_that_never_begin_end_the_run() -> None:
    crew = Scripted({number: ["dead"] * 9 for number in range(8)})
    with pytest.raises(WorkerError) as caught:
        work_through(three_shards(), crew, Silent())
    assert str(caught.value) == (
        "6 workers died before they began with anything; run one cell with --workers 1 to see why."
    )


def test_what_a_worker_raises_is_raised() -> None:
    with pytest.raises(StorageError, match="full"):
        work_through(three_shards(), Scripted({2: [StorageError("the disk is full.")]}), Silent())


PHOTOS = ir.datasets.create("photos", limit=5, crop=48)
SAID = outline(PHOTOS, Component(name="photos", params={"limit": 5, "crop": 48}), None)


def test_a_held_dataset_is_the_dataset() -> None:
    block = load_block(PHOTOS, PHOTOS.rows())
    held = HeldDataset(SAID, [block].__getitem__)
    assert len(held) == 5
    for one, other in zip(PHOTOS, held, strict=True):
        assert one.x.equal(other.x)
        assert one.ref is not None and other.ref is not None and one.ref.equal(other.ref)
        assert (one.image_id, one.mos, one.reference_id) == (other.image_id, other.mos, other.reference_id)
    assert [held.size(row) for row in held.rows()] == [(48, 48)] * 5
    for name in ("name", "label_kind", "split", "mos_range", "mos_higher_is_better", "full_reference", "missing"):
        assert getattr(held, name) == getattr(PHOTOS, name)
    other_split = held.changed(split="train", limit=3)
    assert [row.image_id for row in other_split.rows()] == [
        row.image_id for row in PHOTOS.changed(split="train", limit=3).rows()
    ]


def test_an_image_that_cannot_be_read_is_held_as_its_error() -> None:
    class Unreadable(Sized):
        def load(self, row: Row) -> Item:
            raise DataError(f"{row.image_id} is broken.")

    dataset = Unreadable(sizes="a!")
    held = HeldDataset(
        outline(dataset, Component(name="sized"), None), [load_block(dataset, dataset.rows())].__getitem__
    )
    for call in (held.load, held.size):
        with pytest.raises(DataError, match=r"^1! is broken\.$"):
            call(held.rows()[1])
    assert held.size(held.rows()[0]) == (8, ord("a"))


def test_blocks_hold_every_row_once() -> None:
    rows = Sized(sizes="a" * 150).rows()
    blocks = blocks_of(rows)
    assert [len(block) for block in blocks] == [64, 64, 22]
    assert [row for block in blocks for row in block] == list(rows)


def test_the_executor_that_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("torch.get_num_threads", lambda: 6)
    assert isinstance(choose("local", workers=None, device="cpu"), Here)
    two = choose("local", workers=2, device="cpu")
    assert isinstance(two, Processes) and (two.workers, two.threads) == (2, 3)
    monkeypatch.setenv("OMP_NUM_THREADS", "6")
    fixed = choose("local", workers=2, device="cpu")
    assert isinstance(fixed, Processes) and fixed.threads == 6
    with pytest.raises(RequestError) as caught:
        choose("local", workers=2, device="cpu", ray_address="auto")
    assert str(caught.value) == "--ray-address auto: only Ray has an address; add --executor ray."


def test_workers_that_share_a_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass
    class Cluster:
        workers: int | None

    monkeypatch.setattr("os.cpu_count", lambda: 16)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    for executor, on_cpu, on_gpu in (
        (Here(), 1, 1),
        (Processes(6, 1), 6, 2),
        (Processes(7, 1), 7, 3),
        (Processes(2, 1), 2, 1),
        (Cluster(4), 4, 1),
        (Cluster(500), 16, 1),
        (Cluster(None), 16, 1),
    ):
        assert (sharing(executor, cpu), sharing(executor, cuda)) == (on_cpu, on_gpu)


def test_four_gpus_get_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 4)
    four = choose("local", workers=None, device="auto")
    assert isinstance(four, Processes) and four.workers == 4


def test_a_process_works_on_its_own_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from iqa_robust.harness.executors import processes

    taken: list[int] = []
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.set_device", taken.append)
    monkeypatch.setattr("torch.set_num_threads", lambda n: None)
    monkeypatch.setattr(processes.signal, "signal", lambda *_: None)

    class Closed:
        def recv(self) -> Callable[[], None]:
            raise EOFError

    for place in range(5):
        processes.serve(Closed(), place, 1, "cuda")
    assert taken == [0, 1, 2, 0, 1]
