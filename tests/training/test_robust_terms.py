"""The terms of a robust loss against closed forms."""

from __future__ import annotations

import math
import urllib.error
from typing import get_args

import numpy as np
import piq
import pytest
import torch
from scipy.stats import norm
from skimage.metrics import structural_similarity
from torch import nn

from iqa_robust.errors import RequestError
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.trunk_regressor import TrunkNetwork
from iqa_robust.training.adversarial import terms
from iqa_robust.training.adversarial.labels import labels_of
from iqa_robust.training.adversarial.necessity import necessity
from iqa_robust.training.adversarial.settings import (
    ATTACKED_TERMS,
    SCORE_TERMS,
    Inner,
    Interventions,
    Latent,
    LossTerm,
)
from iqa_robust.training.adversarial.terms import NT_STEP, TERMS
from iqa_robust.training.adversarial.views import Views
from iqa_robust.training.losses import LOSSES, fidelity


class Linear(nn.Module):
    """Scores <w, x> + b, by way of one pooled feature."""

    def __init__(self, features: int = 1) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weight = nn.Parameter(torch.randn(3, 16, 16, generator=generator) / 50)
        self.head = nn.Parameter(torch.ones(features))
        self.gates = nn.ModuleList()
        self.passes = 0

    def features(self, x: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        return (x * self.weight).flatten(1).sum(dim=1, keepdim=True).expand(-1, len(self.head))

    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        return z @ self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.score_features(self.features(x))


@pytest.fixture
def clean() -> torch.Tensor:
    return 0.3 + 0.4 * torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def views_of(network: nn.Module, clean: torch.Tensor, attacked: torch.Tensor | None = None, scale: float = 1) -> Views:
    target = torch.linspace(-1, 1, len(clean))
    return Views(
        network,
        lambda scores: scale * scores,
        clean,
        target,
        attacked=None if attacked is None else (attacked, target),
        eps=3 / 255,
        interventions=Interventions(count=3),
        latent=Latent(),
    )


def value(name: str, views: Views, **more) -> float:
    return TERMS[name](views, LossTerm(name=name, **more)).item()


def test_differences_are_numpys_and_one_does_not_see_the_scale(clean: torch.Tensor) -> None:
    network, attacked = Linear(), (clean + 0.01).clamp(0, 1)
    with torch.no_grad():
        before, after = network(clean).numpy(), network(attacked).numpy()
    views = views_of(network, clean, attacked)
    squared = np.mean((after - before) ** 2)
    assert value("difference", views) == pytest.approx(squared, rel=1e-5)
    assert value("scaled-difference", views) == pytest.approx(squared / np.var(before, ddof=1), rel=1e-4)
    shrunk = views_of(network, clean, attacked, scale=0.1)
    assert value("difference", shrunk) == pytest.approx(squared / 100, rel=1e-4)
    assert value("scaled-difference", shrunk) == pytest.approx(squared / np.var(before, ddof=1), rel=1e-3)  # EPSILON


def test_clean_and_attacked_images_share_one_pass(clean: torch.Tensor) -> None:
    network = Linear()
    views = views_of(network, clean, clean)
    for name, on in (("mse", "clean"), ("mse", "attacked"), ("plcc", "attacked")):
        value(name, views, on=on)
    value("difference", views)
    assert network.passes == 1
    assert value("mse", views) == value("mse", views, on="attacked")


def test_gradient_norm_of_a_linear_score_is_its_l1_norm(clean: torch.Tensor) -> None:
    network = Linear()
    slope = network.weight.abs().sum().item() * NT_STEP / 0.01
    assert value("gradient-norm", views_of(network, clean)) == pytest.approx(slope**2 / 2, rel=1e-4)


def test_interventions_are_a_series_up_to_the_radius(clean: torch.Tensor) -> None:
    network = Linear()
    views = views_of(network, clean)
    torch.manual_seed(0)
    series = views.interventions().reshape(3, *clean.shape)
    for number, images in enumerate(series, start=1):
        assert torch.allclose((images - clean).abs(), torch.full_like(clean, 3 / 255 * number / 3), atol=1e-6)
    with torch.no_grad():
        up, down = network(series[1]) - network(clean), network(series[2]) - network(clean)
    assert torch.all(up > 0)
    assert torch.all(down < 0)
    reach = network.weight.abs().sum().item() / 255
    with torch.no_grad():
        random = (network(series[0]) - network(clean)).square().mean().item()
        spread = network(clean).var().item()
    expected = ((2 * reach) ** 2 + (3 * reach) ** 2 + random) / 3 / spread
    torch.manual_seed(0)  # the same random signs again
    assert value("invariance", views) == pytest.approx(expected, rel=1e-2)  # EPSILON and float32 differences


def needed(network: Linear, clean: torch.Tensor, **settings) -> torch.Tensor:
    return necessity(network.score_features, network.features(clean), Latent(**settings))


def test_necessity_of_a_single_cause_is_its_closed_form(clean: torch.Tensor) -> None:
    """One feature: every c' is exactly d deviations away, so f changes by d of its own spread."""
    for distance in (0.5, 2.0):
        found = needed(Linear(), clean, distance=distance).item()
        assert found == pytest.approx(math.exp(-(distance**2)), rel=1e-3)


def test_necessity_finds_a_cause_that_does_not_matter(clean: torch.Tensor) -> None:
    network = Linear(features=2)
    with torch.no_grad():
        network.head.copy_(torch.tensor([1.0, 0.0]))  # the second feature is not necessary
    few = needed(network, clean, distance=2.0, steps=1).item()
    many = needed(network, clean, distance=2.0, steps=30).item()
    assert many > 0.9
    assert many >= few - 1e-6


def test_necessity_pays_neither_for_stretching_nor_for_shrinking(clean: torch.Tensor) -> None:
    network = Linear(features=2)
    scale = torch.tensor(1.0, requires_grad=True)
    features = network.features(clean).detach()
    torch.manual_seed(0)
    value = necessity(lambda z: scale * network.score_features(z), features, Latent(distance=1.0))
    (slope,) = torch.autograd.grad(value, scale)
    assert 0.01 < value.item() < 0.99
    assert abs(slope.item()) < 1e-4  # EPSILON beside the spread


COMPARING = ("difference", "scaled-difference", "gradient-norm", "invariance")
"""Terms between scores of two images."""


@pytest.mark.parametrize("network", [CompactNetwork, TrunkNetwork])
@pytest.mark.parametrize("name", COMPARING)
def test_terms_between_images_are_zero_where_nothing_moved(
    network: type[nn.Module], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In training mode, with dropout and batch norm: only what the network makes of a change may count."""
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    trained = network(dropout=0.5, gate={"name": "sort-mask", "form": "elements", "where": "every"}).train()
    monkeypatch.setattr(terms, "NT_STEP", 0.0)
    views = Views(
        trained,
        lambda scores: scores / 50 - 1,
        images,
        torch.linspace(-1, 1, 4),
        attacked=(images.clone(), torch.linspace(-1, 1, 4)),
        eps=0.0,
        interventions=Interventions(count=3),
        latent=Latent(),
    )
    with torch.autocast("cpu", torch.bfloat16):
        assert value(name, views) == pytest.approx(0.0, abs=1e-8)
    assert all(module.training for module in trained.modules())


@pytest.mark.parametrize("name", [*COMPARING, "necessity"])
def test_comparing_leaves_the_running_averages_alone(name: str) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    trained = CompactNetwork(gate={"name": "sort-mask", "form": "elements", "where": "every"}).train()
    target = torch.linspace(-1, 1, 4)
    views = Views(
        trained, lambda s: s / 50 - 1, images, target, attacked=(images.flip(3), target), eps=0.01,
        interventions=None, latent=None,
    )  # fmt: skip
    value("mse", views)
    before = {key: tensor.clone() for key, tensor in trained.named_buffers() if "num_batches" not in key}
    assert value(name, views) > 0
    after = dict(trained.named_buffers())
    assert all(torch.equal(tensor, after[key]) for key, tensor in before.items())
    assert {m.momentum for m in trained.modules() if isinstance(m, nn.BatchNorm2d)} == {0.1}


def test_the_slope_of_half_a_gray_level_survives_training_in_bfloat16(clean: torch.Tensor) -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 3, 64, 64)
    trained = TrunkNetwork(dropout=0.2).train()
    with torch.no_grad():
        trained.head.weight.normal_(0, 0.01)

    def slope(enabled: bool) -> float:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return value("gradient-norm", views_of(trained, images))

    assert slope(True) == pytest.approx(slope(False), rel=1e-5)  # the same float32 operations


def test_fidelity_is_its_equation() -> None:
    scores, labels = torch.tensor([0.2, -0.1, 0.4], dtype=torch.float64), torch.tensor([0.5, 0.5, -0.3])
    terms = []
    for i, j in ((0, 1), (0, 2), (1, 2)):
        p = norm.cdf(2 * (scores[i] - scores[j]).item() / 2**0.5)
        q = {1: 1.0, 0: 0.5, -1: 0.0}[int(torch.sign(labels[i] - labels[j]))]
        terms.append(1 - math.sqrt(p * q) - math.sqrt((1 - p) * (1 - q)))
    assert fidelity(scores, labels).item() == pytest.approx(np.mean(terms), abs=2e-4)  # roots of EPSILON


def test_labels_of_attacked_images(clean: torch.Tensor) -> None:
    generator = torch.Generator().manual_seed(2)
    attacked = (clean + 0.1 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    target = torch.linspace(-1, 1, 6)

    def labels(strategy: str, **more) -> torch.Tensor:
        settings = Inner(aim="error", eps_255=4, labels=strategy, **more)
        return labels_of(settings, target, clean, attacked, worse=-1.0)

    assert torch.equal(labels("keep"), target)
    assert torch.equal(labels("min"), torch.full((6,), -1.0))
    similar = [
        structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=1.0, gaussian_weights=True, sigma=1.5,
            use_sample_covariance=False,
        )
        for a, b in zip(clean, attacked, strict=True)
    ]  # fmt: skip
    lowered = (target - 0.5 * 2 * (1 - torch.tensor(similar))).clamp(-1, 1)
    assert torch.allclose(labels("ssim", label_weight=0.5), lowered.float(), atol=0.05)  # borders: skimage crops them
    higher = labels_of(Inner(aim="error", eps_255=4, labels="ssim"), target, clean, attacked, worse=1.0)
    assert torch.all(higher >= target)
    with pytest.raises(RequestError, match=r"'ms-ssim' needs patches of 161 pixels a side, got 16 x 16"):
        labels("ms-ssim")


@pytest.mark.parametrize("autocast", [False, True])
def test_distances_of_labels_are_computed_in_float32(autocast: bool) -> None:
    generator = torch.Generator().manual_seed(3)
    clean = torch.rand(2, 3, 162, 162, generator=generator)
    attacked = (clean + 0.01 * torch.randn(clean.shape, generator=generator)).clamp(0, 1)
    wanted = -2 * (1 - piq.multi_scale_ssim(attacked, clean, data_range=1.0, reduction="none"))
    settings = Inner(aim="error", eps_255=4, labels="ms-ssim", label_weight=1.0)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        found = labels_of(settings, torch.zeros(2), clean, attacked, worse=-1.0)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-6)  # rounding of one minus the similarity


def test_lpips_labels_say_that_the_weights_cannot_be_had(monkeypatch: pytest.MonkeyPatch, clean: torch.Tensor) -> None:
    def refuse(*args, **kwargs):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("torch.hub.load_state_dict_from_url", refuse)
    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(RequestError, match="'lpips' needs weights that could not be downloaded"):
        labels_of(Inner(aim="error", eps_255=4, labels="lpips"), torch.zeros(6), clean, clean, worse=-1.0)


def test_names_that_recipes_may_say_are_those_that_exist() -> None:
    assert set(get_args(LossTerm.model_fields["name"].annotation)) == set(TERMS)
    assert set(SCORE_TERMS) == set(LOSSES)
    assert set(ATTACKED_TERMS) < set(TERMS)


def test_auxiliary_scores_are_those_of_the_pass_over_clean_and_attacked_images(clean: torch.Tensor) -> None:
    network = CompactNetwork(stem=4, widths=(4, 8), gate={"name": "cas"}).train()
    views = Views(
        network,
        lambda scores: scores / 100,
        clean,
        torch.zeros(6),
        attacked=(clean.flip(0), torch.ones(6)),
        eps=0.01,
        interventions=None,
        latent=None,
    )
    first = value("auxiliary", views)
    value("gradient-norm", views)  # a pass of its own
    assert [len(scores) for scores in views.auxiliary_scores] == [12]
    assert value("auxiliary", views) == first
    with pytest.raises(RequestError, match="'auxiliary' needs a gate with a predictor"):
        value("auxiliary", views_of(Linear(), clean))
