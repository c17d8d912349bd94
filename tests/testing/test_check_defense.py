"""The conformance suite sees what is wrong with a defense."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from iqa_robust import defenses
from iqa_robust.defenses.base import Defense, DifferentiablePurifier, Purifier
from iqa_robust.defenses.filtering.gaussian import Gaussian
from iqa_robust.models.base import IQAModel, ModelInfo, WrappedModel, wrap
from iqa_robust.models.randomness import draws
from iqa_robust.testing import check_defense


class Squash(DifferentiablePurifier):
    """A sound purifier to break: less contrast."""

    def __init__(self, *, strength: float = 0.8) -> None:
        self.strength = strength

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return self.strength * x


class Around(Defense):
    """A sound defense that is no purifier: the mean score of an image and its mirror image."""

    def wrap(self, model: IQAModel) -> IQAModel:
        return _Mirrored(model, model.info)


class _Mirrored(WrappedModel):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return (self.model(x, ref) + self.model(x.flip(3), None if ref is None else ref.flip(3))) / 2


class Rounding(Purifier):
    """A sound purifier without a gradient of its own."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x * 10) / 10

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        return x


class Dither(DifferentiablePurifier):
    """A sound randomized purifier."""

    deterministic = False

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return (0.9 * x + draws(x.shape[0], x.device).uniform(x.shape[1:], 0, 0.1)).clamp(0, 1)


@pytest.mark.parametrize("defense", [Squash(), Squash(strength=0.3), Around(), Rounding(), Dither()])
def test_a_sound_defense_passes(defense: Defense) -> None:
    report = check_defense(defense)
    report.raise_if_failed()
    assert report.subject == f"defense {type(defense).__name__}"
    assert all(check.detail for check in report.checks)


def test_by_name() -> None:
    report = check_defense("gaussian")
    assert report.ok
    assert report.subject == "defense 'gaussian'"
    assert "sigma=1.0" in {check.name: check.detail for check in report.checks}["constructor"]


