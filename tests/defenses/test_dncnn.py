"""The residual denoiser: geometry, gradients, and what the published weights reach."""

from __future__ import annotations

import pytest
import torch

from iqa_robust import datasets, defenses
from iqa_robust.defenses.learned.dncnn import DnCNN, ResidualDenoiser
from iqa_robust.defenses.learned.network_purifier import WEIGHTS
from iqa_robust.errors import CheckpointError
from iqa_robust.models.checkpoints import load
from iqa_robust.training.denoiser import gain
from iqa_robust.training.patches import first_of_each_content, references
from iqa_robust.training.progress import silent


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 32), (32, 45), (33, 45)])
def test_any_size_is_kept(height: int, width: int) -> None:
    purified = defenses.create("dncnn").purify(torch.rand(2, 3, height, width))
    assert purified.shape == (2, 3, height, width)
    assert bool(((purified >= 0) & (purified <= 1)).all())


def test_without_predicted_noise_the_image_stays() -> None:
    network = ResidualDenoiser(depth=3, width=4)
    with torch.no_grad():
        network.noise[-2].weight.zero_()
        network.noise[-2].bias.zero_()
    x = torch.rand(1, 3, 21, 20)
    assert torch.equal(network(x), x)


def test_it_is_its_own_surrogate_and_has_gradients() -> None:
    defense = defenses.create("dncnn")
    x = (torch.rand(1, 3, 32, 32) * 0.5 + 0.25).requires_grad_()
    defense.surrogate(x).sum().backward()
    assert x.grad is not None
    assert bool((x.grad.abs() > 0).any())
    assert torch.equal(defense.surrogate(x), defense.purify(x))


def test_batches_do_not_matter() -> None:
    defense = defenses.create("dncnn")
    x = torch.rand(3, 3, 40, 40)
    alone = torch.cat([defense.purify(image[None]) for image in x])
    torch.testing.assert_close(defense.purify(x), alone, rtol=0, atol=1e-5)  # float32 sums in another order


def test_published_weights_remove_noise_from_held_out_photos() -> None:
    network = defenses.create("dncnn")
    pictures = references(first_of_each_content(datasets.create("photos", split="test"))[::4], "test")
    network.purify(torch.zeros(1, 3, 32, 32))
    measured = [gain(network._built, pictures, sigma, silent, "test") for sigma in (5, 10, 15)]
    assert measured[0] > GAINS[0]
    assert measured[1] > GAINS[1]
    assert measured[2] > GAINS[2]


GAINS = (1.0, 3.0, 4.0)
"""dB at sigma 5, 10 and 15 gray levels; the model card has the values of the whole test split, well above these."""


def test_published_weights_are_small_and_named() -> None:
    path = WEIGHTS / DnCNN.published["photos"]
    assert path.stat().st_size < 1_000_000
    assert "photos:train" in load(path).config["training_datasets"]
    assert path.with_suffix(".md").is_file()


def test_weights_of_another_network_are_refused() -> None:
    from iqa_robust.models.compact import WEIGHTS as MODELS

    with pytest.raises(CheckpointError):
        defenses.create("dncnn", weights=str(MODELS / "compact-photos.safetensors")).purify(torch.rand(1, 3, 32, 32))
