"""Time, strength and memory of the contenders on one network and one attack."""

from __future__ import annotations

import math
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from contenders import FLOOR, OURS, those_for
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
    """One line per contender; `memory` are their peaks, `done` is called after every run."""
    attacks = {name: who.make(model, task, x) for name, who in those_for(task.attack).items()}
    runs = {name: _bound(attack, x) for name, attack in attacks.items()}
    taken, found = alternate(runs, repeats, done)
    return [
        Line(
            network=network,
            attack=task.title,
            contender=name,
            images=len(x),
            seconds=taken[name].wall,
            ratio=taken[name].wall / taken[OURS].wall,
            cpu_ratio=taken[name].cpu / taken[OURS].cpu,
            shift=math.nan if name == FLOOR else shift(model, x, found[name], task.eps),
            memory_mb=memory.get(name, math.nan),
        )
        for name in runs
    ]


class Seconds(NamedTuple):
    """The shortest of several runs: other work only slows one down."""

    wall: float = math.inf
    """By the clock."""
    cpu: float = math.inf
    """Of the processor, all threads together."""


def alternate(
    runs: Mapping[str, Callable[[], torch.Tensor]], repeats: int, done: Callable[[], None] = lambda: None
) -> tuple[dict[str, Seconds], dict[str, torch.Tensor]]:
    """The shortest of `repeats` runs of each, and what the last one returned.

    They take turns, and each round begins with another, so that a machine that slows down slows all of them.
    """
    names = list(runs)
    seconds = dict.fromkeys(names, Seconds())
    found: dict[str, torch.Tensor] = {}
    for repeat in range(repeats):
        first = repeat % len(names)
        for name in names[first:] + names[:first]:
            wall, cpu = time.perf_counter(), time.process_time()
            found[name] = runs[name]()
            took = (time.perf_counter() - wall, time.process_time() - cpu)
            seconds[name] = Seconds(*map(min, seconds[name], took))
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


def _bound(attack: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: attack(x.clone())
