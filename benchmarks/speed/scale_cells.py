"""What it costs to hand out a cell: `python benchmarks/speed/scale_cells.py --workers 2 --executor local`.

A thousand tasks without images go through the schedule and the workers as cells do: pickled, sent, their model
and dataset looked up or made, answered. What is left is what a cell costs beside its work.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

from iqa_robust.harness.executors import processes, ray_actors
from iqa_robust.harness.executors.base import Executor, Silent
from iqa_robust.harness.executors.processes import Processes
from iqa_robust.harness.executors.ray_actors import RayActors
from iqa_robust.harness.executors.schedule import Crew, work_through
from iqa_robust.harness.executors.tasks import Task
from iqa_robust.harness.plan import make_plan
from iqa_robust.harness.run import run
from iqa_robust.harness.track import Track


def main() -> None:
    """Hand out the tasks, print milliseconds for each."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the run")
    asked = parser.parse_args()
    track = Track.model_validate(
        {
            "name": "empty-cells",
            "version": 1,
            "title": "Cells without images",
            "seeds": list(range(asked.cells)),
            "dataset": {"name": "photos", "params": {"split": "test", "limit": 4, "crop": 96}},
            "models": [{"name": "ssim", "score_range": [0.0, 1.0]}],
            "attacks": [{"name": "noise"}],
        }
    )
    spans: list[float] = []

    def measured(tasks: Sequence[Task], crew: Crew, listener: object) -> None:
        empty = [Task(task.request, batches=()) for task in tasks]
        work_through(empty[: asked.workers], crew, Silent())  # every worker has started and made its model
        start = time.perf_counter()
        work_through(empty, crew, Silent())
        spans.append(time.perf_counter() - start)

    processes.work_through = ray_actors.work_through = measured
    executor: Executor = RayActors(asked.workers, 1) if asked.executor == "ray" else Processes(asked.workers, 1)
    run(make_plan(track), asked.folder, device="cpu", executor=executor)
    print(
        f"{asked.cells} cells, {asked.executor}, {asked.workers} workers: {spans[0]:.2f} s,"
        f" {1000 * spans[0] * asked.workers / asked.cells:.2f} ms of a worker's time for each"
    )


if __name__ == "__main__":
    main()
