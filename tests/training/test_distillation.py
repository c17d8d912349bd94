"""A recipe with a teacher: its scores of the patches are the labels."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_robust import models
from iqa_robust.errors import RequestError
from iqa_robust.training.progress import silent
from iqa_robust.training.recipe import ScoreRecipe, read_recipe
from iqa_robust.training.regressor import ScoreTask

from .conftest import SCORE

TEACHER = '\n[teacher]\nname = "{name}"\n\n[augment]\n'


def task(tiny_recipe, tmp_path: Path, name: str = "compact") -> ScoreTask:
    recipe = read_recipe(tiny_recipe(SCORE.replace("\n[augment]\n", TEACHER.replace("{name}", name))))
    assert isinstance(recipe, ScoreRecipe)
    return ScoreTask(recipe, data_root=None, labels=tmp_path / "labels.csv", listener=silent)


def test_who_answers_as_the_teacher_has_no_loss_whatever_the_labels(tiny_recipe, tmp_path: Path) -> None:
    distill = task(tiny_recipe, tmp_path)
    teacher = models.create("compact")
    images, mos = next(iter(distill.batches(1)))
    distill.network.features = lambda x: x
    distill.network.score_features = lambda x: teacher(x) / 10  # from the teacher's 0..100 to the labels' 0..10
    assert distill.loss((images, mos)).abs() < 1e-5  # float32 scores on [-1, 1]
    distill.network.score_features = lambda x: teacher(x).flip(0) / 10
    assert distill.loss((images, mos)) > 1e-3
    distill.network.score_features = lambda x: mos
    assert distill.loss((images, mos)) > 1e-3


def test_a_teacher_must_score_single_images_on_a_known_scale(tiny_recipe, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="'psnr' must be no-reference and have a score range"):
        task(tiny_recipe, tmp_path, "psnr")


def test_the_shipped_student_is_what_its_recipe_makes() -> None:
    student = models.create("compact", weights="student")
    recipe = read_recipe("compact-student-photos")
    card = (Path(models.__file__).parent / "weights" / "compact-student-photos.md").read_text()
    assert student.info.weights_sha256 in card and recipe.digest() in card
    assert student.info.score_range == models.create("compact").info.score_range
