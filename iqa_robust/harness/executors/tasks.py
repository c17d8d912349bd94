"""Jobs -> tasks: a job with many images is cut into shards that several workers take, and a task that records it.

A shard is a run of whole batches, the same batches that one worker would form. So the cut changes no number, and a
lost worker costs the batch it had in hand.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.set_attack import SetAttack
from iqa_robust.attacks.trained_attack import TrainedAttack
from iqa_robust.datasets.base import Dataset
from iqa_robust.harness.components import make_attack
from iqa_robust.harness.execute import group_by_size
from iqa_robust.harness.executors.base import JobRequest

SHARD_IMAGES = 256
"""Images of a shard at most: minutes of work for an iterated attack, next to which handing it out is nothing."""
TASKS_PER_WORKER = 4
"""With fewer jobs than this per worker they are cut finer, so that the last worker is not waited for."""

Batches = tuple[tuple[str, ...], ...]
"""Image ids of whole batches."""


@dataclass(frozen=True)
class Task:
    """What one worker does at one go: a whole job, a shard of it, or the records of a job whose shards are done."""

    request: JobRequest
    batches: Batches | None = None
    """The shard; None for a whole job and for the records."""
    images: int = 0
    """How many images this task advances the job by."""
    after: tuple[int, ...] = ()
    """Tasks that must be done first, by their place in the list: the shards of the same job."""


@dataclass
class Cut:
    """The batches of a dataset, found when first needed: the sizes of all images have to be read for it."""

    dataset: Dataset
    batch_size: int
    _batches: list[tuple[str, ...]] = field(default_factory=list)

    def shards(self, wanted: int) -> list[Batches]:
        """At most `wanted` runs of whole batches, of as many batches each as can be."""
        if not self._batches:
            by_size, _ = group_by_size(self.dataset, self.dataset.rows())
            for rows in by_size.values():
                ids = [row.image_id for row in rows]
                self._batches += [tuple(ids[i : i + self.batch_size]) for i in range(0, len(ids), self.batch_size)]
        n = min(wanted, len(self._batches))
        edges = [round(i * len(self._batches) / n) for i in range(n + 1)] if n else []
        return [tuple(self._batches[i:j]) for i, j in pairwise(edges)]


def cut(requests: Sequence[JobRequest], dataset: Dataset, workers: int) -> list[Task]:
    """The tasks of jobs on `dataset` for so many workers, in the order they are to be begun."""
    images = len(dataset)
    parts = max(math.ceil(images / SHARD_IMAGES), math.ceil(TASKS_PER_WORKER * workers / max(1, len(requests))))
    cuts: dict[int, Cut] = {}
    tasks: list[Task] = []
    for request in requests:
        shards: list[Batches] = []
        if workers > 1 and parts > 1 and can_be_cut(make_attack(request.specs[0].attack)):
            shards = cuts.setdefault(request.batch_size, Cut(dataset, request.batch_size)).shards(parts)
        tasks += _tasks(request, shards if len(shards) > 1 else [], images, len(tasks))
    return tasks


def can_be_cut(attack: Attack) -> bool:
    """Whether images can be attacked apart from each other.

    An attack that plans for the whole set, or learns first, would do that once per shard, and what rounding changes in
    a plan or a fit on another device would change every image.
    """
    return not isinstance(attack, (SetAttack, TrainedAttack))


def _tasks(request: JobRequest, shards: list[Batches], images: int, start: int) -> Iterator[Task]:
    sizes = [sum(map(len, batches)) for batches in shards]
    for batches, size in zip(shards, sizes, strict=True):
        yield Task(request, batches, size)
    yield Task(request, None, images - sum(sizes), tuple(range(start, start + len(shards))))
