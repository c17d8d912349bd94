"""Time, strength and memory of the contenders on one network and one attack."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from contenders import AS_STRONG, CONTENDERS, FLOOR, OURS, those_for
from task import Task

from iqa_robust.attacks.norms import snap
from iqa_robust.models.base import IQAModel


@dataclass(frozen=True)
class Line:
    """What one contender needed and reached."""

    network: str
    attack: str
    contender: str
    images: int
    seconds: float
    """Of its fastest run, by the clock."""
    ratio: float
    """Its seconds over ours."""
    cpu_ratio: float
    """The same of the processor's time, which other work on the machine changes less."""
    shift: float
    """Mean score less clean score, fp32, of images on the 8-bit grid; NaN for the floor, which attacks nothing."""
    memory_mb: float
    """Peak of what the attack adds to a fresh process, MiB; NaN where it was not measured."""


def lines(
    network: str,
    model: IQAModel,
    x: torch.Tensor,
    task: Task,
    repeats: int,
    memory: Mapping[str, float],
    done: Callable[[], None] = lambda: None,
) -> list[Line]:
    """One line per contender; `memory` are their peaks, `done` is called after every run.

    After the first round it is known what the libraries reach. Those of `AS_STRONG` then join, with the least that
    reaches it.
    """
    runs = {name: _run(name, model, task, x) for name in those_for(task.attack)}
    first, found = alternate(runs, 1, done)
    shifts = {name: shift(model, x, images, task.eps) for name, images in found.items() if name != FLOOR}
    libraries = [reached for name, reached in shifts.items() if CONTENDERS[name].needs]
    less = least(model, x, task, max(libraries)) if libraries else task
    late = {} if less.title == task.title else {name: _run(of, model, less, x) for name, of in AS_STRONG.items()}
    second, found = alternate(late, 1, done)
    shifts |= {name: shift(model, x, images, task.eps) for name, images in found.items()}
    others, _ = alternate(runs | late, repeats - 1, done)
    taken = {name: others[name].shorter((first | second)[name]) for name in others}
    return [
        Line(
            network=network,
            attack=(less if name in late else task).title,
            contender=name,
            images=len(x),
            seconds=taken[name].wall,
            ratio=taken[name].wall / taken[OURS].wall,
            cpu_ratio=taken[name].cpu / taken[OURS].cpu,
            shift=shifts.get(name, math.nan),
            memory_mb=memory.get(name, math.nan),
        )
        for name in taken
    ]


def least(model: IQAModel, x: torch.Tensor, task: Task, aim: float) -> Task:
    """The task with the fewest tenths of its steps or queries with which ours reaches the shift `aim`, or itself.

    Found by halving, so one tenth less was tried and did not reach it.
    """
    tenths = [] if task.attack == "fgsm" else [task.tenths(count) for count in range(1, 10)]

    def reaches(less: Task) -> bool:
        return shift(model, x, _run(OURS, model, less, x)(), task.eps) >= aim

    return [*tenths, task][bisect_left(tenths, True, key=reaches)]


class Seconds(NamedTuple):
    """The shortest of several runs: other work only slows one down."""

    wall: float = math.inf
    """By the clock."""
    cpu: float = math.inf
    """Of the processor, all threads together."""

    def shorter(self, other: Seconds) -> Seconds:
        """Of both, the less by the clock and the less of the processor."""
        return Seconds(*map(min, self, other))


def alternate(
    runs: Mapping[str, Callable[[], torch.Tensor]], repeats: int, done: Callable[[], None] = lambda: None
) -> tuple[dict[str, Seconds], dict[str, torch.Tensor]]:
    """The shortest of `repeats` runs of each, and what the last one returned.

    They take turns, and each round begins with another, so that a machine that slows down slows all of them.
    """
    names = list(runs)
    seconds = dict.fromkeys(names, Seconds())
    found: dict[str, torch.Tensor] = {}
    for repeat in range(repeats if names else 0):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = runs[name]()
            seconds[name] = seconds[name].shorter(Seconds(time.perf_counter() - wall, time.process_time() - cpu))
            done()
    return seconds, found


@torch.no_grad()
def shift(model: IQAModel, clean: torch.Tensor, attacked: torch.Tensor, eps: float) -> float:
    """Mean shift in fp32 after rounding to the 8-bit grid inside the ball: one judge for all."""
    return float((model(snap(attacked, clean, "linf", eps)) - model(clean)).mean())


def peak_memory(contender: str, network: str, task: Task, images: int, side: int, threads: int) -> float:
    """MiB that the attack adds to a fresh process, at its peak; NaN where the system does not say (not on Linux)."""
    given = [
        contender,
        network,
        task.attack,
        task.eps_255,
        task.steps,
        task.queries,
        task.precision,
        images,
        side,
        threads,
    ]
    command = [sys.executable, str(Path(__file__).with_name("peak.py")), *map(str, given)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise RuntimeError(f"{contender} on {network}, {task.title}: {ended.stderr.strip()}")
    return float(ended.stdout.splitlines()[-1])


def _run(name: str, model: IQAModel, task: Task, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    attack = CONTENDERS[name].make(model, task, x)
    return lambda: attack(x.clone())
