"""One worker: this process."""

from __future__ import annotations

from collections.abc import Sequence

from iqa_robust.datasets.base import Dataset
from iqa_robust.harness.executors.base import JobRequest, Listener
from iqa_robust.harness.executors.tasks import cut
from iqa_robust.harness.executors.worker import Worker


class Here:
    """Runs jobs one after the other in this process."""

    workers = 1

    def run(self, requests: Sequence[JobRequest], dataset: Dataset, listener: Listener) -> None:
        """Run every job."""
        worker = Worker()
        for task in cut(requests, dataset, workers=1):

            def advanced(images: int, request: JobRequest = task.request) -> None:
                listener.advanced(request.title, images * len(request.specs))

            listener.finished(worker.run(task, 0.0, advanced).records)
