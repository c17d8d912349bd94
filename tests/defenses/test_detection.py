"""Detectors: closed forms, an attacker who must not be seen, and the two tables on a few images."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scripts import scripts_of
from torch.nn import functional as F

import iqa_robust as ir
from iqa_robust.defenses.detection.base import Detector, Watched
from iqa_robust.defenses.detection.consistency import PurifierDifference, StudentDifference
from iqa_robust.defenses.detection.guarded_classifier import ClassifierGuard, Margin
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo, wrap
from iqa_robust.records import Budget

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "detection"
X = (torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
PERCENT = ModelInfo(score_range=(0.0, 100.0))


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with scripts_of(SCRIPTS) as found:
        yield found


def brightness(scale: float = 100.0) -> IQAModel:
    return wrap(lambda x: scale * x.mean(dim=(1, 2, 3)), ModelInfo(score_range=(0.0, scale)))


class Green(Detector):
    """Finds green suspicious, in percent."""

    def statistic(self, model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return 100 * x[:, 1].mean(dim=(1, 2))


# --- statistics


def test_the_difference_to_a_purified_copy_is_that_of_the_two_scores() -> None:
    model = wrap(lambda x: 100 * x[:, 0, 7, 7], PERCENT)
    copy = ir.defenses.create("median", size=5).purify(X)
    found = PurifierDifference(purifier="median", purifier_params={"size": 5}).statistic(model, X)
    torch.testing.assert_close(found, 100 * (X[:, 0, 7, 7] - copy[:, 0, 7, 7]).abs())


@pytest.mark.parametrize("purifier", ["jpeg", "bit-depth", "dncnn"])
def test_the_attacker_has_a_slope_through_the_purifier(purifier: str) -> None:
    model = ir.models.create("compact")
    x = X.clone().requires_grad_(True)
    statistic = PurifierDifference(purifier=purifier).statistic(model, x)
    (slope,) = torch.autograd.grad(statistic.sum(), x)
    assert slope.isfinite().all() and (slope != 0).flatten(1).any(dim=1).all()


def test_a_randomized_purifier_is_said_to_be_one() -> None:
    assert not PurifierDifference(purifier="random-crop").deterministic
    watched = Watched(brightness(), PurifierDifference(purifier="random-crop"), threshold=0, penalty=1, toward=1)
    assert not watched.info.deterministic
    assert PurifierDifference().deterministic


def test_only_purifiers_purify() -> None:
    with pytest.raises(ContractError, match="expected the name of a purifier, got 'median-smoothing'"):
        PurifierDifference(purifier="median-smoothing").statistic(brightness(), X)


def test_the_student_is_compared_on_the_scale_of_the_model() -> None:
    student = ir.models.create("compact", weights="student")
    model = wrap(lambda x: student(x) / 50 - 1, ModelInfo(score_range=(-1.0, 1.0)))
    # The student itself on another scale: no difference but float32's.
    assert StudentDifference().statistic(model, X).max() < 1e-5
    shifted = wrap(lambda x: student(x) / 50 - 0.75, ModelInfo(score_range=(-1.0, 1.0)))
    torch.testing.assert_close(StudentDifference().statistic(shifted, X), torch.full((3,), 0.25))


def test_a_student_needs_scales() -> None:
    with pytest.raises(ContractError, match="expected a no-reference student and models with a score range"):
        StudentDifference().statistic(wrap(lambda x: x.mean(dim=(1, 2, 3))), X)


# --- the attacker who must not be seen


def test_watched_by_hand() -> None:
    score, green = brightness()(X), Green().statistic(brightness(), X)
    threshold = green[1].item()
    excess = (green - threshold).clamp(min=0)
    for toward in (1, -1):
        watched = Watched(brightness(), Green(), threshold=threshold, penalty=4.0, toward=toward)
        torch.testing.assert_close(watched(X), score - toward * 4 * excess)


@pytest.mark.parametrize(("toward", "penalty"), [(0, 1.0), (1, -1.0)])
def test_watched_refuses(toward: int, penalty: float) -> None:
    with pytest.raises(ContractError, match="expected toward 1 or -1 and a penalty of at least 0"):
        Watched(brightness(), Green(), threshold=0, penalty=penalty, toward=toward)


def test_an_attack_on_the_watched_model_stays_unseen_where_it_can() -> None:
    """Green is a third of the brightness: who leaves it alone gets two thirds of the shift, and is not noticed."""
    x = torch.full((2, 3, 16, 16), 128 / 255)
    threshold = Green().statistic(brightness(), x).max().item()
    budget, attack = Budget(eps_255=10, steps=10), ir.attacks.create("pgd")
    seen = attack(brightness(), x, goal="up", budget=budget).images
    watched = Watched(brightness(), Green(), threshold=threshold, penalty=3.0, toward=1)
    unseen = attack(watched, x, goal="up", budget=budget).images
    whole = 100 * 10 / 255
    torch.testing.assert_close(brightness()(seen) - brightness()(x), torch.full((2,), whole), rtol=1e-4, atol=0)
    torch.testing.assert_close(
        brightness()(unseen) - brightness()(x), torch.full((2,), whole * 2 / 3), rtol=1e-2, atol=0
    )
    assert (Green().statistic(brightness(), unseen) <= threshold + 1e-4).all()
    assert (Green().statistic(brightness(), seen) > threshold + 1).all()


# --- the guarded classifier


def test_guard_and_margin_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 5.0, 0.0]])

    class Fixed(torch.nn.Module):
        def __init__(self, values: torch.Tensor) -> None:
            super().__init__()
            self.values = values

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.values[: len(x)]

    guard = ClassifierGuard(Fixed(logits), Fixed(logits.flip(1)), brightness(), X)
    p, q = F.softmax(logits, dim=1).numpy(), F.softmax(logits.flip(1), dim=1).numpy()
    distance = np.abs(p - q).sum(axis=1) / 2
    np.testing.assert_allclose(guard.part("student", X), distance, rtol=1e-5)
    np.testing.assert_allclose(
        guard.statistic(X, ["student"]), (distance - distance.mean()) / distance.std(ddof=1), atol=1e-5
    )
    bright = brightness()(X).numpy()
    np.testing.assert_allclose(guard.part("quality", X), np.abs(bright - bright.mean()), atol=1e-4)
    assert Margin(Fixed(logits), 0)(X).tolist() == [1, 0, -5]
    watched = Margin(Fixed(logits), 0, guard=guard, parts=["student"], threshold=-math.inf, penalty=0.0)
    assert watched.info.deterministic
    penalized = Margin(Fixed(logits), 0, guard=guard, parts=["student"], threshold=-10.0, penalty=2.0)(X)
    torch.testing.assert_close(penalized, torch.tensor([1.0, 0, -5]) + 2 * (guard.statistic(X, ["student"]) + 10))


def test_a_guard_needs_images() -> None:
    with pytest.raises(ContractError, match="expected at least two clean images"):
        ClassifierGuard(torch.nn.Identity(), torch.nn.Identity(), brightness(), X[:1])


# --- the tables


def test_the_table_of_detectors(scripts: Any) -> None:
    table = scripts.table
    photos = {split: ir.datasets.create("photos", split=split, limit=4, crop=40) for split in ("train", "test")}
    calibration, x = (table.pictures(photos[split]) for split in ("train", "test"))
    model = ir.models.create("compact").eval()
    detectors = {name: table.DETECTORS[name] for name in ("median", "student")}
    rows = table.lines(model, detectors, calibration, x, ir.attacks.create("pgd"), Budget(eps_255=4, steps=3))
    assert [row["detector"] for row in rows] == ["median", "student"]
    for row in rows:
        assert row["oblivious past"] <= row["oblivious shift"] and row["adaptive past"] <= row["adaptive shift"]
        assert all(0 <= row[f"{who} {what}"] <= 1 for who in ("oblivious", "adaptive") for what in ("AUROC", "TPR"))
    # One attack on the bare model serves all: its shift is the same in every line.
    assert rows[0]["oblivious shift"] == rows[1]["oblivious shift"]
    assert table.text(rows).count("\n") == 4


def test_the_table_of_the_classifier(scripts: Any) -> None:
    rows = {row["images"]: row for row in scripts.classifier.lines(40, Budget(eps_255=32, steps=3), epochs=5)}
    assert len(rows) == 7
    assert rows["clean"]["accuracy"] > 0.7 > rows["attacked, oblivious"]["accuracy"]
    assert rows["clean"]["both AUROC"] == 0.5
