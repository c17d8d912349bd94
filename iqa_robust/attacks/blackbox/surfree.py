"""SurFree, a decision-based search without gradients (Maho, Furon, Le Merrer, CVPR 2021), for one image."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator
from dataclasses import dataclass, field

import torch

from iqa_robust.models.randomness import ImageRNG

Dialogue = Generator[torch.Tensor, torch.Tensor, torch.Tensor]
"""Yields candidates (1, 3, H, W), is sent their values (1,), returns an image (3, H, W)."""

Answer = Generator[torch.Tensor, torch.Tensor, bool]

DIRECTIONS = 10
"""Earlier directions that a new one is orthogonal to."""
WIDEST = math.radians(30)
"""The first angle that is tried."""
WIDENING = 0.98
"""The angle shrinks by this factor where it fails and grows by it where it succeeds."""
BISECTIONS = 10
CLOSE = 0.01
"""Bisection of an angle ends where the cosines differ by less."""
PATIENCE = 80
"""Directions without success after which the search ends."""


@dataclass
class SurFree:
    """Pulls an image toward `source` while its value stays above `threshold`.

    The image moves on circles through itself and the source, in planes spanned by the way to the source and a random
    direction, which is orthogonal to the last ones. Directions are random signs on the lower half of the frequencies
    of the cosine transform.
    """

    source: torch.Tensor
    """(3, H, W)."""
    threshold: float
    limit: Callable[[torch.Tensor], torch.Tensor]
    """Makes a candidate (3, H, W) an allowed one."""
    rng: ImageRNG
    """Of this one image."""
    steps: int = 10
    queries: int = 100
    """Evaluations after which the search ends."""
    value: float = field(default=-math.inf, init=False)
    """Of the image that `pull` returns."""

    def __post_init__(self) -> None:
        self._left = self.queries

    def pull(self, found: torch.Tensor, value: float) -> Dialogue:
        """The image closest to the source, (3, H, W), starting at one above the threshold."""
        self.value = value
        best = yield from self._straight(found)
        directions: list[torch.Tensor] = []
        widest = WIDEST
        for _ in range(self.steps):
            for _ in range(PATIENCE):
                if self._left < 1:
                    return best
                # Last of all orthogonal to the way itself: that is what makes every turn come closer to the source.
                direction = self._direction([*directions, _unit(best - self.source)])
                directions = [*directions[1 - DIRECTIONS :], direction]
                moved, widest = yield from self._turn(best, direction, widest)
                if moved is not None:
                    best = moved
                    break
            else:
                return best
        return (yield from self._straight(best))

    def _holds(self, candidate: torch.Tensor) -> Answer:
        """Whether the candidate, already an allowed one, is above the threshold; remembers its value if it is."""
        self._left -= 1
        value = (yield candidate[None])[0].item()
        if value > self.threshold:
            self.value = value
        return value > self.threshold

    def _straight(self, found: torch.Tensor) -> Dialogue:
        """The point of the line to the source that is closest to it; a long step first, then bisection."""
        near, best = self.source, found
        boost = self.limit(0.2 * self.source + 0.8 * found)
        if (yield from self._holds(boost)):
            best = boost
        else:
            near = boost
        low, high, end = 0.0, 1.0, best
        for _ in range(BISECTIONS):
            if self._left < 1:
                break
            middle = (low + high) / 2
            candidate = self.limit((1 - middle) * near + middle * end)
            if (yield from self._holds(candidate)):
                high, best = middle, candidate
            else:
                low = middle
        return best

    def _turn(
        self, best: torch.Tensor, direction: torch.Tensor, widest: float
    ) -> Generator[torch.Tensor, torch.Tensor, tuple[torch.Tensor | None, float]]:
        """The farthest turn toward the source in the plane of `direction`, or None; and the next angle to try."""

        def at(angle: float) -> torch.Tensor:
            way = best - self.source
            turned = math.cos(angle) * way + math.sin(angle) * way.norm() * direction
            return self.limit(self.source + math.cos(angle) * turned)

        for sign in (1.0, -1.0):
            if self._left < 1:
                return None, widest
            candidate = at(sign * widest)
            if (yield from self._holds(candidate)):
                break
        else:
            return None, widest * WIDENING
        moved, low, high = candidate, widest, min(2 * widest, math.pi / 2)
        while self._left >= 1 and high < math.pi / 2:
            candidate = at(sign * high)
            if not (yield from self._holds(candidate)):
                break
            moved, low, high = candidate, high, min(high + widest, math.pi / 2)
        for _ in range(BISECTIONS):
            if self._left < 1 or abs(math.cos(low) - math.cos(high)) <= CLOSE:
                break
            middle = (low + high) / 2
            candidate = at(sign * middle)
            if (yield from self._holds(candidate)):
                moved, low = candidate, middle
            else:
                high = middle
        return moved, widest / WIDENING

    def _direction(self, others: list[torch.Tensor]) -> torch.Tensor:
        """A random direction of length one, orthogonal to the others."""
        _, H, W = self.source.shape
        rows, columns = (torch.arange(side, device=self.source.device) for side in (H, W))
        low = rows.view(-1, 1) / H + columns / W < 1  # half of the frequencies
        spectrum = (self.rng.integers(-1, 2, (3, H, W))[0] * low).to(self.source)
        direction = _cosines(H, self.source).T @ spectrum @ _cosines(W, self.source)
        for other in others:
            direction = direction - (direction * other).sum() * other
        return _unit(direction)


def _unit(values: torch.Tensor) -> torch.Tensor:
    return values / values.norm().clamp_min(1e-12)


def _cosines(length: int, like: torch.Tensor) -> torch.Tensor:
    """(length, length) the orthonormal basis of the cosine transform (DCT-II), a row per frequency."""
    places = torch.arange(length, device=like.device, dtype=torch.float64)
    basis = torch.cos(math.pi / length * (places + 0.5) * places.view(-1, 1)) * math.sqrt(2 / length)
    basis[0] /= math.sqrt(2)
    return basis.to(like.dtype)
