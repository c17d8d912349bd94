"""What a cell does before its first batch: plans for the whole set, fits on another split; and what rows then hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brightness import Brightness

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.attacks.trained_attack import Lesson, TrainedAttack
from iqa_robust.harness.execute import Job, run_job
from iqa_robust.harness.store import Store
from iqa_robust.measures import perturbation
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget, Component, RunRecord, RunSpec

PHOTOS = ir.datasets.create("photos", limit=5, crop=48)


class Darker(IQAModel):
    """How much darker the image is than its reference."""

    info = ModelInfo(full_reference=True, score_range=(-1.0, 1.0))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        assert ref is not None
        return (ref - x).mean(dim=(1, 2, 3))


class Exchange(SetAttack):
    """Sends the darkest image of the set to the score of the brightest, and so on."""

    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        ranks = scores.clean.argsort().argsort()
        return scores.clean.sort(descending=True).values[ranks]

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        assert objective.goal.target is not None
        return x + (objective.goal.target - objective.score_clean).sign().view(-1, 1, 1, 1) * budget.eps


class AddsWhatItSaw(TrainedAttack):
    """Its state is the mean of the images it learned from, and how often it learned."""

    learned = 0

    def learn(self, lessons: Sequence[Lesson], budget: Budget, seed: int) -> dict[str, torch.Tensor]:
        type(self).learned += 1
        images = torch.cat([lesson.x for lesson in lessons])  # all of one size
        self.seen = len(images)
        return {"mean": images.mean()}

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x + budget.eps * self.state["mean"].sign()


class Brighten(Attack):
    """Adds eps to what it is given."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        objective(x)
        return x + budget.eps


class BrightenReference(Brighten):
    """Adds eps to the reference."""

    perturbs = "reference"


def run(attack: Attack, *, store: Store | None = None, model: IQAModel | None = None, **changes: Any) -> RunRecord:
    fields: dict[str, Any] = {
        "track": "t-v1",
        "dataset": Component(name="photos", params={"limit": 5}),
        "manifest": PHOTOS.manifest(),
        "model": Component(name="brightness"),
        "weights_sha256": None,
        "score_range": (0.0, 1.0),
        "defense": None,
        "attack": Component(name="toy"),
        "goal": "away",
        "target": None,
        "budget": Budget(eps_255=4),
        "knowledge": "adaptive",
        "seed": 0,
        "package_version": "0",
    }
    spec = RunSpec(**{**fields, **changes})
    job = Job((spec,), PHOTOS, model or Brightness(), (None,), attack, torch.device("cpu"), batch_size=2)
    return run_job(job, store)[0]


def test_a_set_attack_plans_over_all_batches() -> None:
    images = run(Exchange()).images
    clean = images["score_clean"].to_numpy()
    expected = np.sort(clean)[::-1][np.argsort(np.argsort(clean))]
    np.testing.assert_allclose(images["target"], expected, atol=1e-6)  # float32 scores
    moved = np.sign(images["score_adv"] - images["score_clean"])
    np.testing.assert_array_equal(moved, np.sign(np.round(expected - clean, 6)))


def test_a_trained_attack_fits_on_the_other_split_once(tmp_path: Path) -> None:
    AddsWhatItSaw.learned = 0
    attack = AddsWhatItSaw(fit_images=3)
    record = run(attack, store=Store(tmp_path))
    assert record.status == "ok" and attack.seen == 3 and AddsWhatItSaw.learned == 1
    train = ir.datasets.create("photos", split="train", limit=3, crop=48)
    assert not {row.content for row in train.rows()} & {row.content for row in PHOTOS.rows()}
    expected = np.mean([float(train.load(row).x.mean()) for row in train.rows()])
    assert float(attack.state["mean"]) == pytest.approx(expected, abs=1e-6)  # float32 means

    again = run(AddsWhatItSaw(fit_images=3), store=Store(tmp_path), seed=0, package_version="0", track="other-v1")
    assert AddsWhatItSaw.learned == 1, "the same fit, so what was learned is read again"
    np.testing.assert_array_equal(again.images["score_adv"], record.images["score_adv"])
    run(AddsWhatItSaw(fit_images=3), store=Store(tmp_path), budget=Budget(eps_255=2))
    assert AddsWhatItSaw.learned == 2, "another budget is another fit"


def test_a_broken_saved_fit_is_made_again(tmp_path: Path) -> None:
    AddsWhatItSaw.learned = 0
    run(AddsWhatItSaw(fit_images=3), store=Store(tmp_path))
    saved = next((tmp_path / "attacks").glob("*.safetensors"))
    saved.write_bytes(saved.read_bytes()[:-2])
    record = run(AddsWhatItSaw(fit_images=3), store=Store(tmp_path), track="other-v1")
    assert record.status == "ok" and AddsWhatItSaw.learned == 2


def test_a_fit_never_sees_what_is_attacked() -> None:
    everything = ir.datasets.create("photos", split="all", limit=5, crop=48)
    spec_of = run(Brighten()).spec
    job = Job((spec_of,), everything, Brightness(), (None,), AddsWhatItSaw(), torch.device("cpu"))
    record = run_job(job)[0]
    assert record.status == "failed" and "the track attacks the split 'all'" in record.reason


def test_attacking_the_reference_moves_the_reference() -> None:
    on_image, on_reference = run(Brighten(), model=Darker()), run(BrightenReference(), model=Darker())
    for record, sign in ((on_image, -1), (on_reference, 1)):
        shift = (record.images["score_adv"] - record.images["score_clean"]).to_numpy()
        assert (sign * shift > 0).all()
        assert np.isclose(record.images["linf"], 4 / 255).all()
    items = [PHOTOS.load(row) for row in PHOTOS.rows()]
    refs = torch.stack([item.ref for item in items if item.ref is not None])
    brighter = (refs + 4 / 255).clamp(0, 1)
    expected = perturbation.psnr(refs.numpy(), brighter.numpy())
    np.testing.assert_allclose(on_reference.images["psnr"], expected, atol=1e-3)  # float32 of k/255


def test_a_row_holds_every_improvement() -> None:
    images = run(Brighten()).images
    for i in range(len(images)):
        assert images["curve_queries"][i] == [1]  # the clean image is the only one the attack asked about
        assert images["curve_scores"][i] == [pytest.approx(images["score_clean"][i], abs=1e-6)]
    assert (images["patch"] == 1).all()
    assert ((images["l0"] > 0.5) & (images["l0"] <= 1)).all()  # white values cannot rise
