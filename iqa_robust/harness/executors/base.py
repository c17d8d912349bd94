"""What every executor is given and what it tells: job requests, a listener, and the contract itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from iqa_robust.datasets.base import Dataset
from iqa_robust.harness.plan import cell_title
from iqa_robust.harness.precision import Precision
from iqa_robust.records import Place, RunRecord, RunSpec


class Listener(Protocol):
    """Told what a run is doing; the command line draws progress from it."""

    def chose(self, model: str, precision: Precision) -> None:
        """The model of this title is attacked in this precision."""

    def started(self, cells: int, skipped: int, images: int) -> None:
        """So many cells are to run, so many were there already; `images` counts one per cell and image."""

    def advanced(self, title: str, images: int) -> None:
        """A batch of the named cell is finished."""

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Cells are recorded. Records from another process come without their images."""

    def lost(self, title: str) -> None:
        """The worker that ran the named cell died; another takes over what it had not finished."""


class Silent:
    """A listener that draws nothing."""

    def chose(self, model: str, precision: Precision) -> None:
        """Draw nothing."""

    def started(self, cells: int, skipped: int, images: int) -> None:
        """Draw nothing."""

    def advanced(self, title: str, images: int) -> None:
        """Draw nothing."""

    def finished(self, records: Sequence[RunRecord]) -> None:
        """Draw nothing."""

    def lost(self, title: str) -> None:
        """Draw nothing."""


@dataclass(frozen=True)
class JobRequest:
    """Everything a worker needs to run the cells of one job. The driver decides it; a worker decides nothing."""

    specs: tuple[RunSpec, ...]
    out: Place
    data_root: Place | None
    device: str
    batch_size: int
    limited: bool
    precision: Precision

    @property
    def title(self) -> str:
        """What a progress bar shows."""
        return cell_title(self.specs[0])


class Executor(Protocol):
    """Runs jobs. The records are in the folder of each request afterwards, whoever ran them and how often."""

    @property
    def workers(self) -> int | None:
        """How many; None for as many as there is room for."""

    def run(self, requests: Sequence[JobRequest], dataset: Dataset, listener: Listener) -> None:
        """Run every job. `dataset` is that of all specs.

        Raises:
            StorageError: results cannot be written.
            WorkerError: workers cannot be kept up. A job that ends its workers is recorded as failed instead.
        """
