"""The orthogonality penalty: zero where it must be, known values, exact slopes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from iqa_robust.errors import ContractError
from iqa_robust.models.orthogonality import orthogonality_penalty


def _layers() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(2, 4, 3),
            nn.Conv2d(4, 4, 3, groups=2),
            nn.Conv2d(4, 9, 1),  # more rows than columns
            nn.Linear(9, 6),
            nn.Linear(6, 1),
        ).double()


def test_orthogonal_weights_cost_nothing() -> None:
    layers = _layers()
    with torch.no_grad():
        for layer in layers[:-1]:
            for group in layer.weight.chunk(getattr(layer, "groups", 1)):
                flat = group.flatten(1)
                nn.init.orthogonal_(flat)
                group.copy_(flat.reshape(group.shape))
    assert orthogonality_penalty(layers).item() == pytest.approx(0, abs=1e-20)
    with torch.no_grad():
        layers[-1].weight.mul_(7)  # the last product is free
    assert orthogonality_penalty(layers).item() == pytest.approx(0, abs=1e-20)


def test_value_is_the_mean_square_of_the_deviation() -> None:
    layers = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(2, 1))
    with torch.no_grad():
        layers[0].weight.copy_(torch.tensor([[2.0, 0.0, 0.0], [1.0, 1.0, 0.0]]))
    # W W^T - I = [[3, 2], [2, 1]]
    assert orthogonality_penalty(layers).item() == pytest.approx((9 + 4 + 4 + 1) / 4)


def test_slopes_are_exact() -> None:
    layers = _layers()
    names = [name for name, _ in layers.named_parameters() if name.endswith("weight")]

    def penalty(*weights: torch.Tensor) -> torch.Tensor:
        for name, weight in zip(names, weights, strict=True):
            layer = layers.get_submodule(name.rpartition(".")[0])
            layer._parameters["weight"] = weight  # type: ignore[assignment]
        return orthogonality_penalty(layers)

    weights = [layers.get_parameter(name).detach().clone().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(penalty, weights)


def test_networks_without_such_layers_are_refused() -> None:
    with pytest.raises(ContractError, match="no convolution and no product"):
        orthogonality_penalty(nn.Linear(3, 1))
