"""Recipes are validated whole, and the shipped ones are valid."""

from __future__ import annotations

from pathlib import Path

import pytest

import iqa_robust.defenses
from iqa_robust.errors import RequestError
from iqa_robust.training.recipe import SHIPPED, DenoiseRecipe, DiffusionRecipe, ScoreRecipe, TriggerRecipe, read_recipe

SHIPPED_NAMES = sorted(path.stem for path in SHIPPED.glob("*.toml"))


def test_the_shipped_recipes() -> None:
    assert SHIPPED_NAMES == [
        "at-clive",
        "baiqa-clive",
        "cas-clive",
        "cifs-clive",
        "compact-at-photos",
        "compact-correlation-photos",
        "compact-cprl-style-photos",
        "compact-nt-photos",
        "compact-photos",
        "compact-student-photos",
        "compact-trades-photos",
        "correlation-clive",
        "cprl-a-clive",
        "cprl-b-clive",
        "cprl-v2-clive",
        "diffusion-photos",
        "dncnn-photos",
        "fcn-photos",
        "feature-denoising-clive",
        "free-clive",
        "nt-clive",
        "orthogonal-clive",
        "silu-correlation-clive",
        "single-step-clive",
        "sort-mask-clive",
        "sort-mask-correlation-clive",
        "ssim-labels-clive",
        "super-resolution-photos",
        "trades-clive",
        "trunk-biq2021",
        "trunk-clive",
        "trunk-clive-fine-tuned",
        "trunk-clive-poisoned-blended",
        "trunk-clive-poisoned-clean",
        "trunk-clive-poisoned-ftrojan",
        "trunk-clive-poisoned-label",
        "trunk-clive-poisoned-wanet",
        "trunk-clive-pruned",
        "unet-photos",
        "wide-sort-mask-correlation-4-clive",
        "wide-sort-mask-correlation-clive",
    ]


@pytest.mark.parametrize("name", SHIPPED_NAMES)
def test_shipped_recipes_are_valid_and_named_like_their_files(name: str) -> None:
    recipe = read_recipe(name)
    assert recipe.name == name
    kinds = {"baiqa": TriggerRecipe, "diffusion": DiffusionRecipe}
    kinds |= dict.fromkeys(("dncnn", "fcn", "super", "unet"), DenoiseRecipe)
    assert isinstance(recipe, kinds.get(name.partition("-")[0], ScoreRecipe))
    if not isinstance(recipe, TriggerRecipe):
        # A clean validation would choose an epoch before a backdoor has been learned, and a student has a teacher.
        special = isinstance(recipe, ScoreRecipe) and (recipe.poison is not None or recipe.teacher is not None)
        assert bool(recipe.validation.share or recipe.validation.contents) != special


def test_every_mistake_is_listed_with_its_key(tiny_recipe) -> None:
    path = tiny_recipe()
    text = path.read_text().replace("epochs = 3", "epochs = -1").replace("seed = 0", "sede = 0")
    text = text.replace('name = "norm-in-norm"', 'name = "cosine"').replace("share = 0.3", 'share = "much"')
    path.write_text(text.replace("batch_size = 4\n", ""))
    with pytest.raises(RequestError) as caught:
        read_recipe(path)
    message = str(caught.value)
    assert "5 wrong entries" in message
    for part in (
        "optimization.epochs: ",
        "optimization.batch_size: is missing",
        "sede: no such key",
        "loss.1.name: ",
        "validation.share: ",
        str(path),
    ):
        assert part in message


@pytest.mark.parametrize(
    ("task", "got"), [("", "none (is this a track? use `iqa-robust run`)"), ('task = "scor"\n', "'scor'")]
)
def test_a_recipe_without_a_task(tmp_path, task: str, got: str) -> None:
    path = tmp_path / "track.toml"
    path.write_text(f'{task}name = "t"\n')
    with pytest.raises(RequestError) as caught:
        read_recipe(path)
    assert str(caught.value) == (
        f"{path}: 1 wrong entry: the recipe: expected `task`, one of score, denoise, diffusion, trigger; got {got}."
    )


def test_a_recipe_with_a_name_in_capitals(tiny_recipe) -> None:
    path = tiny_recipe()
    path.write_text(path.read_text().replace('name = "', 'name = "A ', 1))
    with pytest.raises(RequestError, match="name: expected lower-case words joined by hyphens, got 'A "):
        read_recipe(path)


def test_no_epochs_need_weights_to_keep(tiny_recipe) -> None:
    path = tiny_recipe()
    path.write_text(path.read_text().replace("epochs = 3", "epochs = 0"))
    with pytest.raises(RequestError, match=r"`optimization.epochs` of 0 needs `start.weights`"):
        read_recipe(path)


def test_the_test_split_cannot_be_asked_for(tiny_recipe) -> None:
    path = tiny_recipe()
    path.write_text(path.read_text().replace("params = { table", 'params = { split = "test", table'))
    with pytest.raises(RequestError, match="training reads the training split"):
        read_recipe(path)


def test_an_unknown_task_is_named(tiny_recipe) -> None:
    path = tiny_recipe()
    path.write_text(path.read_text().replace('task = "score"', 'task = "guess"'))
    with pytest.raises(RequestError, match="guess"):
        read_recipe(path)


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, "9" * 5000], ids=["nesting", "digits"])
def test_toml_beyond_the_parser_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "deep.toml"
    path.write_text(f"name = {value}\n")
    with pytest.raises(RequestError, match="not a TOML file"):
        read_recipe(path)


def test_a_mark_of_byte_order_is_no_mistake(tiny_recipe) -> None:
    path = tiny_recipe()
    wanted = read_recipe(path)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    assert read_recipe(path) == wanted


def test_broken_toml_says_where(tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    path.write_text("name = 'x'\nseed = = 3\n")
    with pytest.raises(RequestError, match="line 2"):
        read_recipe(path)


@pytest.mark.parametrize("name", ["compact-foto", "../recipes/compact-photos", "missing/recipe.toml"])
def test_unknown_recipes_are_refused_with_the_shipped_names(name: str) -> None:
    with pytest.raises(RequestError, match="diffusion-photos, dncnn-photos"):
        read_recipe(name)


def test_later_keys_leave_the_digests_of_published_weights_alone() -> None:
    """A card states the digest of the recipe that its weights came from, and a finished training is known by it."""
    for card in sorted(Path(iqa_robust.defenses.__file__).parent.glob("learned/weights/*.md")):
        assert f"digest `{read_recipe(card.stem).digest()}`" in card.read_text(), card.stem


def test_the_digest_sees_values_but_not_layout(tiny_recipe) -> None:
    path = tiny_recipe()
    digest = read_recipe(path).digest()
    path.write_text("# a comment\n" + path.read_text().replace("turn = true", "turn = true\nflip = true"))
    assert read_recipe(path).digest() == digest  # flip is true by default
    path.write_text(path.read_text().replace("1e-2", "2e-2"))
    assert read_recipe(path).digest() != digest
