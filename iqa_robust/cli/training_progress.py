"""Progress of a training: the stage under way, rate, time left, and the measures of the last epoch."""

from __future__ import annotations

import math
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from iqa_robust.training.progress import Progress as Step

_STAGES = {
    "label": "labeling",
    "poison": "poisoning",
    "search": "searching",
    "start": "fitting the head",
    "train": "training",
    "validate": "validating",
    "attack": "attacking",
    "test": "testing",
}


class TrainingProgress:
    """Draws one bar for the stage under way; callable, as `train` wants it."""

    def __init__(self, console: Console) -> None:
        """`console`: where to draw."""
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[rest]}", markup=False),
            console=console,
        )
        self._task = self._progress.add_task("starting", total=None, rest="")

    def __enter__(self) -> TrainingProgress:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def __call__(self, step: Step) -> None:
        """Show one step."""
        rest = [f"{step.rate:.1f} images/s"] if step.rate else []
        if math.isfinite(step.seconds_left):
            rest.append(f"{step.seconds_left / 60:.1f} min left")
        if math.isfinite(step.loss):
            rest.append(f"loss {step.loss:.4g}")
        rest += [f"{name} {value:.3f}" for name, value in step.validation.items()]
        epoch = f" epoch {step.epoch}/{step.epochs}" if step.epoch else ""
        self._progress.update(
            self._task,
            description=f"{_STAGES[step.stage]}{epoch}",
            completed=step.done,
            total=step.total,
            rest=" · ".join(rest),
        )
