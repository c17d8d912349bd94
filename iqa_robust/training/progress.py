"""What a training tells whoever watches it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Progress:
    """Where a training is. `stage` says what is being done: `label`, `poison`, `start`, `train`, `validate`, `attack`,
    `test`, or `search`."""

    stage: str
    done: int
    total: int
    """Batches (`start`, `train`, `search`) or images (the other stages) done and to do; in `train` of this epoch."""
    epoch: int = 0
    """From 1; 0 before the first."""
    epochs: int = 0
    rate: float = 0.0
    """Images per second."""
    seconds_left: float = float("nan")
    """To the end of the training, by the rate so far; NaN while unknown."""
    loss: float = float("nan")
    """Mean over the epoch so far."""
    validation: Mapping[str, float] = field(default_factory=dict)
    """Measures of the last finished epoch on the validation part (`srocc`, `plcc`, or `psnr_gain`)."""


Listener = Callable[[Progress], None]


def silent(progress: Progress) -> None:
    """A listener that ignores everything."""


class Clock:
    """Images per second since it was made."""

    def __init__(self) -> None:
        self._start = time.monotonic()
        self.images = 0

    def rate(self) -> float:
        """Images per second, 0 before the first."""
        return self.images / max(time.monotonic() - self._start, 1e-6)
