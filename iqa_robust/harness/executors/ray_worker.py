"""What lives in the processes of a Ray cluster: workers, and the actor that collects their progress."""

from __future__ import annotations

import contextlib
import traceback
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from iqa_robust.datasets.base import Dataset
from iqa_robust.errors import IqaRobustError
from iqa_robust.harness.executors.base import JobRequest
from iqa_robust.harness.executors.held import Block, HeldDataset
from iqa_robust.harness.executors.tasks import Task
from iqa_robust.harness.executors.worker import Done, Worker
from iqa_robust.models.base import IQAModel

KEPT_BLOCKS = 8
"""Blocks of images a worker has open; their pixels are in memory that all workers of a machine share."""


class News:
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
class Supplies:
    """References into the object store that a task needs; nested, so that Ray fetches none of them by itself."""

    outline: Any
    blocks: Mapping[int, Any]
    model: Any


class Supplied(Worker):
    """A worker that takes models and images from the object store, and keeps what it took for the next tasks."""

    def __init__(self, get: Any) -> None:
        super().__init__()
        self._get = get
        self._supplies: Supplies | None = None
        self._blocks: OrderedDict[int, Block] = OrderedDict()

    def take(self, supplies: Supplies) -> None:
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


class RayWorker:
    """What lives in a Ray worker process."""

    def __init__(self, threads: int, news: Any) -> None:
        import ray

        torch.set_num_threads(threads)
        self._ray, self._worker, self._news = ray, Supplied(ray.get), news

    def ping(self) -> None:
        """Answer, once the process is there."""

    def run(self, number: int, task: Task, spent: float, supplies: Supplies) -> Done | IqaRobustError | str | None:
        """Do a task; an error comes back as a value, since Ray would wrap it. None where Ray did not supply it."""
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
        except self._ray.exceptions.RayError:
            return None
        except Exception:
            return traceback.format_exc()
