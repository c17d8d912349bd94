"""Robust recipes end to end on a tiny dataset: every term trains, resumes to the same weights, and is on the card."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr

from iqa_robust import models
from iqa_robust.errors import RequestError
from iqa_robust.models.checkpoints import load
from iqa_robust.training import train
from iqa_robust.training.data import Sample
from iqa_robust.training.recipe import ScoreRecipe, read_recipe
from iqa_robust.training.regressor import ScoreTask

from .conftest import SCORE

INNER = """
[inner]
aim = "against-ranking"
eps_255 = 4
steps = 2
ramp = 0.5
"""
FREE = """
[inner]
method = "free"
start = "clean"
eps_255 = 4
steps = 3
"""
ATTACKED = """
[[loss]]
name = "plcc"
on = "attacked"
"""


def term(name: str) -> str:
    return f'\n[[loss]]\nname = "{name}"\nweight = 0.1\n'


class StoppedError(Exception):
    """Ends a training early."""


def changed(before: Path, after: Path) -> bool:
    first, second = load(before).tensors, load(after).tensors
    return any(not torch.equal(first[key], second[key]) for key in first)


@pytest.fixture
def plain(tiny_recipe, tmp_path: Path) -> Path:
    return train(tiny_recipe(), out=tmp_path / "plain.safetensors")


@pytest.mark.parametrize(
    "extra",
    [
        INNER + ATTACKED,
        INNER.replace("against-ranking", "difference") + term("difference"),
        INNER + term("scaled-difference"),
        INNER + term("invariance") + "\n[interventions]\ncount = 2\n",
        FREE + ATTACKED,
        INNER.replace("steps = 2", 'steps = 2\nmethod = "apgd"') + ATTACKED,
        INNER.replace("steps = 2", 'steps = 1\nstart = "noise"') + ATTACKED,
        INNER.replace("steps = 2", 'labels = "ssim"') + ATTACKED,
        term("gradient-norm"),
        term("necessity") + "\n[latent]\ndistance = 0.3\n",
        term("fidelity"),
        term("orthogonality"),
    ],
    ids=[
        "correlation", "trades", "scaled-trades", "invariance", "free", "apgd", "n-fgsm", "ssim-labels", "nt",
        "necessity", "fidelity", "orthogonality",
    ],
)  # fmt: skip
def test_every_term_moves_the_weights_and_resumes_to_the_same(
    tiny_recipe, tmp_path: Path, plain: Path, extra: str
) -> None:
    recipe = tiny_recipe(extra=extra)
    whole = train(recipe, out=tmp_path / "whole.safetensors")
    assert changed(plain, whole)

    def stop(progress) -> None:
        if (progress.stage, progress.epoch, progress.done) == ("train", 2, 2):
            raise StoppedError

    cut = tmp_path / "cut.safetensors"
    with pytest.raises(StoppedError):
        train(recipe, out=cut, progress=stop)
    train(recipe, out=cut)
    assert not changed(whole, cut)


def test_card_and_log_tell_the_attacked_measures(tiny_recipe, tmp_path: Path) -> None:
    out, log = tmp_path / "robust.safetensors", tmp_path / "logs" / "robust.csv"
    train(tiny_recipe(extra=INNER + ATTACKED), out=out, log=log)
    card = out.with_suffix(".md").read_text()
    assert "| test, attacked | srocc at 2/255 |" in card
    assert "`srocc_attacked`: 5 sign steps from a random start, 4/255, push" in card
    assert "middle" not in card.partition("Under attack")[0]  # this recipe judges whole images
    assert "| objective | inner: aim = against-ranking, eps_255 = 4.0, steps = 2, ramp = 0.5" in card
    table = pd.read_csv(log)
    assert table["epoch"].tolist() == [1, 2, 3]
    assert table["both"].to_numpy() == pytest.approx((table["srocc"] + table["srocc_attacked"]) / 2)


def test_the_attack_of_a_card_covers_contents_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of a content stand together in the table, as those of databases do."""
    rng = np.random.default_rng(0)
    lines = ["image,mos,split,reference_id"]
    for number in range(88):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(tmp_path / f"{number}.png")
        lines.append(f"{number}.png,{number * 37 % 88},{'test' if number < 80 else 'train'},c{number // 10}")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    recipe = tmp_path / "many.toml"
    table = (tmp_path / "labels.csv").as_posix()
    text = SCORE.format(seed=0, precision="half", table=table).replace("[0, 10]", "[0, 88]").replace("share = 0.3", "")
    recipe.write_text(text.replace("epochs = 3", "epochs = 1"))
    given: list[Sample] = []
    attacked = ScoreTask.attacked

    def note(task: ScoreTask, samples: Sequence[Sample], *args: Any) -> list[float]:
        given.extend(samples)
        return attacked(task, samples, *args)

    monkeypatch.setattr(ScoreTask, "attacked", note)
    out = train(recipe, out=tmp_path / "many.safetensors")
    assert len(given) == 32
    assert {sample.row.content for sample in given} == {f"c{i}" for i in range(8)}
    labels = np.array([sample.row.mos for sample in given])
    assert np.histogram(labels, bins=4, range=(0, 88))[0].min() >= 6
    model = models.create("compact", weights=str(out))
    with torch.no_grad():
        scores = [model(sample.loader.load(sample.row).x[None]).item() for sample in given]
    card = out.with_suffix(".md").read_text()
    assert f"| test, attacked | srocc at 0/255 | {spearmanr(scores, labels).statistic:.4f} |" in card
    assert "at most 32 test images, spread over the labels; 0/255 are the same crops without attack." in card


