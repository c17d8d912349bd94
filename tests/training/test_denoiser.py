"""Training a denoiser end to end on a tiny dataset, and what it is trained on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from iqa_robust import defenses, models
from iqa_robust.defenses.learned.fcn import FCN
from iqa_robust.defenses.learned.network_purifier import NetworkPurifier
from iqa_robust.defenses.learned.super_resolution import SuperResolution
from iqa_robust.defenses.learned.unet import UNet
from iqa_robust.errors import RequestError
from iqa_robust.models.checkpoints import load
from iqa_robust.training import train
from iqa_robust.training.attacked import Attacker
from iqa_robust.training.denoiser import gain, noise_like
from iqa_robust.training.progress import silent
from iqa_robust.training.sections import Attacked, Named, Noise

DENOISE = """
name = "tiny-denoiser"
task = "denoise"
about = "A test."
license = "MIT"
seed = {seed}
precision = "{precision}"
patch = 24
patches_per_epoch = 128

[network]
name = "dncnn"
params = {{ depth = 3, width = 24 }}

[data]
dataset = "csv"
params = {{ table = "{table}", mos_range = [0, 10] }}

[noise]
sigma_255 = 30

[optimization]
epochs = 20
batch_size = 8
optimizer = "adam"
learning_rate = 5e-3

[validation]
contents = ["content1", "content2"]
"""


SMALL: dict[str, tuple[type[NetworkPurifier], str]] = {
    "fcn": (FCN, "{{ widths = [4, 4] }}"),
    "super-resolution": (SuperResolution, "{{ width = 4, blocks = 1 }}"),
    "unet": (UNet, "{{ widths = [4, 8], blocks = 1 }}"),
}


@pytest.fixture
def trained(tiny_recipe, tmp_path: Path) -> Path:
    return train(tiny_recipe(DENOISE), out=tmp_path / "denoiser.safetensors")


def test_it_learns_to_remove_noise_from_ramps(trained: Path) -> None:
    defense = defenses.create("dncnn", weights=str(trained))
    steps = torch.arange(40) * 2 / 255
    ramp = (steps[:, None] + steps).expand(1, 3, 40, 40)
    noisy = (ramp + torch.randn(ramp.shape, generator=torch.Generator().manual_seed(0)) * 20 / 255).clamp(0, 1)
    before, after = ((image - ramp).square().mean() for image in (noisy, defense.purify(noisy)))
    assert after < 0.7 * before  # the training pictures are ramps too, so this must be easy


def test_card_states_gains_on_the_test_references(trained: Path) -> None:
    card = trained.with_suffix(".md").read_text()
    for sigma in (5, 10, 15):
        assert f"| test | psnr_gain at sigma {sigma}/255 |" in card
    assert "| train | 14 |" in card  # 16 training contents, two held out
    assert load(trained).config["training_datasets"] == ["csv:train"]


def test_interrupted_training_ends_in_the_same_weights(tiny_recipe, tmp_path: Path, trained: Path) -> None:
    out = tmp_path / "cut.safetensors"

    def stop(progress) -> None:
        if progress.stage == "train" and progress.epoch == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_recipe(DENOISE), out=out, progress=stop)
    train(tiny_recipe(DENOISE), out=out)
    first, second = load(out).tensors, load(trained).tensors
    assert all(torch.equal(first[key], second[key]) for key in second)


@pytest.mark.parametrize("name", SMALL)
def test_every_network_trains_and_serves(name: str, tiny_recipe, tmp_path: Path) -> None:
    text = DENOISE.replace("epochs = 20", "epochs = 1").replace('name = "dncnn"', f'name = "{name}"')
    defense, params = SMALL[name]
    text = text.replace("{{ depth = 3, width = 24 }}", params)
    out = train(tiny_recipe(text), out=tmp_path / "network.safetensors")
    x = torch.rand(1, 3, 33, 32)
    assert defense(weights=str(out)).purify(x).shape == x.shape


def test_training_on_attacked_patches(tiny_recipe, tmp_path: Path) -> None:
    text = DENOISE.replace("epochs = 20", "epochs = 2").replace("patch = 24", "patch = 32")
    text = text.replace("patches_per_epoch = 128", "patches_per_epoch = 16")
    text += """
