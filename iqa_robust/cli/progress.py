"""Progress of a run: all cells, and the one under way, with rate and time left."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from iqa_robust.harness.precision import Precision
from iqa_robust.records import RunRecord


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}/s", style="progress.data.speed")


class RunProgress:
    """A `Listener` that draws two bars and a line per failed cell."""

    def __init__(self, console: Console) -> None:
        """`console`: where to draw."""
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=120,
        )
        self._images: TaskID | None = None
        self._cells: TaskID | None = None

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def chose(self, model: str, precision: Precision) -> None:
        """Say in which arithmetic attacks search, and why."""
        self._console.print(f"{model}: {precision.summary}", style="dim", markup=False, highlight=False)

    def started(self, cells: int, skipped: int, images: int) -> None:
        """Draw the bars, or say that nothing is left to do."""
        if skipped:
            self._console.print(f"{skipped} cells are finished already")
        if cells:
            self._cells = self._progress.add_task("cells", total=cells)
            self._images = self._progress.add_task("starting", total=images)

    def advanced(self, title: str, images: int) -> None:
        """Move the bar of images."""
        if self._images is not None:
            self._progress.update(self._images, advance=images, description=title)

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Move the bar of cells, and name the cells that failed."""
        for record in records:
            if self._cells is not None:
                self._progress.advance(self._cells)
            if record.status == "failed":
                self._console.print(f"failed: {record.digest}: {record.reason}", style="red", markup=False)

    def lost(self, title: str) -> None:
        """Say that a worker died."""
        self._console.print(f"a worker died over {title}", style="yellow", markup=False)
