"""Hands tasks to workers until all are done, whoever the workers are and however many of them die on the way."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from iqa_robust.errors import WorkerError
from iqa_robust.harness.executors.base import JobRequest, Listener
from iqa_robust.harness.executors.tasks import Task
from iqa_robust.harness.executors.worker import Done, Worker

LOSSES = 3
"""Workers that one task may end before it is given up: one may be bad luck, three are the task."""
GIVEN_UP = f"{LOSSES} workers died over it; look for too little memory, or leave the cell out"
WAIT_SECONDS = 0.2
"""How long to wait for news, so that a bar moves and Ctrl-C is heard."""


@dataclass(frozen=True)
class Progress:
    """A task has so many images behind it, counted from its start; said twice, it counts once."""

    number: int
    images: int


@dataclass(frozen=True)
class Finished:
    """A task is done."""

    number: int
    done: Done


@dataclass(frozen=True)
class Lost:
    """The worker of a task died; there is another in its place."""

    number: int


Event = Progress | Finished | Lost


class Crew(Protocol):
    """Workers that take one task each."""

    def free(self) -> bool:
        """Whether a worker has nothing to do."""

    def start(self, number: int, task: Task, spent: float) -> None:
        """Give a free worker the task with this number; `spent` is passed on to it."""

    def events(self) -> Iterable[Event]:
        """What has happened since the last call, after waiting a moment for the first of it.

        Raises what a task raised, such as `StorageError`.
        """


def work_through(tasks: Sequence[Task], crew: Crew, listener: Listener) -> None:
    """Have a crew do every task, those that others wait for first.

    A job with a task that ended `LOSSES` workers is given up: when all others are done its cells are recorded as
    failed.

    Raises:
        StorageError: results cannot be written.
        WorkerError: workers die before they have begun with anything.
    """
    _Round(tasks, crew, listener).run()


class _Round:
    def __init__(self, tasks: Sequence[Task], crew: Crew, listener: Listener) -> None:
        self.tasks, self.crew, self.listener = tasks, crew, listener
        self.waiting = deque(number for number, task in enumerate(tasks) if not task.after)
        self.next = {before: number for number, task in enumerate(tasks) for before in task.after}
        self.seconds: dict[int, float] = {}
        self.counted: Counter[int] = Counter()
        self.losses: Counter[int] = Counter()
        self.begun = False
        self.given_up: list[JobRequest] = []
        self.running = 0

    def run(self) -> None:
        while self.waiting or self.running:
            while self.waiting and self.crew.free():
                number = self.waiting.popleft()
                task = self.tasks[number]
                self.crew.start(number, task, sum(self.seconds[before] for before in task.after))
                self.running += 1
            for event in self.crew.events():
                self._note(event)
        if self.given_up:
            self._record_given_up(Worker())

    def _record_given_up(self, worker: Worker) -> None:
        for request in self.given_up:
            numbers = [number for number, task in enumerate(self.tasks) if task.request is request]
            spent = sum(self.seconds.get(number, 0.0) for number in numbers)
            done = worker.give_up(request, GIVEN_UP, spent)
            for number in numbers:
                self._count(number, self.tasks[number].images)
            self.listener.finished(done.records)

    def _note(self, event: Event) -> None:
        task = self.tasks[event.number]
        if isinstance(event, Progress):
            self.begun = True
            self._count(event.number, min(event.images, task.images))
            return
        self.running -= 1
        if isinstance(event, Lost):
            self.losses[event.number] += 1
            self.listener.lost(task.request.title)
            if not self.seconds and not self.begun and self.losses.total() >= 2 * LOSSES:
                raise WorkerError(
                    f"{self.losses.total()} workers died before they began with anything; run one cell with"
                    " --workers 1 to see why."
                )
            self._take_back(event.number)
            return
        self.seconds[event.number] = event.done.seconds
        self._count(event.number, task.images)
        if event.done.records:
            self.listener.finished(event.done.records)
        following = self.next.get(event.number)
        if following is not None and all(before in self.seconds for before in self.tasks[following].after):
            self.waiting.appendleft(following)

    def _take_back(self, number: int) -> None:
        """Hand a lost task out again, or give its whole job up."""
        request = self.tasks[number].request
        if any(given_up is request for given_up in self.given_up):
            return
        if self.losses[number] < LOSSES:
            self.waiting.appendleft(number)
            return
        self.given_up.append(request)
        self.waiting = deque(other for other in self.waiting if self.tasks[other].request is not request)

    def _count(self, number: int, images: int) -> None:
        """Tell the listener of images it has not heard of."""
        more = images - self.counted[number]
        if more > 0:
            self.counted[number] = images
            request = self.tasks[number].request
            self.listener.advanced(request.title, more * len(request.specs))
