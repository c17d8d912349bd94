"""Layers put into our networks: ungated ones are as they were; gated ones keep what every model must keep."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from iqa_robust import models
from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models import compact, trunk_regressor
from iqa_robust.models.checkpoints import load, save
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.gates import GATES
from iqa_robust.models.learned import build
from iqa_robust.models.pooling import mean_and_std
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunk_regressor import TrunkNetwork

NETWORKS: dict[str, Callable[..., ScoreNetwork]] = {
    "compact": lambda **params: CompactNetwork(stem=8, widths=[8, 16], hidden=8, **params),
    "trunk": lambda **params: TrunkNetwork(score_range=[0.0, 1.0], **params),
}
ENSEMBLE = {
    "name": "ensemble",
    "where": "every",
    "members": [{"name": "cas"}, {"name": "sort-mask", "form": "elements"}],
}
GATED: list[dict[str, Any]] = [{"name": name, "where": "every"} for name in sorted({*GATES} - {"ensemble"})] + [
    ENSEMBLE,
    {"name": "soft-rank", "operator": "permutahedron"},
    {"name": "sort-mask", "form": "elements", "where": "every"},
]


def _named(gate: dict[str, Any]) -> str:
    return "-".join(value for value in gate.values() if isinstance(value, str))


def _network(kind: str, **params: Any) -> ScoreNetwork:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return NETWORKS[kind](**params).eval()


def _images(n: int = 3, side: int = 96) -> torch.Tensor:
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(5))


def test_compact_without_a_gate_is_the_plain_stack() -> None:
    network, x = build(CompactNetwork, load(compact.WEIGHTS / compact.PUBLISHED["photos"])).eval(), _images()
    h, pooled = network.stem((x - 0.5) * 4), []
    for stage in network.stages:
        down, residual = stage
        h = down(h)
        h = torch.relu(h + residual.inner(h))
        pooled.append(mean_and_std(h))
    z = network.head(torch.cat(pooled, dim=1)).squeeze(1)
    assert torch.equal(network(x), 50.0 + 50.0 * torch.sin(torch.atan(z)))


def test_trunk_without_a_gate_is_the_plain_stack() -> None:
    network, x = build(TrunkNetwork, load(trunk_regressor.WEIGHTS / "trunk-clive.safetensors")).eval(), _images()
    hooked: list[torch.Tensor] = []
    stages = list(network.trunk.features)
    stages[0].register_forward_pre_hook(lambda _, given: hooked.append(given[0]))
    scores = network(x)
    h, pooled = hooked[0], []
    for number, stage in enumerate(stages):
        h = stage(h)
        if number in {1, 4, 7, 12}:  # before each of the three poolings, and at the end
            pooled.append(mean_and_std(h))
    z = network.head((torch.cat(pooled, dim=1) - network.feature_mean) / network.feature_scale).squeeze(1)
    assert torch.equal(scores, 50.0 + 50.0 * torch.sin(torch.atan(z)))


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_a_gate_adds_weights_and_moves_no_other(kind: str) -> None:
    plain = _network(kind).state_dict()
    assert not any(name.startswith(("gates.", "denoisers.")) for name in plain)
    gated = _network(kind, gate={"name": "cifs", "where": "every"}, feature_denoising=True).state_dict()
    assert all(torch.equal(gated[name], value) for name, value in plain.items())
    assert {name.split(".")[0] for name in set(gated) - set(plain)} == {"gates", "denoisers"}


@pytest.mark.parametrize("kind", sorted(NETWORKS))
@pytest.mark.parametrize(("where", "all_taps"), [({}, False), ({"where": "last"}, False), ({"where": "every"}, True)])
def test_gates_sit_where_they_are_asked_to(kind: str, where: dict, all_taps: bool) -> None:
    network = _network(kind, gate={"name": "random", **where})
    channels = {"compact": [8, 16], "trunk": [64, 128, 256, 512]}[kind]
    assert [gate.channels for gate in network.gates] == (channels if all_taps else channels[-1:])
    z = network.features(_images())
    for gate, end in zip(reversed(network.gates), [0, -2 * channels[-1]], strict=False):
        means = z[:, z.shape[1] + end - 2 * gate.channels :][:, : gate.channels]
        assert not bool(means[:, ~gate.kept].any())
        assert bool(means[:, gate.kept].any())


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_scores_are_made_of_features(kind: str) -> None:
    network, x = _network(kind, gate={"name": "soft-rank"}), _images()
    assert torch.equal(network.score_features(network.features(x)), network(x))


@pytest.mark.parametrize("kind", sorted(NETWORKS))
@pytest.mark.parametrize("gate", GATED, ids=_named)
def test_gated_networks_keep_the_contract(kind: str, gate: dict) -> None:
    network, x = _network(kind, gate=gate, feature_denoising=True), _images()
    for denoiser in network.denoisers:
        nn.init.eye_(denoiser.mix.weight[:, :, 0, 0].data)
        nn.init.ones_(denoiser.scale)
    network.requires_grad_(False)
    leaf = x.clone().requires_grad_()
    scores = network(leaf)
    low, high = network.score_range
    # float32 sums in another order
    alone = torch.cat([network(image[None]) for image in x])
    torch.testing.assert_close(scores, alone, rtol=0, atol=1e-4 * (high - low))
    torch.testing.assert_close(copy.deepcopy(network)(x), scores)
    scores.sum().backward()
    assert leaf.grad is not None and bool((leaf.grad.flatten(1).abs().amax(1) > 0).all())
    model = models.wrap(network)
    torch.testing.assert_close(prepare(model, "fp32", x[:1])(x), scores, rtol=0, atol=1e-3 * (high - low))
    torch.testing.assert_close(prepare(model, "bf16", x[:1])(x), scores, rtol=0, atol=0.02 * (high - low))


@pytest.mark.parametrize("activation", ["silu", "softplus", "elu"])
def test_no_relu_is_left(activation: str) -> None:
    kind = {"silu": nn.SiLU, "softplus": nn.Softplus, "elu": nn.ELU}[activation]
    for network in (_network("compact", activation=activation), _network("trunk", activation=activation)):
        assert not any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in network.modules())
        assert sum(isinstance(module, kind) for module in network.modules()) >= 8
        assert bool(torch.isfinite(network(_images())).all())
    with torch.device("meta"):
        mobile = TrunkNetwork(backbone="mobilenet_v2", activation=activation)
    assert not any(isinstance(module, (nn.ReLU, nn.ReLU6)) for module in mobile.modules())


def test_slopes_of_a_smooth_gated_network_are_exact() -> None:
    network = CompactNetwork(
        stem=2,
        widths=[3, 4],
        hidden=2,
        activation="silu",
        gate={"name": "soft-rank", "where": "every"},
        feature_denoising=True,
    )
    network = network.double().eval()
    for denoiser in network.denoisers:
        nn.init.eye_(denoiser.mix.weight[:, :, 0, 0].data)
        nn.init.ones_(denoiser.scale)
    x = torch.rand(1, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(6)).requires_grad_()
    assert torch.autograd.gradcheck(network, x, atol=1e-4)


@pytest.mark.parametrize("gate", GATED, ids=_named)
def test_checkpoints_hold_gates(tmp_path: Path, gate: dict) -> None:
    params = {
        "stem": 8,
        "widths": [8, 16],
        "hidden": 8,
        "score_range": [0.0, 1.0],
        "gate": gate,
        "activation": "elu",
        "feature_denoising": True,
    }
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = CompactNetwork(**params)
        network.train()(_images())  # moves what is stored in training
    path = tmp_path / "gated.safetensors"
    save(path, network, json.loads(json.dumps({"params": params})), half=False)
    again = models.create("compact", weights=str(path))
    assert torch.equal(again(_images()), network.eval()(_images()))


def test_a_checkpoint_with_a_wrong_gate_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "gated.safetensors"
    save(path, CompactNetwork(stem=4, widths=[4]), {"params": {"stem": 4, "widths": [4], "gate": {"name": "x"}}})
    with pytest.raises(CheckpointError, match="do not describe a network"):
        build(CompactNetwork, load(path))


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"gate": {}}, "gate: expected the name of a gate under 'name', got None."),
        (
            {"gate": {"name": "cas", "where": "first"}},
            "gate: where: expected one of last, every, got 'first'.",
        ),
        ({"activation": "gelu"}, "activation: expected one of elu, relu, silu, softplus, got 'gelu'."),
    ],
)
def test_wrong_parameters_are_refused(params: dict, sentence: str) -> None:
    for kind in (CompactNetwork, TrunkNetwork):
        with pytest.raises(RequestError) as caught:
            kind(**params)
        assert str(caught.value) == sentence
