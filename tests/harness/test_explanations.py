"""Cells of gated models leave explanations: of known answer, the same from every executor, and never in the way."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brightness import Brightness
from by_hand import OPEN, SIGNS, GatedColors
from PIL import Image

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.harness.execute import Job, run_job, run_part
from iqa_robust.harness.explanations import map_png, picture
from iqa_robust.harness.store import Store
from iqa_robust.models.base import IQAModel, with_score_range
from iqa_robust.models.gates.explain import LayerExplanation
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget, Component, Explanations, RunRecord, RunSpec, explanation_files

PHOTOS = ir.datasets.create("photos", limit=6, crop=48)
EPS = 4 / 255


class Brighten(Attack):
    """Adds eps everywhere."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x + budget.eps


class Query(Brighten):
    """The same without a look at the model."""

    access = "black"


class Planned(SetAttack):
    """Brightens what scores above the mean of the whole set, darkens the rest."""

    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        return torch.where(scores.clean > scores.clean.mean(), scores.clean + 1, scores.clean - 1)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        assert objective.goal.target is not None
        way = torch.sign(objective.goal.target - objective.score_clean)
        return x + budget.eps * way[:, None, None, None]


class Mute(GatedColors):
    """Gated, and says nothing of itself."""

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        return None


class Failing(GatedColors):
    """Cannot explain what is brighter than it was."""

    def explain(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> list[LayerExplanation] | None:
        raise ZeroDivisionError("by design")


def spec(knowledge: str = "adaptive", defense: str | None = None) -> RunSpec:
    return RunSpec(
        track="t-v1",
        dataset=Component(name="photos", params={"limit": 6}),
        manifest=PHOTOS.manifest(),
        model=Component(name="gated-colors"),
        weights_sha256=None,
        score_range=(-1.0, 2.0),
        defense=None if defense is None else Component(name=defense),
        attack=Component(name="brighten"),
        goal="away",
        target=None,
        budget=Budget(eps_255=4),
        knowledge=knowledge,
        seed=0,
        package_version="0",
    )


def job(
    specs: Sequence[RunSpec],
    *,
    model: IQAModel | None = None,
    attack: Attack | None = None,
    defenses: Sequence[Any] = (None,),
    batch_size: int = 8,
) -> Job:
    return Job(
        specs=tuple(specs),
        dataset=PHOTOS,
        model=model or GatedColors(),
        defenses=tuple(defenses),
        attack=attack or Brighten(),
        device=torch.device("cpu"),
        batch_size=batch_size,
    )


def recorded(out: Path, wanted: Job) -> RunRecord:
    """The record as the store reads it back."""
    store = Store(out)
    digest = run_job(wanted, store)[0].digest
    record = store.read(digest)
    assert record is not None
    return record


def explanations(record: RunRecord) -> Explanations:
    assert record.explanations is not None
    return record.explanations


def bytes_of(out: Path, digest: str) -> dict[str, bytes]:
    return {name: file.read_bytes() for name, file in explanation_files(out / "runs" / f"{digest}.json").items()}


def test_the_first_images_are_explained_clean_and_attacked(tmp_path: Path) -> None:
    record = recorded(tmp_path, job([spec()], model=with_score_range(GatedColors(), (-1.0, 2.0))))
    found = explanations(record)
    items = list(PHOTOS)[:4]
    assert list(dict.fromkeys(found.pictures["image_id"])) == [item.image_id for item in items]
    for item in items:
        for state, shift, column in (("clean", 0.0, "score_clean"), ("attacked", EPS, "score_adv")):
            x = (item.x.double() + shift).clamp(max=1)
            # what each color contributes to the score, in closed form
            passed = (OPEN * SIGNS).double() * x.mean(dim=(1, 2))
            at = (found.channels["image_id"] == item.image_id) & (found.channels["state"] == state)
            rows = found.channels[at].sort_values("channel")
            assert list(rows["layer"]) == ["gate"] * 3
            np.testing.assert_allclose(rows["importance"], passed.abs(), atol=1e-5)  # float32 sums of 2,304 values
            assert list(rows["rank"]) == [sorted(-passed.abs()).index(-value) + 1 for value in passed.abs()]
            np.testing.assert_array_equal(rows["weight"], OPEN)
            shot = found.pictures[(found.pictures["image_id"] == item.image_id) & (found.pictures["state"] == state)]
            scored = record.images.set_index("image_id").loc[item.image_id, column]
            assert float(shot["score"].item()) == pytest.approx(scored, abs=1e-5)
            # the map is red minus green where that is positive, 48 pixels a side averaged to 32
            slope = (OPEN * SIGNS).double()[:, None, None] * x / (48 * 48)
            exact = torch.nn.functional.adaptive_avg_pool2d(slope.sum(dim=0).relu()[None], 32)[0]
            one = found.maps[(found.maps["image_id"] == item.image_id) & (found.maps["state"] == state)]
            causal = one[one["kind"] == "causal"].iloc[0]
            assert float(causal["peak"]) == pytest.approx(float(exact.max()), rel=1e-4)
            drawn = np.asarray(Image.open(io.BytesIO(causal["map"]))) / 255 * causal["peak"]
            np.testing.assert_allclose(drawn, exact, atol=float(exact.max()) / 255)  # half a level, and rounding


def test_numbers_are_those_of_a_cell_without_explanations(tmp_path: Path) -> None:
    told = recorded(tmp_path / "a", job([spec()]))
    mute = recorded(tmp_path / "b", job([spec()], model=Mute()))
    assert told.explanations is not None and mute.explanations is None
    assert told.digest == mute.digest
    assert told.images.equals(mute.images)
    assert dict(told.facts) == dict(mute.facts)
    assert len(list((tmp_path / "b" / "runs").iterdir())) == 2
    assert "explanations_sha256" not in json.loads((tmp_path / "b" / "runs" / f"{mute.digest}.json").read_text())


def test_whoever_runs_a_cell_writes_the_same_bytes(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole", job([spec()]))
    small = recorded(tmp_path / "small", job([spec()], batch_size=1))
    ids = [row.image_id for row in PHOTOS.rows()]
    parts = Store(tmp_path / "parts")
    run_part(job([spec()], batch_size=3), parts, [ids[3:]])
    run_part(job([spec()], batch_size=3), parts, [ids[:3]])
    run_job(job([spec()], batch_size=3), parts)
    wanted = bytes_of(tmp_path / "whole", whole.digest)
    assert bytes_of(tmp_path / "small", small.digest) == wanted
    assert bytes_of(tmp_path / "parts", whole.digest) == wanted


def test_an_attack_that_must_see_the_set_first_does_so_when_others_ran_the_cell(tmp_path: Path) -> None:
    whole = recorded(tmp_path / "whole", job([spec()], attack=Planned()))
    assert "explanation_note" not in whole.facts
    parts = Store(tmp_path / "parts")
    run_part(job([spec()], attack=Planned()), parts, [[row.image_id for row in PHOTOS.rows()]])
    record = run_job(job([spec()], attack=Planned()), parts)[0]
    assert "explanation_note" not in record.facts
    assert bytes_of(tmp_path / "parts", whole.digest) == bytes_of(tmp_path / "whole", whole.digest)


def test_an_explanation_that_fails_is_noted_and_fails_nothing(tmp_path: Path) -> None:
    record = recorded(tmp_path, job([spec()], model=Failing()))
    assert (record.status, record.reason, record.explanations) == ("ok", "", None)
    assert record.facts["explanation_note"] == "ZeroDivisionError: by design"
    assert record.images.equals(recorded(tmp_path / "mute", job([spec()], model=Mute())).images)


def test_only_attackers_who_know_a_model_that_explains_itself(tmp_path: Path) -> None:
    assert recorded(tmp_path / "black", job([spec("black-box")], attack=Query())).explanations is None
    assert recorded(tmp_path / "other", job([spec()], model=Brightness())).explanations is None
    jpeg = ir.defenses.create("jpeg")
    pair = job([spec(), spec("oblivious", "jpeg")], defenses=(None, jpeg))
    bare, defended = run_job(pair, Store(tmp_path / "pair"))
    assert bare.explanations is not None and defended.explanations is None


def test_nothing_is_explained_that_nobody_keeps() -> None:
    assert run_job(job([spec()]))[0].explanations is None


def test_flags_are_replaced_around_explanations(tmp_path: Path) -> None:
    record = recorded(tmp_path, job([spec()]))
    before = bytes_of(tmp_path, record.digest)
    Store(tmp_path).replace_flags(record, ("degenerate",))
    found = Store(tmp_path).read(record.digest)
    assert found is not None and found.flags == ("degenerate",) and found.explanations is not None
    assert bytes_of(tmp_path, record.digest) == before


def test_maps_are_small_and_keep_their_scale() -> None:
    peak, content = map_png(torch.tensor([[0.0, 1.0], [0.5, 2.0]]))
    assert peak == 2.0
    assert np.asarray(Image.open(io.BytesIO(content))).tolist() == [[0, 128], [64, 255]]
    large = torch.zeros(64, 128)
    large[:4, :4] = 3.0
    peak, content = map_png(large)
    image = np.asarray(Image.open(io.BytesIO(content)))
    assert (peak, image.shape) == (3.0, (16, 32))  # four by four pixels become one
    assert image[0, 0] == 255 and image.sum() == 255
    assert map_png(torch.zeros(3, 3))[0] == 0.0
    with pytest.raises(ValueError, match="not finite"):
        map_png(torch.tensor([[torch.nan]]))


def test_pictures_are_small() -> None:
    made = Image.open(io.BytesIO(picture(torch.full((3, 100, 400), 0.5))))
    assert (made.format, made.size) == ("JPEG", (192, 48))
    assert made.getpixel((100, 20)) == (128, 128, 128)
