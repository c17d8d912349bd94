"""Certificates against the empirical worst case at the same L2 budget: none breaks, and a wrong one is caught."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.defenses.certified.median_smoothing import DenoisedMedianSmoothing, MedianModel, MedianSmoothing
from iqa_robust.defenses.certified.randomized_smoothing import RandomizedSmoothing
from iqa_robust.harness.evaluate import Evaluation
from iqa_robust.measures.certificates import shift_certified
from iqa_robust.models.base import Certificate, IQAModel, ModelInfo, Swapped, with_score_range
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import CERTIFICATE_COLUMNS, IMAGE_COLUMNS, Budget, read_record, write_record
from iqa_robust.tables.board import board
from iqa_robust.tables.certificates import certificates
from iqa_robust.tables.report import report_html

PHOTOS = ir.datasets.create("photos", limit=2, crop=32)
SIGMA = 0.12
SMALL: dict[str, Any] = {"sigma": SIGMA, "copies": 40, "certify_copies": 250, "attack_copies": 4}
"""Few copies, so that a test takes seconds: intervals are wider, and as binding."""


class Wave(IQAModel):
    """A linear model, 50 + 20 w . x with |w| = 1: nothing moves it further than a step along w."""

    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=(0.0, 100.0))
        wave = torch.cos(0.7 * torch.arange(3 * 32 * 32, dtype=torch.float64)).view(3, 32, 32)
        self.w = wave / wave.norm()

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return 50 + 20 * (self.w * (x.double() - 0.5)).sum(dim=(1, 2, 3))


class AlongTheWave(Attack):
    """The strongest attack on `Wave`."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x + budget.eps * Wave().w.float()


class TooNarrow(MedianSmoothing):
    """Promises half of what it has proven."""

    def wrap(self, model: IQAModel) -> IQAModel:
        return TooNarrowModel(model, self._smoothing)


class TooNarrowModel(MedianModel):
    """Half of the interval."""

    def certify(self, x: torch.Tensor, ref: torch.Tensor | None, l2: torch.Tensor) -> Certificate:
        honest = super().certify(x, ref, l2)
        middle, half = (honest.low + honest.high) / 2, (honest.high - honest.low) / 4
        return dataclasses.replace(honest, low=middle - half, high=middle + half)


class Gray(type(PHOTOS)):  # type: ignore[misc]
    """The photographs with little contrast: noise then rarely reaches black or white."""

    def load(self, row: Any) -> Any:
        item = super().load(row)
        return dataclasses.replace(item, x=((0.5 + 0.2 * (item.x - 0.5)) * 255).round() / 255)


def run(model: Any, defense: Any, attack: Any, eps: float, dataset: Any = PHOTOS, **budget: Any) -> Evaluation:
    spend = Budget(norm="l2", eps_255=255 * eps, steps=6, eot=2, **budget)
    done = ir.evaluate(model, dataset, attack, defense, budget=spend, device="cpu")
    assert done.status == "ok", done.reason
    return done


@pytest.mark.parametrize("attack", ["pgd", "apgd", "worst-case"])
@pytest.mark.parametrize("defense", [MedianSmoothing, DenoisedMedianSmoothing, RandomizedSmoothing])
def test_no_certificate_breaks_under_attack(attack: str, defense: Any) -> None:
    """The radius is one that an attacker can use: the smoothed scores move."""
    queries = {"queries": 40} if attack == "worst-case" else {}
    done = run("compact", defense(**SMALL), attack, 0.1, **queries)
    images = done.record.images
    assert "certificate-violated" not in done.flags
    assert (images["l2"] <= 0.1 + 1e-6).all() and (images["l2"] > 0.05).all()
    shift = (images["score_adv"] - images["score_def_clean"]).abs()
    assert shift.max() > 0
    held = images["cert_radius"] >= images["l2"]
    assert held.to_numpy().any() or defense is RandomizedSmoothing
    allowed = shift_certified(images["score_def_clean"], images["cert_low"], images["cert_high"])
    assert (shift <= allowed).all()
    assert np.isfinite(allowed[held]).all() and np.isposinf(allowed[~held]).all()


def test_a_certificate_that_promises_too_much_is_caught() -> None:
    """The step along w is worth 20 e; half an interval is narrower, the whole one is not."""
    dataset = Gray(limit=2, crop=32)
    settings = {**SMALL, "copies": 200, "certify_copies": 2000}
    honest = run(Wave(), MedianSmoothing(**settings), AlongTheWave(), 1.4 * SIGMA, dataset)
    narrow = run(Wave(), TooNarrow(**settings), AlongTheWave(), 1.4 * SIGMA, dataset)
    assert "certificate-violated" not in honest.flags
    assert "certificate-violated" in narrow.flags
    assert certificates([narrow.record])["violations"].item() > 0 == certificates([honest.record])["violations"].item()
    for done in (honest, narrow):  # 3.36 less what rounding to 8 bits takes off; the attack is the same
        assert (done.record.images["score_adv"] - done.record.images["score_def_clean"]).between(2.5, 3.5).all()


def test_certificates_are_kept_and_others_have_none(tmp_path: Any) -> None:
    done = run("compact", MedianSmoothing(**SMALL), "noise", 0.05)
    defended, bare = done.record, run("compact", None, "noise", 0.05).record
    assert list(defended.images.columns) == [*IMAGE_COLUMNS, *CERTIFICATE_COLUMNS]
    assert list(bare.images.columns) == list(IMAGE_COLUMNS)
    for record in (defended, bare):
        pd.testing.assert_frame_equal(
            read_record(write_record(tmp_path, record)).images, record.images, check_dtype=False
        )
    table = certificates([defended, bare])
    assert len(table) == 1
    line = table.iloc[0]
    images = defended.images
    assert line["abstention_share"] == 0
    assert line["width_mean"] == pytest.approx((images["cert_high"] - images["cert_low"]).mean())
    assert line["shift_attacked_max"] == pytest.approx((images["score_adv"] - images["score_def_clean"]).abs().max())
    assert line["violations"] == 0
    assert done.measures()["width_mean"] == line["width_mean"]
    assert done.measures()["n_images"] == len(images)
    assert "violations" not in board([bare]).columns  # a board's columns are frozen
    assert '<h2 id="certificates-1">' in report_html([defended, bare], board([defended, bare]))
    assert "certificates-1" not in report_html([bare], board([bare]))


def test_batches_do_not_matter() -> None:
    frames = []
    for batch_size in (1, 2):
        done = ir.evaluate(
            "compact", PHOTOS, "noise", MedianSmoothing(**SMALL), budget=Budget(norm="l2"), batch_size=batch_size
        )
        frames.append(done.record.images[list(CERTIFICATE_COLUMNS)])
    np.testing.assert_allclose(*frames, rtol=1e-5)  # float32 convolutions of another batch


def test_a_certificate_passes_through_a_score_range_and_not_through_a_swap() -> None:
    smoothed = MedianSmoothing(**SMALL).wrap(Wave())
    x, distance = torch.full((1, 3, 32, 32), 0.5), torch.zeros(1)
    assert with_score_range(smoothed, (0.0, 1.0)).certify(x, None, distance) is not None
    full_reference = ir.models.wrap(lambda x, ref: (x - ref).mean(dim=(1, 2, 3)), ModelInfo(full_reference=True))
    smoothed = MedianSmoothing(**SMALL).wrap(full_reference)
    assert smoothed.certify(x, x, distance) is not None
    assert Swapped(smoothed).certify(x, x, distance) is None
    assert full_reference.certify(x, x, distance) is None
