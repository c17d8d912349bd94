"""What is known of a model's clean images from earlier attacks, so that no pass is made twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from iqa_robust.models.randomness import content_seeds, derive_seed

ROOM = 32 * 2**20
"""Bytes of slopes: those of some dozen images of a usual crop. The memory of a run must not grow with its images."""


def keys_of(seeds: Sequence[int], ref: torch.Tensor | None) -> list[int]:
    """What clean images are known by: seeds, which name content and draws, and the content of their references."""
    if ref is None:
        return list(seeds)
    return [derive_seed(seed, other) for seed, other in zip(seeds, content_seeds(ref, 0), strict=True)]


class Known:
    """Clean scores and slopes of one model, by the keys of `keys_of`.

    A slope is that of the score, in native units, so it serves every goal. What attacks spend is counted as if they
    had made the pass themselves: a budget is what an attacker needs, not what a benchmark saves.
    """

    def __init__(self, room: int = ROOM) -> None:
        """`room`: bytes of slopes to keep."""
        self._room = room
        self._scores: dict[int, float] = {}
        self._slopes: dict[int, torch.Tensor] = {}

    def scores(self, keys: Sequence[int], compute: Callable[[], torch.Tensor]) -> torch.Tensor:
        """(N,) clean scores, float32; computed for the whole batch where one is missing."""
        if any(key not in self._scores for key in keys):
            found = compute()
            self._scores.update(zip(keys, found.tolist(), strict=True))
            return found
        return torch.tensor([self._scores[key] for key in keys])

    def slopes(self, keys: Sequence[int]) -> torch.Tensor | None:
        """(N, 3, H, W) slopes of the score at the clean images, or None where one is missing."""
        if any(key not in self._slopes for key in keys):
            return None
        return torch.stack([self._slopes[key] for key in keys])

    @property
    def has_slopes(self) -> bool:
        """Whether any slope is kept."""
        return bool(self._slopes)

    def drop_slopes(self) -> None:
        """Make room for the slopes of other models."""
        self._room += sum(slope.nbytes for slope in self._slopes.values())
        self._slopes.clear()

    def keep_slopes(self, keys: Sequence[int], slopes: torch.Tensor) -> None:
        """Keep slopes (N, 3, H, W) while there is room; what came first stays."""
        for key, slope in zip(keys, slopes, strict=True):
            if key not in self._slopes and slope.nbytes <= self._room:
                self._slopes[key] = slope.clone()
                self._room -= slope.nbytes
