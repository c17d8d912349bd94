"""What is known of a model's clean images from earlier attacks, so that no pass is made twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

ROOM = 32 * 2**20
"""Bytes of slopes: those of some dozen images of a usual crop. The memory of a run must not grow with its images."""


class Known:
    """Clean scores and slopes of one model, by the seed that names an image's content and draws.

    A slope is that of the score, in native units, so it serves every goal. What attacks spend is counted as if they
    had made the pass themselves: a budget is what an attacker needs, not what a benchmark saves.
    """

    def __init__(self, room: int = ROOM) -> None:
        """`room`: bytes of slopes to keep."""
        self._room = room
        self._scores: dict[int, float] = {}
        self._slopes: dict[int, torch.Tensor] = {}

    def scores(self, seeds: Sequence[int], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """(N,) clean scores, float32; computed for the whole batch where one is missing."""
        if any(seed not in self._scores for seed in seeds):
            found = compute()
            self._scores.update(zip(seeds, found.tolist(), strict=True))
            return found
        return torch.tensor([self._scores[seed] for seed in seeds])

    def slopes(self, seeds: Sequence[int]) -> torch.Tensor | None:
        """(N, 3, H, W) slopes of the score at the clean images, or None where one is missing."""
        if any(seed not in self._slopes for seed in seeds):
            return None
        return torch.stack([self._slopes[seed] for seed in seeds])

    def keep_slopes(self, seeds: Sequence[int], slopes: torch.Tensor) -> None:
        """Keep slopes (N, 3, H, W) while there is room; what came first stays."""
        for seed, slope in zip(seeds, slopes, strict=True):
            if seed not in self._slopes and slope.nbytes <= self._room:
                self._slopes[seed] = slope.clone()
                self._room -= slope.nbytes
