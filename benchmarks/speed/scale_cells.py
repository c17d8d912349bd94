"""What many small cells cost beside their work: `python benchmarks/speed/scale_cells.py --folder OUT --workers 2`.

A thousand cells that differ in their seed: random noise on four small photographs. Every worker runs with one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from iqa_robust.harness.executors.base import Executor, Silent
from iqa_robust.harness.executors.here import Here
from iqa_robust.harness.executors.processes import Processes
from iqa_robust.harness.executors.ray_actors import RayActors
from iqa_robust.harness.plan import make_plan
from iqa_robust.harness.run import run
from iqa_robust.harness.track import Track
from iqa_robust.records import RunRecord


class Watch(Silent):
    """Notes when cells are finished and how long each took its worker."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.seconds: list[float] = []

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Look at the clock."""
        self.times += [time.perf_counter()] * len(records)
        self.seconds += [record.seconds for record in records]


def main() -> None:
    """Run the cells, print the share of the workers' time that was not a cell's."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    asked = parser.parse_args()
    track = Track.model_validate(
        {
            "name": "small-cells",
            "version": 1,
            "title": "Small cells",
            "seeds": list(range(asked.cells)),
            "dataset": {"name": "photos", "params": {"split": "test", "limit": 4, "crop": asked.crop}},
            "models": [{"name": "ssim", "score_range": [0.0, 1.0]}],
            "attacks": [{"name": "noise"}],
        }
    )
    torch.set_num_threads(1)
    workers = asked.workers
    executor: Executor = Here() if workers == 1 else Processes(workers, threads=1)
    if asked.executor == "ray":
        executor = RayActors(workers, threads=1)
    watch, start = Watch(), time.perf_counter()
    plan = make_plan(track)
    planned = time.perf_counter()
    run(plan, asked.folder, device="cpu", executor=executor, listener=watch)
    ended = time.perf_counter()
    # From the moment every worker has finished its first cell, so that their start does not count.
    wall = watch.times[-1] - watch.times[workers - 1]
    work = sum(watch.seconds[workers:])
    print(
        f"{asked.cells} cells, {asked.executor}, {workers} workers:"
        f" {1000 * work / (asked.cells - workers):.1f} ms a cell, overhead {100 * (workers * wall / work - 1):.1f} %;"
        f" plan {planned - start:.1f} s, cells {watch.times[-1] - planned:.1f} s, flags {ended - watch.times[-1]:.1f} s"
    )


if __name__ == "__main__":
    main()
