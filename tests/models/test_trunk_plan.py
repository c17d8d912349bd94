"""Trunks of every kind: stages in a row, networks that run as a whole, tokens, one size only."""

from __future__ import annotations

import copy
import pickle
from pathlib import Path

import pytest
import torch
from torch import nn

from iqa_robust.errors import RequestError
from iqa_robust.models import wrap
from iqa_robust.models.checkpoints import load, save
from iqa_robust.models.learned import build
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.models.trunk_plan import Fit, Fitted, Layout, plan_of
from iqa_robust.models.trunk_regressor import TrunkNetwork

ROWS = ["mnasnet1_0", "regnet_x_400mf", "shufflenet_v2_x0_5", "googlenet"]
"""Torchvision's classifiers that end in a mean over the positions of the last stage."""
GATE = {"name": "squeeze-excitation", "where": "every"}


def network_of(backbone: str, **params) -> TrunkNetwork:
    if backbone.startswith("timm:"):
        pytest.importorskip("timm")
    torch.manual_seed(0)
    return TrunkNetwork(backbone=backbone, **params).eval()


def settle(network: TrunkNetwork) -> None:
    """Batch norms take the statistics of larger images: features of random weights may be in the millions without."""
    norms = [part for part in network.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        network.train()
        with torch.no_grad():
            network(torch.rand(4, 3, 1, 1) * torch.rand(4, 3, 192, 192))
        network.eval()


@pytest.mark.parametrize(
    "backbone",
    [
        *ROWS,
        pytest.param("inception_v3", marks=pytest.mark.slow),
        pytest.param("maxvit_t", marks=pytest.mark.slow),
        pytest.param("vit_b_32", marks=pytest.mark.slow),
        "swin_t",
        "timm:vit_tiny_patch16_224",
        "timm:pvt_v2_b0",
        "timm:levit_128s",  # with tables that no checkpoint holds
    ],
)
def test_trunks_score_pass_slopes_on_and_come_back_from_a_checkpoint(backbone: str, tmp_path: Path) -> None:
    network = network_of(backbone, gate=GATE)
    x = torch.rand(2, 3, 71, 97).requires_grad_()
    settle(network)
    scores = network(x)
    assert scores.shape == (2,)
    assert len(network.gates) == len(network._taps) >= 3
    scores.sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().amax(1) > 0).all())
    assert all(bool(gate.get_parameter("excite.2.bias").grad.abs().sum() > 0) for gate in network.gates)
    save(tmp_path / "kept.safetensors", network, {"params": {"backbone": backbone, "gate": GATE}}, half=False)
    again = build(TrunkNetwork, load(tmp_path / "kept.safetensors")).eval()
    with torch.no_grad():  # weights may lie otherwise in memory, which orders float32 sums
        torch.testing.assert_close(again(x), scores.detach(), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize("backbone", [*ROWS, "swin_t"])
def test_the_last_features_are_torchvisions_own(backbone: str) -> None:
    from torchvision import models

    network = network_of(backbone)
    extra = {"aux_logits": False, "init_weights": False} if backbone == "googlenet" else {}
    own = models.get_model(backbone, weights=None, **extra).eval()
    own.load_state_dict(network.trunk.state_dict(), strict=False)
    for head in ("classifier", "fc", "head"):
        if hasattr(own, head):
            setattr(own, head, nn.Identity())
    x = torch.rand(2, 3, 96, 128)
    with torch.no_grad():
        wanted = own(network.normalize(x))
        means = network.features(x)[:, -2 * wanted.shape[1] : -wanted.shape[1]]
    # float32 sums in another order
    torch.testing.assert_close(means, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))


@pytest.mark.parametrize("backbone", ["swin_t", "timm:vit_tiny_patch16_224"])
def test_what_a_gate_makes_is_what_the_next_stages_of_a_whole_network_see(backbone: str) -> None:
    network = network_of(backbone)
    gated = network_of(backbone, gate=GATE)
    gated.trunk.load_state_dict(network.trunk.state_dict())
    for number in range(len(gated.gates)):
        gated.gates[number] = nn.Identity()
    x = torch.rand(1, 3, 80, 97)
    with torch.no_grad():
        plain = network.features(x)
        assert torch.equal(gated.features(x), plain)
        gated.gates[0] = nn.Tanh()
        first = 2 * next(iter(network._taps.values())).channels
        moved = (gated.features(x) - plain).abs() > 1e-6
    assert bool(moved[:, :first].any())
    assert bool(moved[:, -first:].any())


