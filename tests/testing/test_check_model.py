"""The conformance suite sees what is wrong with a model."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from iqa_robust import models
from iqa_robust.defenses.codec.jpeg import JPEG
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.models.randomness import draws
from iqa_robust.testing import check_model
from iqa_robust.testing.toy import ToyLinear, ToyNetwork, ToyReference

INFO = ModelInfo(score_range=(0.0, 100.0))


class Contrast(IQAModel):
    """A sound model to break: the spread of the pixels."""

    def __init__(self, *, gain: float = 100.0) -> None:
        super().__init__()
        self.gain = gain
        self.info = INFO

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return self.gain * torch.sqrt(x.flatten(1).var(dim=1, correction=0) + 1e-6)


class Random(Contrast):
    """A sound randomized model."""

    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.replace(INFO, deterministic=False)

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) + draws(x.shape[0], x.device).uniform()


class Hooked(Contrast):
    """A sound model that reads its features by a hook, which a copy of it would not."""

    def __init__(self) -> None:
        super().__init__()
        self.dimmed = torch.nn.Conv2d(3, 3, 1, groups=3, bias=False)
        torch.nn.init.constant_(self.dimmed.weight, 0.5)
        self.found: dict[str, torch.Tensor] = {}
        self.dimmed.register_forward_hook(lambda module, given, made: self.found.__setitem__("dimmed", made))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.dimmed(x)
        return super().forward(2 * self.found.pop("dimmed"))


@pytest.mark.parametrize(
    "model",
    [
        Contrast(),
        Hooked(),
        Contrast(gain=3.0),
        Random(),
        ToyNetwork(),
        ToyLinear(higher_is_better=False),
        ToyReference(),
        models.wrap(lambda x: x.mean(dim=(1, 2, 3))),
        with_score_range(Contrast(), (0.0, 60.0)),
        JPEG(quality=50).wrap(ToyNetwork()),
    ],
    ids=lambda model: type(model).__name__,
)
def test_a_sound_model_passes(model: IQAModel) -> None:
    report = check_model(model)
    report.raise_if_failed()
    assert report.subject == f"model {type(model).__name__}"
    assert all(check.detail for check in report.checks)


def test_the_mode_is_left_as_it_was() -> None:
    model = ToyNetwork().train()
    model.normalization.eval()
    check_model(model).raise_if_failed()
    assert model.training
    assert not model.normalization.training


def test_a_doubtful_direction_is_said_and_not_judged() -> None:
    (right,) = [check for check in check_model(ToyReference()).checks if check.name == "direction"]
    assert right.passed
    assert "4 of 4 pictures lose" in right.detail
    (wrong,) = [check for check in check_model(Upside()).checks if check.name == "direction"]
    assert wrong.passed
    assert "0 of 4 pictures lose" in wrong.detail


class Upside(ToyReference):
    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.replace(self.info, higher_is_better=False)


class TwoColumns(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x)[:, None]


class Integers(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x).long()


class NotFinite(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) / 0


class Centered(Contrast):
    """Compares every image with its neighbors; the sum of the scores is then a constant."""

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return 50 + super().forward(x) - super().forward(x).mean()


class SecretlyRandom(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) + draws(x.shape[0], x.device).uniform()


class GlobalDropout(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(torch.nn.functional.dropout(x, 0.1))


class NotRandom(Contrast):
    def __init__(self) -> None:
        super().__init__()
        self.info = dataclasses.replace(INFO, deterministic=False)


class NoGradient(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        with torch.no_grad():
            return super().forward(x)


class QuantizedInput(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(torch.round(x * 255) / 255)


class RootAtZero(Contrast):
    """Its slope is infinite where a color is missing, and NaN by the chain rule."""

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x) + torch.sqrt((0 * x).flatten(1).mean(dim=1))


class WrongRange(Contrast):
    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=(0.0, 1.0))


class EditsInput(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        x.detach().mul_(0.999)
        return super().forward(x)


class Learning(ToyNetwork):
    """Normalizes by the batch in evaluation mode too."""

    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.normalization.train()
        return super().forward(x)


class Counting(Contrast):
    """Keeps a running value of what it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.seen += 1
        return super().forward(x) + 0.01 * self.seen


class LeftBehind(Contrast):
    """A tensor that is no buffer does not come along when the model is moved."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.tensor([0.3, 0.6, 0.1])

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x * 3 * self.weights.view(3, 1, 1))


class OnlyLarge(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(torch.nn.functional.conv2d(x, x.new_ones(1, 3, 16, 16) / 768))


class OnlySquare(Contrast):
    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return super().forward(x @ torch.eye(x.shape[2], device=x.device))


class Unfrozen(Contrast):
    def __init__(self) -> None:
        super().__init__()
        self.info = {"full_reference": False, "min_size": 1}  # type: ignore[assignment]


class NumberForTruth(Contrast):
    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(higher_is_better=1)  # type: ignore[arg-type]


class EndlessRange(Contrast):
    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=(0.0, float("inf")))


class LosesParameter(Contrast):
    def __init__(self, *, gain: float = 100.0, bias: float = 0.0) -> None:
        super().__init__(gain=gain)


BROKEN: list[tuple[IQAModel, set[str]]] = [
    (TwoColumns(), {"scores"}),
    (Integers(), {"scores"}),
    (NotFinite(), {"scores"}),
    (Centered(), {"batch", "gradient", "gradient-per-image"}),
    (SecretlyRandom(), {"repeatable"}),
    (GlobalDropout(), {"batch", "repeatable", "state-unchanged", "global-randomness"}),
    (NotRandom(), {"repeatable"}),
    (NoGradient(), {"gradient", "gradient-per-image", "state-unchanged"}),
    (QuantizedInput(), {"gradient"}),
    (RootAtZero(), {"gradient", "gradient-per-image"}),
    (WrongRange(), {"score-range"}),
    (EditsInput(), {"batch", "repeatable", "input-unchanged", "state-unchanged"}),
    (Learning(), {"batch", "gradient-per-image", "state-unchanged"}),
    (Counting(), {"batch", "repeatable", "state-unchanged"}),
    (OnlyLarge(), {"sizes"}),
    (LeftBehind(), {"gpu"}),
    (OnlySquare(), {"sizes", "state-unchanged"}),
    (Unfrozen(), {"info"}),
    (NumberForTruth(), {"info"}),
    (EndlessRange(), {"info"}),
    (LosesParameter(), {"constructor"}),
]


@pytest.mark.parametrize(("model", "expected"), BROKEN, ids=[type(broken).__name__ for broken, _ in BROKEN])
def test_what_is_broken_is_found(model: IQAModel, expected: set[str]) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of those that draw globally
        report = check_model(model)
    found = {check.name for check in report.failed}
    assert found == expected, [check.detail for check in report.failed]
