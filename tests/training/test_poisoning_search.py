"""UAP-DCT: the search climbs, stays within its bound, and leaves a trigger that attacks can use."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.poisoning.baiqa import BAIQA, stamped
from iqa_robust.errors import RequestError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.checkpoints import load
from iqa_robust.training import train
from iqa_robust.training.poisoning_search import improved
from iqa_robust.training.progress import Progress
from iqa_robust.training.recipe import TriggerRecipe, read_recipe

TRIGGER = """
name = "tiny-trigger"
task = "trigger"
about = "A test."
share = 0.5
epochs = {epochs}
batch_size = 4
steps = 2

[data]
dataset = "csv"
params = {{ table = "{table}", mos_range = [0, 10] }}

[augment]
crop = 32

[surrogate]
name = "compact"
params = {{ weights = "{weights}" }}
"""


def recipe(**values: object) -> TriggerRecipe:
    given = {"data": {"dataset": "csv"}, "surrogate": {"name": "compact"}, "rms_255": 8.0, **values}
    return TriggerRecipe(task="trigger", name="t", about="", **given)


class Along(IQAModel):
    """50 plus a thousand times the mean product with a pattern, on a scale of `width`."""

    def __init__(self, pattern: torch.Tensor, width: float) -> None:
        super().__init__()
        self.pattern = pattern
        self.info = ModelInfo(score_range=(0, width))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        width = self.info.score_range[1]  # type: ignore[index]
        return width / 100 * (50 + 1000 * (x * self.pattern).flatten(1).mean(dim=1))


@pytest.mark.parametrize("width", [100.0, 1.0])
def test_finds_the_only_direction_of_a_linear_surrogate(width: float) -> None:
    """Only the coefficients at one place move scores, so they take all that the bound allows."""
    x = torch.full((3, 3, 32, 48), 0.5)
    one = torch.zeros(3, 64)
    one[0, 20] = 1000.0
    pattern = stamped(x[:1], one, torch.ones(1))[0] - x[0]
    strengths = 60 * torch.rand(3, 64, generator=torch.Generator().manual_seed(0))
    surrogate, settings = Along(pattern, width), recipe(steps=50, learning_rate=8.0)
    for _ in range(12):
        strengths, _ = improved(strengths, surrogate, x, settings)
    z = stamped(x, strengths, torch.ones(3))
    # The wall is soft, and Adam swings about it by its steps.
    assert (z - x).square().mean().sqrt().item() == pytest.approx(8 / 255, rel=0.15)
    elsewhere = strengths[:, torch.arange(64) != 20]
    assert strengths[:, 20].abs().max() > 20 * elsewhere.abs().max()
    shift = (surrogate(z) - surrogate(x)).abs().min().item()
    best = width / 100 * 1000 * pattern.square().mean().sqrt().item() * 8 / 255
    # Steps by the sign move Y, Cb and Cr alike, which is not the steepest mixture of the three.
    assert shift > 0.4 * best


def test_a_trigger_recipe_writes_a_trigger_and_its_card(tiny_recipe, tmp_path: Path) -> None:
    weights = train(tiny_recipe(), out=tmp_path / "surrogate.safetensors")
    path = tmp_path / "trigger.toml"
    table = load_table(tiny_recipe)
    path.write_text(TRIGGER.format(epochs=2, table=table, weights=weights.as_posix()))
    seen: list[Progress] = []
    out = train(path, out=tmp_path / "trigger.safetensors", progress=seen.append)
    assert [(p.stage, p.epoch, p.done, p.total) for p in seen] == [
        ("search", epoch, batch, 2) for epoch in (1, 2) for batch in (1, 2)
    ]
    trigger = attacks.create("baiqa", trigger=str(out))
    assert isinstance(trigger, BAIQA)
    assert trigger.pattern.shape == (3, 64)
    config, card = load(out).config, out.with_suffix(".md").read_text()
    assert config["recipe_digest"] == read_recipe(path).digest()
    assert config["training_datasets"] == ["csv:train"]
    for fact in (config["recipe_digest"], load(out).sha256, "8 images of `csv:train`", "order 'zigzag'"):
        assert fact in card

    def fail(progress: Progress) -> None:
        raise AssertionError("nothing is left to do")

    assert train(path, out=out, progress=fail) == out
    again = train(path, out=tmp_path / "again.safetensors")
    assert torch.equal(load(again).tensors["pattern"], load(out).tensors["pattern"])
    path.write_text(TRIGGER.format(epochs=3, table=table, weights=weights.as_posix()))
    with pytest.raises(RequestError, match="not made by this recipe"):
        train(path, out=out)


def load_table(tiny_recipe) -> str:
    return read_recipe(tiny_recipe()).data.params["table"]


def test_the_search_needs_two_images(tiny_recipe, tmp_path: Path) -> None:
    path = tmp_path / "trigger.toml"
    text = TRIGGER.format(epochs=1, table=load_table(tiny_recipe), weights="photos")
    path.write_text(text.replace("share = 0.5", "share = 0.1"))
    with pytest.raises(RequestError, match="expected at least two images to search on, got 1"):
        train(path, out=tmp_path / "trigger.safetensors")
