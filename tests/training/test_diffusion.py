"""Training a diffusion model end to end on a tiny dataset, and how it is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iqa_robust import defenses
from iqa_robust.defenses.learned.diffusion_network import linear_alpha_bar
from iqa_robust.errors import RequestError
from iqa_robust.models.checkpoints import load
from iqa_robust.models.randomness import seeded
from iqa_robust.training import train
from iqa_robust.training.diffusion import DiffusionTask
from iqa_robust.training.progress import silent
from iqa_robust.training.recipe import read_recipe

DIFFUSION = """
name = "tiny-diffusion"
task = "diffusion"
about = "A test."
license = "MIT"
seed = {seed}
precision = "{precision}"
patch = 24
patches_per_epoch = 64

[network]
name = "diffusion"
params = {{ widths = [8, 16], blocks = 1, embedding = 8, last_step = 120 }}

[data]
dataset = "csv"
params = {{ table = "{table}", mos_range = [0, 10] }}

[optimization]
epochs = 12
batch_size = 8
optimizer = "adam"
learning_rate = 5e-3

[validation]
contents = ["content1", "content2"]
"""


def test_it_learns_to_predict_noise_serves_and_resumes(tiny_recipe, tmp_path: Path) -> None:
    out = train(tiny_recipe(DIFFUSION), out=tmp_path / "model.safetensors")
    card = out.with_suffix(".md").read_text()
    gains = [line.split("|")[-2] for line in card.splitlines() if line.startswith("| test | psnr_gain at step ")]
    assert len(gains) == 4
    assert float(gains[2]) > 1  # ramps are easy: a tenth of the noise of step 50 is told from them in seconds
    x = torch.rand(1, 3, 30, 33)
    with seeded([1]):
        assert defenses.create("diffpure", weights=str(out), t=100).purify(x).shape == x.shape

    def stop(progress) -> None:
        if progress.stage == "train" and progress.epoch == 3:
            raise KeyboardInterrupt

    cut = tmp_path / "cut.safetensors"
    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(DIFFUSION), out=cut, progress=stop)
    train(tiny_recipe(DIFFUSION), out=cut)
    first, second = load(out).tensors, load(cut).tensors
    assert all(torch.equal(first[key], second[key]) for key in second)


def test_the_network_must_be_a_diffusion_model(tiny_recipe, tmp_path: Path) -> None:
    path = tiny_recipe(DIFFUSION.replace('name = "diffusion"', 'name = "unet"'))
    with pytest.raises(RequestError, match="expected one of 'diffusion', got 'unet'"):
        train(path, out=tmp_path / "model.safetensors")


def test_predicting_nothing_gains_nothing_and_a_tenth_of_the_error_gains_20_db(tiny_recipe) -> None:
    task = DiffusionTask(read_recipe(tiny_recipe(DIFFUSION)), data_root=None)
    picture = torch.full((3, 32, 32), 0.5)
    gains = task.judge([picture], "test", silent)
    assert all(value == pytest.approx(0, abs=1e-6) for value in gains.values())  # an untrained network predicts zero
    alpha_bar = linear_alpha_bar()

    class Nearly(torch.nn.Module):
        def forward(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
            return 0.9 * x / (1 - alpha_bar[t].float()).sqrt().view(-1, 1, 1, 1)  # the clean picture is 0 in [-1, 1]

    task.network = Nearly()
    for value in task.judge([picture], "test", silent).values():
        assert value == pytest.approx(20, abs=1e-3)  # float32
