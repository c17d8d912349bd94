"""Detectors that ask whether a score is confirmed: by a purified copy, or by a student of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from iqa_robust import defenses, models
from iqa_robust.defenses.base import Purifier
from iqa_robust.defenses.detection.base import Detector
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel


class PurifierDifference(Detector):
    """|f(x) - f(purify(x))|: an attack that a purifier undoes moves the score of the copy back.

    After feature squeezing, which compares a classifier's outputs. The attacker differentiates the purifier's
    surrogate.

    Args:
        purifier: registry name.
        purifier_params: its parameters; None for its defaults.

    Raises:
        ContractError: on use, when the named defense is not a purifier.
    """

    source = "Xu, Evans, Qi, NDSS 2018, arXiv:1704.01155"
    form = "adapted"

    def __init__(self, *, purifier: str = "jpeg", purifier_params: Mapping[str, Any] | None = None) -> None:
        self.purifier = purifier
        self.purifier_params = purifier_params
        self._built: Purifier | None = None

    @property
    def deterministic(self) -> bool:
        """That of the purifier."""
        return type(self._made()).deterministic

    def statistic(self, model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) absolute differences, native units of `model`."""
        return (model(x, ref) - self._made().wrap(model)(x, ref)).abs()

    def _made(self) -> Purifier:
        if self._built is None:
            built = defenses.create(self.purifier, **(self.purifier_params or {}))
            if not isinstance(built, Purifier):
                raise ContractError(f"PurifierDifference: expected the name of a purifier, got {self.purifier!r}.")
            self._built = built
        return self._built


class StudentDifference(Detector):
    """|f(x) - g(x)| for a student g that was distilled from f: an attack on the teacher moves the student less.

    The student's scores are mapped linearly from its score range onto the teacher's. Its exact gradient is known to the
    attacker.

    Args:
        student: registry name of the student, a no-reference model.
        student_params: its parameters; None for those of the student of `compact` that ships with the package.

    Raises:
        ContractError: on use, when the student needs references, or one of the score ranges is unknown.
    """

    source = "after Feng, Cai, 2020, arXiv:2004.06288"
    form = "reconstructed"

    def __init__(self, *, student: str = "compact", student_params: Mapping[str, Any] | None = None) -> None:
        self.student = student
        self.student_params = student_params
        self._built: IQAModel | None = None

    @property
    def deterministic(self) -> bool:
        """That of the student."""
        return self._made(torch.device("cpu")).info.deterministic

    def statistic(self, model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) absolute differences, native units of `model`."""
        student = self._made(x.device)
        if student.info.full_reference or student.info.score_range is None or model.info.score_range is None:
            raise ContractError("StudentDifference: expected a no-reference student and models with a score range.")
        (low, high), (least, most) = model.info.score_range, student.info.score_range
        return (model(x, ref) - (low + (student(x) - least) * (high - low) / (most - least))).abs()

    def _made(self, device: torch.device) -> IQAModel:
        if self._built is None:
            params = {"weights": "student"} if self.student_params is None else self.student_params
            self._built = models.create(self.student, **params).eval().requires_grad_(False)
        self._built = self._built.to(device)
        return self._built
