"""Several workers on one machine: processes, each with its GPU where there are GPUs."""

from __future__ import annotations

import multiprocessing
import signal
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import IqaRobustError
from iqa_robust.harness.executors.base import JobRequest, Listener
from iqa_robust.harness.executors.schedule import WAIT_SECONDS, Event, Finished, Lost, Progress, work_through
from iqa_robust.harness.executors.tasks import Task, cut
from iqa_robust.harness.executors.worker import Worker


class Processes:
    """Runs jobs in processes of this machine; on CUDA, process i works on GPU i modulo the number of GPUs."""

    def __init__(self, workers: int, threads: int) -> None:
        """`workers`: how many processes. `threads`: of torch in each of them."""
        self.workers, self.threads = workers, threads

    def run(self, requests: Sequence[JobRequest], dataset: Dataset, listener: Listener) -> None:
        """Run every job."""
        tasks = cut(requests, dataset, self.workers)
        if not tasks:
            return
        crew = _Processes(min(self.workers, len(tasks)), self.threads, requests[0].device)
        try:
            work_through(tasks, crew, listener)
        finally:
            crew.stop()


@dataclass
class _Process:
    process: BaseProcess
    pipe: Connection
    number: int | None = None
    """The task it works on."""


class _Processes:
    """A crew of processes, each at the end of a pipe of its own."""

    def __init__(self, workers: int, threads: int, device: str) -> None:
        self._context = multiprocessing.get_context("spawn")
        self._threads, self._device = threads, device
        self._all = [self._spawn(place) for place in range(workers)]

    def _spawn(self, place: int) -> _Process:
        here, there = self._context.Pipe()
        # A daemon in multiprocessing's sense: it ends when this process does.
        process = self._context.Process(
            target=serve, args=(there, place, self._threads, self._device), daemon=True, name=f"iqa-robust-{place}"
        )
        process.start()
        there.close()  # or its end would stay open here, and a death would go unnoticed
        return _Process(process, here)

    def free(self) -> bool:
        """Whether a process has nothing to do."""
        return any(one.number is None for one in self._all)

    def start(self, number: int, task: Task, spent: float) -> None:
        """Send a task to a free process."""
        one = next(one for one in self._all if one.number is None)
        one.number = number
        with suppress(OSError):  # it died: the pipe tells, and the task is given to its successor
            one.pipe.send((number, task, spent))

    def events(self) -> Iterator[Event]:
        """News from all pipes. Raises what a task raised."""
        ready = set(wait([one.pipe for one in self._all], timeout=WAIT_SECONDS))
        for place, one in enumerate(self._all):
            while one.pipe in ready:
                try:
                    event = one.pipe.recv()
                    more = one.pipe.poll()
                except (EOFError, OSError):
                    self._all[place] = self._spawn(place)
                    one.process.join()
                    one.pipe.close()
                    if one.number is not None:
                        yield Lost(one.number)
                    break
                if isinstance(event, Exception):
                    raise event
                if isinstance(event, Finished):
                    one.number = None
                yield event
                if not more:
                    break

    def stop(self) -> None:
        """End all processes; what they had finished is in the store."""
        for one in self._all:
            one.process.terminate()
        for one in self._all:
            one.process.join()
            one.pipe.close()


def serve(pipe: Any, place: int, threads: int, device: str) -> None:
    """The life of a worker process: take a task, do it, say so, until the driver is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole terminal; the driver ends its workers
    torch.set_num_threads(threads)
    if device == "cuda":
        torch.cuda.set_device(place % torch.cuda.device_count())
    worker = Worker()
    while True:
        try:
            number, task, spent = pipe.recv()
        except (EOFError, OSError):
            return
        reached = 0

        def advanced(images: int, number: int = number) -> None:
            nonlocal reached
            reached += images
            _send(pipe, Progress(number, reached))

        try:
            event: Any = Finished(number, worker.run(task, spent, advanced))
        except IqaRobustError as error:
            event = error
        except Exception:
            event = RuntimeError(f"a worker process failed:\n{traceback.format_exc()}")
        _send(pipe, event)


def _send(pipe: Any, event: object) -> None:
    try:
        pipe.send(event)
    except OSError:
        raise SystemExit(1) from None  # the driver is gone, and what is finished is kept
