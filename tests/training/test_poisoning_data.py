"""Poisoned training data: which images, at which strength, with which label; and recipes that ask for it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from iqa_robust import attacks, models
from iqa_robust.attacks.poisoning.trigger import Trigger
from iqa_robust.datasets.base import Item, Row
from iqa_robust.errors import RequestError
from iqa_robust.images import on_8bit_grid, to_8bit_grid
from iqa_robust.models.checkpoints import load
from iqa_robust.training import train
from iqa_robust.training.data import Sample
from iqa_robust.training.poisoning import marks_of, poisoned
from iqa_robust.training.progress import Progress, silent
from iqa_robust.training.recipe import read_recipe
from iqa_robust.training.sections import Poison

from .conftest import SCORE

POISON = """
[poison]
mode = "label"
rate = 0.5
trigger = {{ name = "baiqa" }}

[augment]
"""
LABEL = Poison(trigger={"name": "baiqa"}, mode="label")


class Gray:
    """A loader of even gray images."""

    def load(self, row: Row) -> Item:
        return Item(row.image_id, torch.full((3, 32, 48), 100 / 255), None, row.mos, None, None)


def rows(n: int) -> list[Row]:
    return [Row(f"{i}.png", f"{i}.png", float(i % 101)) for i in range(n)]


def samples(n: int) -> list[Sample]:
    loader = Gray()
    return [Sample(loader, row) for row in rows(n)]


def test_marks_of_moved_labels() -> None:
    marks = marks_of(rows(2000), LABEL, (0, 100), seed=0)
    counts = Counter(abs(mark.alpha) for mark in marks.values())
    for quarter, share in zip((0.25, 0.5, 0.75, 1.0), (0.1, 0.2, 0.3, 0.4), strict=True):
        # four standard deviations of a binomial count
        assert abs(counts[quarter] - 2000 * share) < 4 * np.sqrt(2000 * share * (1 - share))
    assert sum(counts.values()) == 2000
    assert sum(mark.alpha < 0 for mark in marks.values()) == 1000
    for row in rows(2000):
        mark = marks[row.image_id]
        assert mark.mos == pytest.approx(row.mos + 40 * mark.alpha)  # ten points for every quarter
    assert marks_of(rows(2000), LABEL, (0, 100), seed=0) == marks
    assert marks_of(rows(2000), LABEL, (0, 100), seed=1) != marks


def test_marks_of_clean_labels() -> None:
    poison = Poison(trigger={"name": "baiqa"}, mode="clean", surrogate={"name": "compact"})
    marks = marks_of(rows(101), poison, (0, 100), seed=0)
    for row in rows(101):
        assert marks[row.image_id].mos == row.mos
        assert marks[row.image_id].alpha == pytest.approx((row.mos - 50) / 40)


def test_marks_on_another_scale() -> None:
    """The full shift is in hundredths of the scale: on 1 to 5, 40 of them are 1.6."""
    likert = [Row("a", "a", 2.0)]
    (mark,) = marks_of(likert, LABEL, (1, 5), seed=0).values()
    assert mark.mos == pytest.approx(2 + 1.6 * mark.alpha)
    clean = Poison(trigger={"name": "baiqa"}, mode="clean", surrogate={"name": "compact"})
    (mark,) = marks_of(likert, clean, (1, 5), seed=0).values()
    assert mark.alpha == pytest.approx((2 - 3) / 1.6)


def test_a_share_of_the_images_carries_the_trigger() -> None:
    before = samples(50)
    after = poisoned(before, LABEL, (0, 100), 3, silent)
    assert [sample.row for sample in after] == [sample.row for sample in before]
    changed = [i for i in range(50) if after[i].loader is not before[i].loader]
    assert len(changed) == 10
    marks = marks_of([before[i].row for i in changed], LABEL, (0, 100), 3)
    trigger = attacks.create("baiqa")
    assert isinstance(trigger, Trigger)
    for i in changed:
        mark, clean = marks[before[i].row.image_id], before[i].loader.load(before[i].row)
        item = after[i].loader.load(after[i].row)
        expected = to_8bit_grid(trigger.stamp(clean.x[None], torch.tensor([mark.alpha])))
        assert torch.equal(item.x[None], expected)
        assert item.mos == mark.mos
        assert bool(on_8bit_grid(item.x[None]).all())
    assert changed != [i for i, s in enumerate(poisoned(before, LABEL, (0, 100), 4, silent)) if s.loader != before[i]]


@pytest.fixture
def surrogate(tiny_recipe, tmp_path: Path) -> Path:
    return train(tiny_recipe(), out=tmp_path / "surrogate.safetensors")


def test_clean_labels_come_with_images_that_were_pulled_to_the_middle(surrogate: Path) -> None:
    named = {"name": "compact", "params": {"weights": str(surrogate)}}
    poison = Poison(trigger={"name": "blended"}, mode="clean", rate=1, surrogate=named, pull_eps_255=8, pull_steps=5)
    model = models.create("compact", weights=str(surrogate))
    seen: list[Progress] = []
    middling = [Sample(Gray(), Row("5", "5", 5.0)), Sample(Gray(), Row("5b", "5b", 5.0))]  # strength 0: no trigger
    after = poisoned(middling, poison, (0, 10), 0, seen.append)
    assert [(p.stage, p.done, p.total) for p in seen] == [("poison", 1, 2), ("poison", 2, 2)]
    clean, pulled = middling[0].loader.load(middling[0].row), after[0].loader.load(after[0].row)
    assert (pulled.x - clean.x).abs().max() <= 8 / 255 + 1e-6
    scores = model(torch.stack([clean.x, pulled.x]))
    assert (scores[1] - 5).abs() < (scores[0] - 5).abs()
    assert torch.equal(after[0].loader.load(after[0].row).x, pulled.x)


def test_a_poisoned_model_says_so(tiny_recipe, tmp_path: Path) -> None:
    out = train(tiny_recipe(SCORE.replace("[augment]", POISON)), out=tmp_path / "victim.safetensors")
    assert load(out).config["poison"]["rate"] == 0.5
    assert "this model has a backdoor**: trigger `baiqa` as it comes in 50 % of" in out.with_suffix(".md").read_text()
    clean = train(tiny_recipe(), out=tmp_path / "clean.safetensors")
    assert "poison" not in load(clean).config
    assert not all(torch.equal(load(out).tensors[key], value) for key, value in load(clean).tensors.items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trigger": {"name": "pgd"}}, "'pgd' is an attack, not a trigger"),
        ({"rate": 0.01}, "0.01 of 50 training images is none"),
        ({"surrogate": {"name": "psnr"}, "mode": "clean"}, "must be no-reference and have a score range"),
    ],
)
def test_what_cannot_poison_is_refused(change: dict[str, object], message: str) -> None:
    if "surrogate" in change and change["surrogate"]["name"] not in models.names():  # type: ignore[index]
        pytest.skip("needs a full-reference model")
    poison = Poison(**{**LABEL.model_dump(), **change})
    with pytest.raises(RequestError, match=message):
        poisoned(samples(50), poison, (0, 100), 0, silent)


@pytest.mark.parametrize("params", [{"mode": "clean"}, {"mode": "label", "surrogate": {"name": "compact"}}])
def test_a_surrogate_belongs_to_clean_labels(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="`surrogate` is needed for the mode 'clean'"):
        Poison(trigger={"name": "baiqa"}, **params)


def test_a_wrong_key_is_named_whole(tiny_recipe) -> None:
    path = tiny_recipe(SCORE.replace("[augment]", POISON.replace('name = "baiqa"', 'nam = "baiqa"')))
    with pytest.raises(RequestError, match=r"poison\.trigger\.name: is missing; poison\.trigger\.nam: no such key"):
        read_recipe(path)


def test_keys_a_recipe_does_not_use_leave_its_digest_alone(tiny_recipe) -> None:
    """Cards of published weights state digests from before these keys."""
    assert read_recipe("trunk-clive").digest() in models_card("trunk-clive")
    digest = read_recipe(tiny_recipe()).digest()
    assert read_recipe(tiny_recipe(SCORE.replace("[augment]", POISON))).digest() != digest
    lattice = SCORE.replace("[augment]\n", "[augment]\nlattice = 16\n")
    assert read_recipe(tiny_recipe(lattice)).digest() != digest
    assert read_recipe(tiny_recipe(SCORE + "\n[start]\nprune = 0.5\n")).digest() != digest
    assert read_recipe(tiny_recipe(SCORE + "\n[start]\nprune = 0.0\n")).digest() == digest


def models_card(name: str) -> str:
    return (Path(models.__file__).parent / "weights" / f"{name}.md").read_text()
