"""The contract every defense keeps: `wrap(model) -> model`, never editing the model it is given."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, check_model
from iqa_robust.models.randomness import draws, seeded


class Defense(ABC):
    """Turns a model into a harder model. The constructor is the configuration: keyword-only, JSON-able, no I/O."""

    deterministic: ClassVar[bool] = True
    """False for a randomized defense: attacks then average over draws, scores over recorded seeds."""
    source: ClassVar[str] = ""
    """Authors, venue and year."""
    form: ClassVar[str] = "ours"
    """How the defense relates to its source: one of `published` (as published), `corrected` (a bug of the released
    code is corrected), `adapted` (from another setting, such as classification), `reconstructed` (from an incomplete
    text), `ours` (without a source)."""
    note: ClassVar[str] = ""
    """What a reader of a board must know."""
    canary: ClassVar[bool] = False
    """True for a defense that is known to be broken and is there to be caught."""
    check_params: ClassVar[Mapping[str, Any]] = {}
    """Parameters under which the conformance suite asks its questions when it is given the name alone: less of the same
    work, for a defense whose defaults would take minutes. The defaults are then run once, for their cost."""

    @abstractmethod
    def wrap(self, model: IQAModel) -> IQAModel:
        """A defended model. The given one is neither edited nor copied."""


class Purifier(Defense):
    """A defense that changes the image before the model.

    `purify` is what is scored. `surrogate` is what the attacker differentiates: every purifier must say what it is,
    because a step without a gradient would silently turn the attack off.
    """

    keeps_geometry: ClassVar[bool] = True
    """False when the purified image has another size or frame, so that it no longer fits a reference."""

    @abstractmethod
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) in [0, 1] -> (N, 3, H', W') in [0, 1]; what is scored."""

    @abstractmethod
    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """The differentiable stand-in, of the shape `purify` returns; only its slope is used."""

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier.

        Raises:
            ContractError: it is no `IQAModel`, or it is full-reference and the purifier moves the frame.
        """
        check_model(model)
        if model.info.full_reference and not self.keeps_geometry:
            raise ContractError(
                f"{type(self).__name__} changes the frame of the image, so it cannot defend a full-reference model."
            )
        return PurifiedModel(self, model)


class DifferentiablePurifier(Purifier):
    """A purifier whose own gradient is exact: it is its own surrogate."""

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        """`purify` itself."""
        return self.purify(x)


class PurifiedModel(IQAModel):
    """`model(purify(x))`, with the slope of the surrogate where gradients are asked for (BPDA, Athalye et al. 2018)."""

    def __init__(self, purifier: Purifier, model: IQAModel) -> None:
        """References, if any, are passed on unchanged: they are the defender's own."""
        super().__init__()
        self.purifier = purifier
        self.model = model
        self.info = dataclasses.replace(
            model.info, deterministic=model.info.deterministic and type(purifier).deterministic
        )
        self.training = model.training

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,)."""
        return self.model(self._purified(x), ref)

    def _purified(self, x: torch.Tensor) -> torch.Tensor:
        if isinstance(self.purifier, DifferentiablePurifier) or not (torch.is_grad_enabled() and x.requires_grad):
            return self._exact(x)
        if type(self.purifier).deterministic:
            with torch.no_grad():
                exact = self._exact(x)
            slope = self.purifier.surrogate(x)
        else:  # both must see the same draw
            seeds = [int(seed) for seed in draws(x.shape[0]).integers(0, 2**62)]
            with torch.no_grad(), seeded(seeds):
                exact = self._exact(x)
            with seeded(seeds):
                slope = self.purifier.surrogate(x)
        if slope.shape != exact.shape:
            raise ContractError(
                f"{type(self.purifier).__name__}.surrogate: expected the shape of purify {tuple(exact.shape)},"
                f" got {tuple(slope.shape)}."
            )
        return slope + (exact - slope).detach()

    def _exact(self, x: torch.Tensor) -> torch.Tensor:
        purified = self.purifier.purify(x)
        if isinstance(purified, torch.Tensor) and purified.ndim == 4 and purified.shape[:2] == x.shape[:2]:
            return purified
        got = tuple(purified.shape) if isinstance(purified, torch.Tensor) else type(purified).__name__
        raise ContractError(
            f"{type(self.purifier).__name__}.purify: expected images of shape ({x.shape[0]}, 3, H', W'), got {got}."
        )
