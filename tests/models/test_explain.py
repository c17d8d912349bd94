"""Explanations of gated networks: known answers of a network made by hand, and what must hold for every gate."""

from __future__ import annotations

import pytest
import torch
from by_hand import OPEN, ByHand, GatedColors
from torch import nn

from iqa_robust import defenses, models
from iqa_robust.errors import ContractError
from iqa_robust.models.base import ModelInfo, Swapped, WrappedModel, with_score_range
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.gates import create_gate
from iqa_robust.models.gates.explain import explain
from iqa_robust.models.prepared.twin import prepare


def test_known_network() -> None:
    # one pixel of each color in an image of 2 x 2, another color's image beside it
    x = torch.zeros(2, 3, 2, 2)
    x[0, 0, 0, 0], x[0, 1, 0, 1], x[0, 2, 1, 0] = 0.3, 0.8, 1.0
    x[1, 1] = 0.5
    (layer,) = explain(ByHand(), x)
    assert layer.layer == "gate"
    torch.testing.assert_close(layer.weights, OPEN.expand(2, 3))
    # means 0.075, 0.2, 0.25 by signs 2, 4, 8 and weights 1, 1/4, 0; then 0.5 by 4 by 1/4
    torch.testing.assert_close(layer.importance, torch.tensor([[0.15, 0.2, 0.0], [0.0, 0.5, 0.0]]))
    assert layer.ranks.tolist() == [[2, 1, 3], [2, 1, 3]]
    # red raises the score by 0.3 x 2 / 4 where it is; green lowers it, so it shows nowhere
    torch.testing.assert_close(layer.causal_map, torch.tensor([[[0.15, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]]))
    # blue is blocked: 1.0 x 8 / 4 where it is
    torch.testing.assert_close(layer.non_causal_map[0], torch.tensor([[0.0, 0.0], [2.0, 0.0]]))


@pytest.mark.parametrize(
    "params",
    [
        {"name": "soft-rank"},
        {"name": "sort-mask", "form": "elements"},
        {"name": "ensemble", "members": [{"name": "soft-rank"}, {"name": "sort-mask", "form": "elements"}]},
    ],
)
def test_every_gate_is_explained_and_the_network_is_left_as_it_was(params: dict) -> None:
    network = CompactNetwork(stem=8, widths=[8, 16], hidden=8, gate={**params, "where": "every"})
    network.requires_grad_(False).train()
    x = torch.rand(3, 3, 64, 48, generator=torch.Generator().manual_seed(0))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    with torch.no_grad():
        layers = explain(network, x)
    assert [layer.layer for layer in layers] == ["gates.0", "gates.1"]
    assert [tuple(layer.importance.shape) for layer in layers] == [(3, 8), (3, 16)]
    assert [tuple(layer.causal_map.shape) for layer in layers] == [(3, 16, 12), (3, 8, 6)]
    for layer in layers:
        assert bool((layer.ranks.sort(dim=1).values == torch.arange(1, layer.ranks.shape[1] + 1)).all())
        best = layer.importance.gather(1, layer.ranks.argmin(dim=1, keepdim=True))[:, 0]
        assert torch.equal(best, layer.importance.amax(dim=1))
    assert network.training and not any(gate._forward_hooks for gate in network.gates)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    alone = explain(network, x[1:2])  # images do not see each other
    torch.testing.assert_close(alone[1].importance[0], layers[1].importance[1], rtol=1e-3, atol=1e-5)


def test_networks_without_gates_are_refused() -> None:
    with pytest.raises(ContractError, match="the network has no gate"):
        explain(models.create("compact"), torch.rand(1, 3, 32, 32))


def test_models_pass_on_what_their_network_says() -> None:
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    (wanted,) = explain(ByHand(), x)
    model = GatedColors()
    for asked in (model, with_score_range(model, (0.0, 1.0)), WrappedModel(model, model.info)):
        found = asked.explain(x)
        assert found is not None
        assert [layer.layer for layer in found] == ["gate"]
        torch.testing.assert_close(found[0].importance, wanted.importance)
        torch.testing.assert_close(found[0].causal_map, wanted.causal_map)


class Own(nn.Module):
    """A network of a user: it works in place, its scores are a column, and its only gate is one of ours."""

    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), gate)
        self.head = nn.Linear(4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N, 1)."""
        return self.head(self.body(x.sub_(0.5)).mean(dim=(2, 3)))


def test_a_network_of_ones_own_is_explained() -> None:
    torch.manual_seed(0)
    network = Own(create_gate("squeeze-excitation", 4)).eval()
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = x.clone()
    found = models.wrap(network).explain(x)
    assert found is not None and torch.equal(x, before)
    (layer,) = found
    assert layer.layer == "body.2"
    with torch.no_grad():
        h = network.body[:2](x - 0.5)
        weights = network.body[2].weights(h)
    # the slope of the score by a gated value is the head's weight over the number of places
    wanted = ((weights * h).mean(dim=(2, 3)) * network.head.weight).abs()
    torch.testing.assert_close(layer.importance, wanted)


class Patches(nn.Module):
    """(N, 3, H, 2, W) to (2 N, 3, H, W)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Two patches of every image."""
        return x.movedim(3, 1).flatten(0, 1)


def test_a_network_of_patches_is_refused() -> None:
    network = nn.Sequential(nn.Unflatten(3, (2, 4)), Patches(), ByHand())
    with pytest.raises(ContractError) as caught:
        models.wrap(network).explain(torch.rand(2, 3, 8, 8))
    assert str(caught.value) == "explain: gate '2.gate': expected a feature map per image, 2, got 4."


def test_models_without_an_explanation_say_none() -> None:
    x = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert models.create("compact").explain(x) is None
    assert models.wrap(nn.Flatten(0)).explain(x) is None
    # a purifier changes what the model sees; a twin is for searching only
    purified = defenses.create("jpeg").wrap(GatedColors())
    assert purified.explain(x) is None
    assert models.wrap(purified, purified.info).explain(x) is None
    assert prepare(GatedColors(), "fp32", x).explain(x) is None
    both = WrappedModel(GatedColors(), ModelInfo(full_reference=True))
    assert Swapped(both).explain(x, x) is None
    # references pass the gates, too
    assert models.wrap(ByHand(), ModelInfo(full_reference=True)).explain(x, x) is None
