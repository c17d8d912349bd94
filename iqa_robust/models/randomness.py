"""Randomness that belongs to an image, not to a batch.

A draw that came from one generator for a whole batch would change with the batch size and with the neighbors of an
image. Here every image has a generator of its own, so a batch of N gives what N batches of one give.

A randomized component asks `draws(n)` for its generators. Inside `with seeded(seeds)` they are the recorded ones;
outside they come from the operating system, so an unseeded randomized model really is random.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
from collections.abc import Iterator, Sequence
from contextvars import ContextVar

import torch

from iqa_robust.errors import ContractError

_current: ContextVar[ImageRNG | None] = ContextVar("iqa_robust_draws", default=None)
_searching: ContextVar[bool] = ContextVar("iqa_robust_searching", default=False)


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from any printable parts, the same on every machine and version of Python."""
    digest = hashlib.sha256("\x1f".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def content_seeds(x: torch.Tensor, seed: int) -> list[int]:
    """One seed per image of (N, 3, H, W) from its pixels and `seed`: independent of batch and order."""
    pixels = torch.round(x.detach() * 65535).to(torch.int32).cpu().contiguous()
    return [derive_seed(seed, hashlib.sha256(image.numpy().tobytes()).hexdigest()) for image in pixels]


class ImageRNG:
    """One `torch.Generator` per image of a batch; every method draws for all of them.

    Draws are made on the CPU and then moved, so that a GPU sees the same numbers.
    """

    def __init__(self, seeds: Sequence[int], device: torch.device | str = "cpu") -> None:
        """`seeds`: one per image."""
        self.seeds = list(seeds)
        self.device = torch.device(device)
        self._generators = [torch.Generator().manual_seed(seed) for seed in self.seeds]

    def __len__(self) -> int:
        return len(self._generators)

    def _stack(self, parts: list[torch.Tensor]) -> torch.Tensor:
        return torch.stack(parts).to(self.device)

    def uniform(self, shape: Sequence[int] = (), low: float = 0.0, high: float = 1.0) -> torch.Tensor:
        """(N, *shape) uniform in [low, high)."""
        drawn = self._stack([torch.rand(tuple(shape), generator=g) for g in self._generators])
        return low + (high - low) * drawn

    def normal(self, shape: Sequence[int] = ()) -> torch.Tensor:
        """(N, *shape) standard normal."""
        return self._stack([torch.randn(tuple(shape), generator=g) for g in self._generators])

    def integers(self, low: int, high: int, shape: Sequence[int] = ()) -> torch.Tensor:
        """(N, *shape) int64 in [low, high)."""
        return self._stack([torch.randint(low, high, tuple(shape), generator=g) for g in self._generators])

    def signs(self, shape: Sequence[int] = ()) -> torch.Tensor:
        """(N, *shape) of -1 and +1."""
        return self.integers(0, 2, shape).to(torch.float32) * 2 - 1

    def child(self, *parts: object) -> ImageRNG:
        """Generators derived from these ones' seeds and `parts`; does not advance them."""
        return ImageRNG([derive_seed(seed, *parts) for seed in self.seeds], self.device)

    def select(self, index: torch.Tensor) -> ImageRNG:
        """The generators of some of the images, shared with (and advanced together with) this object."""
        chosen = ImageRNG([], self.device)
        chosen.seeds = [self.seeds[i] for i in index.tolist()]
        chosen._generators = [self._generators[i] for i in index.tolist()]
        return chosen


@contextlib.contextmanager
def seeded(seeds: Sequence[int]) -> Iterator[None]:
    """Within the block, `draws` hands out generators of these seeds (one per image) to randomized components.

    Each component that asks gets the *same continuing* generators, so two randomized stages in a row differ.
    """
    token = _current.set(ImageRNG(seeds))
    try:
        yield
    finally:
        _current.reset(token)


def draws(n: int, device: torch.device | str = "cpu") -> ImageRNG:
    """The generators a randomized component must use for its batch of `n` images.

    Raises:
        ContractError: inside `seeded`, when `n` is not the number of seeds given.
    """
    rng = _current.get()
    if rng is None:
        rng = ImageRNG([secrets.randbits(63) for _ in range(n)])
    if len(rng) != n:
        raise ContractError(f"draws: expected a batch of {len(rng)} images (one per seed), got {n}.")
    rng.device = torch.device(device)
    return rng


@contextlib.contextmanager
def searching() -> Iterator[None]:
    """Within the block, scores only guide a search: a model that averages many draws may answer with fewer of them.

    What is found is scored again outside of it, with all draws.
    """
    token = _searching.set(True)
    try:
        yield
    finally:
        _searching.reset(token)


def is_searching() -> bool:
    """Whether the caller stands in a `searching` block."""
    return _searching.get()