@pytest.mark.parametrize("backbone", ["shufflenet_v2_x0_5", "swin_t"])
def test_copies_and_twins_score_alike_and_share_nothing(backbone: str) -> None:
    network = network_of(backbone, gate=GATE)
    x = torch.rand(2, 3, 80, 97)
    settle(network)
    with torch.no_grad():
        wanted = network(x)
        for other in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
            assert torch.equal(other(x), wanted)
            assert not {id(part) for part in other.modules()} & {id(part) for part in network.modules()}
            assert other._built.network is other.trunk
        twin = prepare(wrap(network), "fp32", x[:1])
        # batch norm folded and other kernels: float32 sums in another order, on a scale of 100
        torch.testing.assert_close(twin(x), wanted, rtol=0, atol=2e-3)


def test_an_activation_that_changes_nothing_is_refused() -> None:
    with torch.device("meta"), pytest.raises(RequestError) as caught:
        TrunkNetwork(backbone="inception_v3", activation="silu")
    assert str(caught.value) == (
        "activation 'silu': expected a network with layers of ReLU to replace, found none; leave `activation` out."
    )


def test_images_are_brought_to_the_next_size_that_fits() -> None:
    assert Fit().size(64, 97) == (64, 97)
    assert Fit(multiple=16).size(65, 96) == (80, 96)
    assert Fit(multiple=14, least=70).size(64, 71) == (70, 84)
    assert Fit(least=75).size(64, 97) == (75, 97)
    assert Fit(only=224).size(64, 300) == (224, 224)
    x = torch.rand(1, 3, 64, 96)
    assert Fitted(Fit(multiple=16))(x) is x
    flat = Fitted(Fit(only=224))(torch.full((1, 3, 65, 97), 0.25))
    torch.testing.assert_close(flat, torch.full((1, 3, 224, 224), 0.25))


def test_layouts_are_read_from_shapes_and_give_maps_and_back() -> None:
    maps = torch.arange(2 * 5 * 8 * 10.0).view(2, 5, 8, 10)
    tokens = torch.cat([torch.full((2, 1, 5), -1.0), maps.flatten(2).transpose(1, 2)], dim=1)
    for made, expected in (
        (maps, Layout(1, 5)),
        (maps.permute(0, 2, 3, 1), Layout(3, 5)),
        (tokens, Layout(2, 5, stride=16, prefix=1)),
    ):
        layout = Layout.of(made, 128, 160)
        assert layout == expected
        assert torch.equal(layout.maps(made, 128, 160), maps)
        changed = layout.features(-maps, made)
        assert torch.equal(layout.maps(changed, 128, 160), -maps)
    assert torch.equal(changed[:, 0], tokens[:, 0])
    for other in (torch.zeros(2, 5), torch.zeros(2, 5, 7), [maps], torch.zeros(2, 300, 5), None):
        assert Layout.of(other, 128, 160) is None


@pytest.mark.parametrize("backbone", ["vit_b_32", "maxvit_t", "inception_v3"])
def test_trunks_of_few_sizes_take_any_image(backbone: str) -> None:
    with torch.device("meta"):
        network = TrunkNetwork(backbone=backbone).eval()
        assert network(torch.zeros(2, 3, 64, 97)).shape == (2,)
    assert plan_of(backbone).fit == (Fit(least=75) if backbone == "inception_v3" else Fit(only=224))
    assert len(network._taps) >= 4


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_classifier_of_torchvision_is_a_trunk() -> None:
    from torchvision import models

    names = models.list_models(module=models)
    assert len(names) >= 80
    names.remove("regnet_y_128gf")  # 2.6 GB of weights
    for name in names:
        with torch.device("meta"):
            network = TrunkNetwork(backbone=name).eval()
            assert network(torch.zeros(2, 3, 71, 107)).shape == (2,), name
        assert 4 <= len(network._taps) <= 7, name
        plan_of.cache_clear()