def test_free_training_replays_every_batch(tiny_recipe, tmp_path: Path) -> None:
    totals = []
    extra = FREE + ATTACKED
    train(
        tiny_recipe(extra=extra),
        out=tmp_path / "free.safetensors",
        progress=lambda p: totals.append(p.total) if p.stage == "train" else None,
    )
    assert set(totals) == {9}  # eleven training images: three batches, three visits each


@pytest.mark.parametrize(
    ("extra", "complaint"),
    [
        (ATTACKED, "the term 'plcc' needs an `inner` player"),
        (INNER.replace("against-ranking", "elsewhere"), "inner.aim"),
        (term("difference"), "the term 'difference' needs an `inner` player"),
        (INNER + term("difference") + 'on = "attacked"\n', "`on` belongs to terms that compare scores with labels"),
    ],
)
def test_recipes_without_sense_are_refused(tiny_recipe, extra: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=complaint.replace("(", r"\(")):
        read_recipe(tiny_recipe(extra=extra))


def test_choosing_by_attacked_scores_needs_a_player(tiny_recipe) -> None:
    with pytest.raises(RequestError, match=r"'both' needs `validation\.eps_255` or an `inner` player"):
        read_recipe(tiny_recipe(choose="both"))


def test_a_radius_of_the_validation_judges_without_a_player(tiny_recipe, tmp_path: Path) -> None:
    recipe, log = tiny_recipe(), tmp_path / "clean.csv"
    recipe.write_text(recipe.read_text().replace("[validation]", "[validation]\neps_255 = 2\ncrop = 32"))
    out = train(recipe, out=tmp_path / "clean.safetensors", log=log)
    table = pd.read_csv(log)
    assert table["both"].to_numpy() == pytest.approx((table["srocc"] + table["srocc_attacked"]) / 2)
    card = out.with_suffix(".md").read_text()
    assert f"epoch {table['both'].idxmax() + 1} was kept" in card
    assert "The validation part was judged on the middle 32 pixels of its images." in card


def test_recipes_without_robust_sections_keep_their_digest() -> None:
    """Published weights state the digest of their recipe; it must not change with what recipes can say."""
    recipe = read_recipe("trunk-clive")
    assert isinstance(recipe, ScoreRecipe)
    card = (Path(__file__).parents[2] / "iqa_robust" / "models" / "weights" / "trunk-clive.md").read_text()
    assert recipe.digest() in card


@pytest.mark.parametrize("gate", ['name = "soft-rank"', 'name = "sort-mask", form = "elements"'])
def test_a_gate_can_be_put_on_trained_weights(tiny_recipe, tmp_path: Path, plain: Path, gate: str) -> None:
    text = tiny_recipe().read_text().replace("dropout = 0.5 }", f"dropout = 0.5, gate = {{ {gate} }} }}")
    text = text.replace("epochs = 3", "epochs = 0").replace(
        "[network]", f'[start]\nweights = "{plain.as_posix()}"\n\n[network]'
    )
    path = tmp_path / "gated.toml"
    path.write_text(text)
    gated = train(path, out=tmp_path / "gated.safetensors")
    assert not changed(plain, gated)
    assert load(gated).config["params"]["gate"]["name"] in gate
    scores = [models.create("compact", weights=str(file))(torch.full((1, 3, 32, 32), 0.5)) for file in (plain, gated)]
    assert scores[0] != scores[1]

    file = tmp_path / "further.toml"
    file.write_text(text.replace("epochs = 0", "epochs = 1"))
    assert changed(gated, train(file, out=tmp_path / "further.safetensors"))
