"""A part of a plan's jobs, for schedulers that start the same command many times, such as an array of SLURM."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from iqa_robust.errors import RequestError
from iqa_robust.harness.components import make_attack
from iqa_robust.records import RunSpec

Job = tuple[RunSpec, ...]
"""Cells that share an attack."""
BACKWARD = 2
"""A backward pass in forward passes."""
SCORED = 3
"""Forward passes per image and cell that are not the attack's."""


@dataclass(frozen=True)
class Shard:
    """Shard `index` of `count`, counted from 1."""

    index: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read `i/n`. Raises `RequestError`."""
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise RequestError(f"--shard: expected i/n with 1 <= i <= n, such as 2/8, got {text!r}.")
        return cls(int(found[1]), int(found[2]))

    def __str__(self) -> str:
        return f"{self.index}/{self.count}"


def of_shard(jobs: Sequence[Job], shard: Shard) -> list[Job]:
    """The jobs of a shard, in the order of the plan; the same on every machine, and each job in one shard.

    Jobs are dealt out like cards from a deck that is sorted by model and by the passes an attack needs, so that every
    shard gets its share of each model's dear and cheap jobs. A job goes whole: cells that share an attack share its
    images, and a shard leaves finished records behind.
    """
    models = {repr(job[0].model): place for place, job in reversed(list(enumerate(jobs)))}
    deck = sorted(range(len(jobs)), key=lambda i: (models[repr(jobs[i][0].model)], -passes(jobs[i]), i))
    return [jobs[i] for i in sorted(deck[shard.index - 1 :: shard.count])]


def passes(job: Job) -> float:
    """Forward passes per image that a job is expected to take, whatever one takes its model."""
    spec = job[0]
    queries, gradients = make_attack(spec.attack).cost(spec.budget, spec.goal)
    return queries + BACKWARD * gradients + SCORED * len(job)