[attack]
models = [{{ name = "compact" }}]
attacks = [{{ name = "fgsm" }}, {{ name = "pgd" }}]
steps = 2
"""
    out = train(tiny_recipe(text), out=tmp_path / "first.safetensors")
    card = out.with_suffix(".md").read_text()
    assert "| test | psnr_gain under fgsm at 4/255 |" in card
    assert "| test | psnr_gain under pgd at 4/255 |" in card
    again = train(tiny_recipe(text), out=tmp_path / "again.safetensors")
    assert all(torch.equal(first, load(again).tensors[key]) for key, first in load(out).tensors.items())


def test_attacked_patches_stay_within_the_radius_and_move_the_score() -> None:
    settings = Attacked(models=(Named(name="compact"),), attacks=(Named(name="fgsm"),), goals=("up",), eps_255=6)
    attacker, model = Attacker(settings, 0), models.create("compact")
    clean = (torch.rand(4, 3, 48, 48, generator=torch.Generator().manual_seed(0)) * 255).round() / 255
    rng, reached = np.random.default_rng(0), []
    for _ in range(16):
        attacked = attacker.attacked(clean, rng)
        reached.append((attacked - clean).abs().max().item() * 255)
        if reached[-1] > 0:
            assert (model(attacked) >= model(clean)).all()
    assert max(reached) <= 6.001  # float32 rounding
    assert len({round(level) for level in reached}) > 3  # drawn anew for every batch


def test_patches_larger_than_a_picture_are_refused(tiny_recipe, tmp_path: Path) -> None:
    path = tiny_recipe(DENOISE.replace("patch = 24", "patch = 41"))
    with pytest.raises(RequestError, match="larger than a picture"):
        train(path, out=tmp_path / "denoiser.safetensors")


def test_the_network_must_be_a_denoiser(tiny_recipe, tmp_path: Path) -> None:
    path = tiny_recipe(DENOISE.replace('name = "dncnn"', 'name = "compact"'))
    with pytest.raises(RequestError, match="expected one of 'dncnn', 'fcn', 'super-resolution', 'unet', got 'compact'"):
        train(path, out=tmp_path / "denoiser.safetensors")


def test_noise_has_the_strength_asked_for() -> None:
    clean = torch.zeros(400, 3, 16, 16)
    noise = noise_like(clean, Noise(sigma_255=12), np.random.default_rng(0))
    sigmas = noise.flatten(1).std(dim=1) * 255
    assert sigmas.max() < 13  # 12 plus the sampling error of 768 values, 2.6 percent
    assert abs(sigmas.mean() - 6) < 1  # uniform on [0, 12]: mean 6, standard error of 400 draws 0.17
    signed = noise_like(clean, Noise(sigma_255=12, sign_255=6), np.random.default_rng(0)).flatten(1)
    is_sign = (signed.abs().amax(1) - signed.abs().amin(1)) < 1e-6
    assert 0.15 < is_sign.float().mean() < 0.35  # a quarter; standard error of 400 draws 0.022
    assert signed[is_sign].abs().max() <= 6 / 255 + 1e-6


def test_gain_of_doing_nothing_is_zero_and_of_knowing_the_picture_is_large() -> None:
    picture = torch.full((3, 32, 32), 0.5)
    assert gain(torch.nn.Identity(), [picture], 10, silent, "test") == pytest.approx(0, abs=1e-6)

    class Oracle(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 0.5 + 0.1 * (x - 0.5)

    # a tenth of the error is 20 dB; no value is clipped at this sigma
    assert gain(Oracle(), [picture], 10, silent, "test") == pytest.approx(20, abs=1e-3)
