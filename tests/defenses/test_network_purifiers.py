"""Purifiers that are one network: geometry, gradients, and what the published weights reach on held-out pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from iqa_robust import attacks, datasets, defenses, models
from iqa_robust.defenses.learned.fcn import FCN, CorrectionNetwork, instance_norm
from iqa_robust.defenses.learned.network_purifier import WEIGHTS, NetworkPurifier
from iqa_robust.defenses.learned.super_resolution import HalfSizeNetwork, SuperResolution, enlarged
from iqa_robust.defenses.learned.unet import UNet, UNetDenoiser
from iqa_robust.errors import CheckpointError
from iqa_robust.models.checkpoints import load
from iqa_robust.records import Budget
from iqa_robust.training.denoiser import gain, mean_gain
from iqa_robust.training.patches import first_of_each_content, references
from iqa_robust.training.progress import silent

KINDS: dict[str, type[NetworkPurifier]] = {"unet": UNet, "fcn": FCN, "super-resolution": SuperResolution}


@pytest.fixture(scope="module")
def held_out() -> list[torch.Tensor]:
    """Every fourth picture of the test split of the embedded photographs."""
    return references(first_of_each_content(datasets.create("photos", split="test"))[::4], "test")


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (32, 32), (33, 45), (7, 2)])
def test_any_size_is_kept(name: str, height: int, width: int) -> None:
    purified = defenses.create(name).purify(torch.rand(2, 3, height, width))
    assert purified.shape == (2, 3, height, width)
    assert bool(((purified >= 0) & (purified <= 1)).all())


@pytest.mark.parametrize("name", KINDS)
def test_batches_do_not_matter(name: str) -> None:
    defense, x = defenses.create(name), torch.rand(3, 3, 40, 41)
    alone = torch.cat([defense.purify(image[None]) for image in x])
    torch.testing.assert_close(defense.purify(x), alone, rtol=0, atol=1e-5)  # float32 sums in another order


@pytest.mark.parametrize("name", KINDS)
def test_black_and_white_areas_keep_their_slope(name: str) -> None:
    x = torch.zeros(1, 3, 32, 32)
    x[..., 16:] = 1
    leaf = x.requires_grad_()
    defenses.create(name).purify(leaf).sum().backward()
    assert (leaf.grad != 0).float().mean() > 0.99


def test_untrained_networks_leave_the_image_or_its_enlarged_half() -> None:
    x = torch.rand(2, 3, 20, 21)
    assert torch.equal(UNetDenoiser(widths=(4, 8))(x), x)
    assert torch.equal(CorrectionNetwork()(x), x)
    even = x[..., :20]
    half = (even[..., ::2, ::2] + even[..., 1::2, ::2] + even[..., ::2, 1::2] + even[..., 1::2, 1::2]) / 4
    # float32 sums in another order
    torch.testing.assert_close(HalfSizeNetwork(width=4, blocks=1)(even), enlarged(half), rtol=0, atol=1e-6)


def test_enlarging_half_a_ramp_gives_the_ramp() -> None:
    """Means of 2 x 2 pixels lie between them; interpolation that forgot it would shift the picture by half a pixel."""
    ramp = torch.linspace(0.2, 0.8, 40).expand(1, 3, 40, 40)
    found = enlarged(F.avg_pool2d(ramp, 2))
    # torch's cubic, whose parameter is -0.75, misses a ramp by a tenth of a pixel; half a pixel would be 0.0077
    torch.testing.assert_close(found[..., 4:-4], ramp[..., 4:-4], rtol=0, atol=0.002)


def test_instance_norm_is_that_of_torch() -> None:
    features = torch.randn(3, 5, 12, 9) * 4 + 2
    torch.testing.assert_close(instance_norm(features), F.instance_norm(features), rtol=0, atol=1e-5)  # float32


@pytest.mark.parametrize("name", KINDS)
def test_published_weights_are_small_and_have_a_card(name: str) -> None:
    path = WEIGHTS / KINDS[name].published["photos"]
    assert path.stat().st_size < 1_000_000
    assert "photos:train" in load(path).config["training_datasets"]
    assert load(path).sha256 in path.with_suffix(".md").read_text()


def test_all_shipped_weights_of_defenses_are_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) < 6_000_000


def test_weights_of_another_network_are_refused() -> None:
    other = str(WEIGHTS / UNet.published["photos"])
    with pytest.raises(CheckpointError):
        defenses.create("super-resolution", weights=other).purify(torch.rand(1, 3, 32, 32))


def test_the_u_net_removes_noise(held_out: list[torch.Tensor]) -> None:
    gains = [gain(Purified("unet"), held_out, sigma, silent, "test") for sigma in (5, 10, 15)]
    assert np.greater(gains, UNET_GAINS).all(), gains


def test_the_resynthesis_is_nearer_than_interpolation(held_out: list[torch.Tensor]) -> None:
    rises = []
    for clean in held_out:
        even = clean[None, :, : clean.shape[1] // 2 * 2, : clean.shape[2] // 2 * 2]
        plain = enlarged(F.avg_pool2d(even, 2)).clamp(0, 1)
        errors = [(found - even).square().mean().log10() for found in (plain, Purified("super-resolution")(even))]
        rises.append(10 * (errors[0] - errors[1]).item())
    assert min(rises) > 0
    assert sum(rises) / len(rises) > RESYNTHESIS_GAIN


def test_the_fcn_takes_back_an_attack_it_has_seen(held_out: list[torch.Tensor]) -> None:
    """On other pictures and at half the radius; an attack without a random start it hardly takes back."""
    model, attack = models.create("compact"), attacks.create("pgd")
    budget = Budget(eps_255=4, steps=4)
    some = held_out[:3]
    pairs = [(attack(model, clean[None], goal="up", budget=budget, seed=1).images[0], clean) for clean in some]
    assert mean_gain(Purified("fcn"), pairs, silent, "test") > FCN_GAIN


UNET_GAINS = (1.0, 3.0, 4.0)
"""dB at sigma 5, 10 and 15 gray levels; like the other bounds here, well below what the model card has."""
RESYNTHESIS_GAIN = 0.5
"""dB over bicubic interpolation of the same half, on clean pictures."""
FCN_GAIN = 0.5
"""dB."""


class Purified(torch.nn.Module):
    """A defense where a network is asked for."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.defense = defenses.create(name)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.defense.purify(x)
