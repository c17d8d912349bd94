"""Memory of one attack, for `measure.peak_memory`, which starts this file in a fresh process."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from pathlib import Path

import torch
from contenders import CONTENDERS
from networks import network, pictures
from task import Task

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident(peak: bool) -> float:
    """MiB that the process holds, or has held at most since the last `reset`; NaN where the system does not say."""
    name = "VmHWM:" if peak else "VmRSS:"
    lines = STATUS.read_text().splitlines() if STATUS.is_file() else []
    return next((float(line.split()[1]) / 1024 for line in lines if line.startswith(name)), math.nan)


def reset() -> None:
    """Let the peak begin anew (Linux)."""
    if RESET.is_file():
        RESET.write_text("5")


def main(arguments: list[str]) -> None:
    """Make and run the attack once, and print the MiB it adds to the network, the images and the imported library."""
    contender, name, attack, eps_255, steps, queries, precision = arguments[:7]
    images, side, threads = map(int, arguments[7:])
    torch.set_num_threads(threads)
    task, who = Task(attack, float(eps_255), int(steps), int(queries), precision), CONTENDERS[contender]
    model, x = network(name, side), pictures(images, side)
    import_module(who.module)
    with torch.no_grad():
        model(x[:1])
    reset()
    before = resident(peak=False)
    who.make(model, task, x)(x)
    print(resident(peak=True) - before)


if __name__ == "__main__":
    main(sys.argv[1:])
