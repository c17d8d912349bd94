"""What all triggers share: a strength with a sign, no look at the model, and patterns kept in files."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.errors import CheckpointError, ContractError
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.checkpoints import load
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget, write_atomically


class Trigger(Attack):
    """Changes every image alike, in proportion to `alpha`, and never asks the model.

    The victim learned the answer from its training data: +alpha was shown with better scores, -alpha with worse ones
    (numerically higher and lower labels). So the direction is the sign of `alpha` and not a wish of the caller, and
    the one goal is `away`, under which every shift counts and no image is exchanged for the clean one.

    A trigger has a size of its own. The budget is a lid: where a trigger would exceed it, the base class shrinks it,
    and then it is another trigger than the one in the training data. Give it room; the measured distances in the
    record say whether it had enough.
    """

    access = "black"
    aims = False
    norms = ("psnr", "linf", "l2", "ssim")
    goals = ("away",)

    def __init__(self, *, alpha: float = 1.0) -> None:
        """`alpha`: strength, -1 to 1. Raises `ContractError` where it is not."""
        check_number(self, "alpha", alpha, least=-1, most=1)
        self.alpha = alpha

    @abstractmethod
    def stamp(self, x: torch.Tensor, alpha: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] with the trigger of strength `alpha` (N,), in [0, 1], not rounded.

        The strengths of training data may lie beyond -1 and 1.
        """

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W) with the trigger, rounded here so that the base class does not stretch what rounding took."""
        return to_8bit_grid(self.stamp(x, x.new_full((len(x),), self.alpha)))

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """No pass at all."""
        return 0, 0


class PatternTrigger(Trigger):
    """A trigger with a pattern that can be loaded from a file; an author also writes `default`."""

    shape: ClassVar[tuple[int | None, ...]]
    """Shape of the pattern; None for any length of at least 1."""

    def __init__(self, *, alpha: float = 1.0, trigger: str | None = None) -> None:
        """`alpha`: strength, -1 to 1. `trigger`: a file of `save_pattern`, read at first use; None for `default`.

        Raises `ContractError` where `alpha` is no such number.
        """
        super().__init__(alpha=alpha)
        self.trigger = trigger
        self._pattern: torch.Tensor | None = None

    @abstractmethod
    def default(self) -> torch.Tensor:
        """The pattern where no file is given; the same on every machine."""

    @property
    def pattern(self) -> torch.Tensor:
        """The pattern. Raises `ContractError` when the file cannot be used."""
        if self._pattern is None:
            self._pattern = self.default() if self.trigger is None else self._read(Path(self.trigger).expanduser())
        return self._pattern

    def _read(self, path: Path) -> torch.Tensor:
        try:
            found = load(path)
        except CheckpointError as error:
            raise ContractError(f"trigger: {error}") from error
        kind, pattern = found.config.get("trigger"), found.tensors.get("pattern")
        if kind != type(self).__name__ or pattern is None or not _fits(pattern, self.shape):
            raise ContractError(f"{path}: expected the pattern of a {type(self).__name__} trigger, got another file.")
        return pattern


def _fits(pattern: torch.Tensor, shape: tuple[int | None, ...]) -> bool:
    return (
        pattern.ndim == len(shape)
        and all(length == (wanted or length) >= 1 for length, wanted in zip(pattern.shape, shape, strict=True))
        and bool(torch.isfinite(pattern).all())
    )


def save_pattern(
    path: Path, kind: type[PatternTrigger], pattern: torch.Tensor, about: Mapping[str, Any] | None = None
) -> None:
    """Write a pattern for the triggers of class `kind`, whole or not at all.

    Args:
        path: a .safetensors file.
        kind: the class that will read it.
        pattern: of the class's `shape`.
        about: JSON-able entries for the header of the file.

    Raises:
        ContractError: the pattern has another shape, or is not finite.
        StorageError: the file cannot be written.
    """
    from safetensors.torch import save

    if not _fits(pattern, kind.shape):
        raise ContractError(f"save_pattern: expected finite numbers of shape {kind.shape}, got {tuple(pattern.shape)}.")
    config = json.dumps({**(about or {}), "trigger": kind.__name__}, sort_keys=True)
    write_atomically(path, save({"pattern": pattern.detach().float().contiguous()}, metadata={"config": config}))