class NoSlope(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return torch.round(x * 10) / 10


class CutGraph(Rounding):
    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        return x.detach()


class NaNSlope(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.5 + torch.sqrt(torch.zeros_like(x) * x)


class WrongSlope(Squash):
    """Its value is squared, its slope is that of the identity."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return x + (x.square() - x).detach()


class MadeOnTheCPU(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return 0.9 * x + torch.full((3, 1, 1), 0.05)


class ByNumPy(Rounding):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(np.round(x.detach().numpy() * 10) / 10)


class _SlopeByNumPy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return 0.9 * x

    @staticmethod
    def backward(ctx: Any, *slopes: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(0.9 * slopes[0].cpu().numpy())


class SlopeStaysOnTheCPU(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return _SlopeByNumPy.apply(x)


class UselessSurrogate(Rounding):
    """A gradient that is alive and leads nowhere."""

    def surrogate(self, x: torch.Tensor) -> torch.Tensor:
        return x.flip(2).roll(11, dims=3)


class UndeclaredRandomness(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return (0.9 * x + draws(x.shape[0], x.device).uniform(x.shape[1:], 0, 0.1)).clamp(0, 1)


class GlobalRandomness(Dither):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return 0.9 * x + 0.1 * torch.rand_like(x)


class OneDrawForAll(Dither):
    """Draws for the batch: the first image's generator decides for all."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return 0.9 * x + 0.1 * draws(x.shape[0], x.device).uniform(x.shape[1:])[:1]


class NeverRandom(Squash):
    deterministic = False


class OutOfRange(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return x * 1.1 - 0.05


class WrongType(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return 0.8 * x.double()


class Shrinks(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return x[..., 1:-1, 1:-1]


class BatchNormalized(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean()) * 0.1 + 0.5


class EditsInput(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        x.detach().mul_(0.8)
        return x * 1.0


class EditsModel(Squash):
    def wrap(self, model: IQAModel) -> IQAModel:
        with torch.no_grad():
            next(iter(model.parameters()), torch.zeros(1)).mul_(0.99)
        return super().wrap(model)


class EditsMode(Squash):
    def wrap(self, model: IQAModel) -> IQAModel:
        return super().wrap(model.eval())


class LeavesGradients(Around):
    def wrap(self, model: IQAModel) -> IQAModel:
        if weights := list(model.parameters()):
            model(torch.rand(1, 3, 8, 8, generator=torch.Generator()).to(weights[0].device)).sum().backward()
        return super().wrap(model)


class Remembers(Squash):
    """Adapts to what it has seen."""

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        self.level = 0.9 * getattr(self, "level", 0.5) + 0.1 * float(x.detach().mean())
        return 0.5 * x + 0.5 * self.level


class ChangesParameter(Squash):
    def __init__(self, *, strength: float = 0.8) -> None:
        self.strength = strength / 255


class LosesParameter(Squash):
    def __init__(self, *, strength: float = 0.8) -> None:
        self._strength = strength

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return self._strength * x


class Positional(Squash):
    def __init__(self, strength: float = 0.8) -> None:
        self.strength = strength


class NotJSON(Squash):
    def __init__(self, *, strength: torch.Tensor | None = None) -> None:
        self.strength = torch.tensor(0.8) if strength is None else strength


class NotAModel(Squash):
    def wrap(self, model: IQAModel) -> IQAModel:
        return lambda x, ref=None: model(x, ref)  # type: ignore[return-value]


class NotWrapped(Squash):
    def wrap(self, model: IQAModel) -> IQAModel:
        return model


class TurnsScale(Squash):
    def wrap(self, model: IQAModel) -> IQAModel:
        wrapped = super().wrap(model)
        wrapped.info = dataclasses.replace(wrapped.info, higher_is_better=False)
        return wrapped


class DropsReference(Around):
    def wrap(self, model: IQAModel) -> IQAModel:
        info = model.info
        if not info.full_reference:
            return super().wrap(model)
        return wrap(lambda x, ref: model(0.9 * x, x), ModelInfo(full_reference=True, score_range=info.score_range))


class OnlyMultiplesOfEight(Squash):
    def purify(self, x: torch.Tensor) -> torch.Tensor:
        n, c, h, w = x.shape
        return x.reshape(n, c, h // 8, 8, w // 8, 8).reshape(x.shape)


class MeanScore(Around):
    def wrap(self, model: IQAModel) -> IQAModel:
        return _Mean(model, model.info)


class _Mean(WrappedModel):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return self.model(x, ref).mean()


BROKEN: list[tuple[Defense, set[str]]] = [
    (NoSlope(), {"gradient", "slope"}),
    (CutGraph(), {"gradient", "slope"}),
    (NaNSlope(), {"gradient", "slope"}),
    (WrongSlope(), {"slope"}),
    (UselessSurrogate(), {"slope"}),
    (MadeOnTheCPU(), {"gpu"}),
    (ByNumPy(), {"gpu"}),
    (SlopeStaysOnTheCPU(), {"gpu"}),
    (UndeclaredRandomness(), {"repeatable"}),
    (GlobalRandomness(), {"batch", "repeatable", "slope", "global-randomness", "no-memory"}),
    (OneDrawForAll(), {"batch"}),
    (NeverRandom(), {"repeatable"}),
    (OutOfRange(), {"purify"}),
    (WrongType(), {"purify"}),
    (Shrinks(), {"purify", "references"}),
    (BatchNormalized(), {"batch", "slope"}),
    (EditsInput(), {"repeatable", "batch", "slope", "input-unchanged", "no-memory"}),
    (EditsModel(), {"model-unchanged"}),
    (EditsMode(), {"model-unchanged"}),
    (LeavesGradients(), {"model-unchanged"}),
    (Remembers(), {"batch", "repeatable", "slope", "no-memory"}),
    (ChangesParameter(), {"constructor"}),
    (LosesParameter(), {"constructor", "no-memory"}),
    (Positional(), {"constructor", "no-memory"}),
    (NotJSON(), {"constructor"}),
    (NotAModel(), {"wrap"}),
    (NotWrapped(), {"wrap"}),
    (TurnsScale(), {"wrap"}),
    (DropsReference(), {"references"}),
    (OnlyMultiplesOfEight(), {"scores"}),
    (MeanScore(), {"scores"}),
]


@pytest.mark.parametrize(("defense", "expected"), BROKEN, ids=[type(broken).__name__ for broken, _ in BROKEN])
def test_what_is_broken_is_found(defense: Defense, expected: set[str]) -> None:
    report = check_defense(defense)
    found = {check.name for check in report.failed}
    assert found == expected, [check.detail for check in report.failed]


def test_the_cost_is_said_and_not_judged() -> None:
    (cost,) = [check for check in check_defense(Gaussian()).checks if check.name == "cost"]
    assert cost.passed
    assert "ms for an image of 256 x 256" in cost.detail


class Repeats(Defense):
    """The score, found as often as it is told to; every round is counted."""

    check_params: ClassVar[dict[str, int]] = {"times": 2}
    rounds: ClassVar[dict[int, int]] = {}

    def __init__(self, *, times: int = 500) -> None:
        self.times = times

    def wrap(self, model: IQAModel) -> IQAModel:
        self.rounds.setdefault(self.times, 0)
        return _Repeated(model, model.info, self)


class _Repeated(WrappedModel):
    def __init__(self, model: IQAModel, info: ModelInfo, defense: Repeats) -> None:
        super().__init__(model, info)
        self.defense = defense

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.defense.rounds[self.defense.times] += 1
        return super().forward(x, ref)


def test_a_name_is_asked_with_the_parameters_the_class_offers_and_timed_with_the_defaults(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(defenses.registry, "_added", {"repeats": Repeats})
    details = {check.name: check.detail for check in check_defense("repeats").checks}
    assert details["constructor"] == "times=2"
    assert "with the default parameters" in details["cost"]
    assert Repeats.rounds[2] > 20
    assert 1 <= Repeats.rounds[500] <= 3  # the cost, and nothing else
    Repeats.rounds.clear()
    check_defense(Repeats(times=500))  # an instance is taken as it is
    assert set(Repeats.rounds) == {500}


@pytest.mark.parametrize("name", ["median-smoothing", "denoised-median-smoothing", "randomized-smoothing"])
def test_smoothed_models_are_asked_with_few_copies(name: str) -> None:
    cls = defenses.get(name)
    assert defenses.create(name, **cls.check_params).copies < cls().copies  # type: ignore[attr-defined]
    behind = f"{name}+flip"
    assert defenses.create(behind, **defenses.get(behind).check_params)._parts[0].copies == cls.check_params["copies"]
