"""What it costs to hand out a cell: `python benchmarks/speed/scale_cells.py --folder OUT --workers 2 --executor local`.

A thousand tasks without images go through the schedule and the workers as cells do: pickled, sent, their model
and dataset looked up or made, answered. What is left is what a cell costs beside its work.

Then the thousand cells themselves are run, from the first task handed out to the last answer, once every worker has
made its model. Work is what a worker does inside a task: it makes the attack, reads, probes, attacks and scores the
images, keeps them as a part, and writes the record. Overhead is the rest of the workers' time, that is the schedule,
pickling and waiting, and every second that the driver computes, since it takes a core from a worker. A second share
counts as work only the `seconds` of the records, which begin when the attack is made and end before the record is
written. The whole run adds the plan, the start of the workers, flags, board and report.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from iqa_robust.harness.executors import processes, ray_actors
from iqa_robust.harness.executors.base import Executor, Silent
from iqa_robust.harness.executors.processes import Processes
from iqa_robust.harness.executors.ray_actors import RayActors
from iqa_robust.harness.executors.schedule import Crew, Event, Finished, work_through
from iqa_robust.harness.executors.tasks import Task
from iqa_robust.harness.plan import make_plan
from iqa_robust.harness.run import run
from iqa_robust.harness.track import Track
from iqa_robust.records import RunRecord
from iqa_robust.tables.board import board
from iqa_robust.tables.report import write_report
from iqa_robust.tables.write import write_board


class Watched:
    """A crew that adds up the seconds of its tasks."""

    def __init__(self, crew: Crew) -> None:
        self.free, self.start, self._crew = crew.free, crew.start, crew
        self.seconds = 0.0

    def events(self) -> Iterator[Event]:
        """Those of the crew."""
        for event in self._crew.events():
            self.seconds += event.done.seconds if isinstance(event, Finished) else 0.0
            yield event


class Measured(Silent):
    """Takes the place of `work_through`, and hears of the records as its listener."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.empty = self.real = self.driver = self.tasks = self.cells = 0.0
        """Seconds: of both rounds; that the driver computed in the second; inside its tasks, and as its records say."""

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Add up the seconds of cells."""
        self.cells += sum(record.seconds for record in records)

    def work_through(self, tasks: Sequence[Task], crew: Crew, listener: object) -> None:
        """Hand out the tasks without images, then as they are."""
        empty = [Task(task.request, batches=()) for task in tasks]
        self._wait(crew, empty[0])
        start = time.perf_counter()
        work_through(empty, crew, Silent())
        self.empty = time.perf_counter() - start
        start, computed = time.perf_counter(), time.process_time()
        watched = Watched(crew)
        work_through(tasks, watched, self)
        self.real, self.driver = time.perf_counter() - start, time.process_time() - computed
        self.tasks = watched.seconds

    def _wait(self, crew: Crew, task: Task) -> None:
        """Until every worker has started and made its model: all have had a task in hand at the same moment."""
        taken = 0
        while taken < self.workers:
            taken = left = 0
            while crew.free():
                crew.start(0, task, 0.0)
                taken, left = taken + 1, left + 1
            while True:
                left -= sum(isinstance(event, Finished) for event in crew.events())
                if left <= 0:
                    break


def main() -> None:
    """Hand out the tasks, run the cells, print seconds and shares."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=1000)
    parser.add_argument("--attack", default="fgsm", help="%(default)s")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "ray"), default="local")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for the run")
    asked = parser.parse_args()
    if any(asked.folder.glob("*")):
        parser.error(f"--folder {asked.folder}: expected an empty folder, since finished cells are not run again.")
    track = Track.model_validate(
        {
            "name": "small-cells",
            "version": 1,
            "title": "Small cells",
            "seeds": list(range(asked.cells)),
            "dataset": {"name": "photos", "params": {"split": "test", "limit": 4, "crop": 96}},
            "models": [{"name": "compact"}],
            "attacks": [{"name": asked.attack}],
        }
    )
    measured = Measured(min(asked.workers, asked.cells))
    processes.work_through = ray_actors.work_through = measured.work_through
    executor: Executor = RayActors(asked.workers, 1) if asked.executor == "ray" else Processes(asked.workers, 1)
    start = time.perf_counter()
    records = run(make_plan(track), asked.folder, device="cpu", executor=executor, listener=measured)
    table = board(records)
    write_board(table, asked.folder / "board.csv")
    write_report(records, table, asked.folder / "report.html")
    whole = time.perf_counter() - start - measured.empty
    bad = sum(record.status != "ok" for record in records)
    if bad:
        raise SystemExit(f"{bad} of {len(records)} cells failed, so nothing is measured; see {asked.folder}.")

    def each(seconds: float) -> str:
        return f"{1000 * seconds / asked.cells:.1f} ms"

    def overhead(seconds: float, work: float) -> str:
        return f"{100 * (1 - (work - measured.driver) / (seconds * asked.workers)):.1f} %"

    who = f"{asked.executor}, {asked.workers} workers"
    print(
        f"{asked.cells} cells without images, {who}: {measured.empty:.2f} s,"
        f" {each(measured.empty * asked.workers)} of a worker's time for each"
    )
    print(
        f"{asked.cells} cells of 4 images, {asked.attack}, {who}: {measured.real:.1f} s,"
        f" {each(measured.real * asked.workers)} of a worker's time for each,"
        f" overhead {overhead(measured.real, measured.tasks)} (with the {measured.driver:.1f} s that the driver"
        f" computed); with writing records {overhead(measured.real, measured.cells)}"
    )
    print(f"the whole run: {whole:.1f} s, overhead {overhead(whole, measured.tasks)}")


if __name__ == "__main__":
    main()
