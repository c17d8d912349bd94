"""What models with weights share: loading at first use, frozen weights, bounded scores."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from iqa_robust import models
from iqa_robust.errors import CheckpointError, RequestError
from iqa_robust.models.checkpoints import save
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.learned import from_range, into_range

SMALL = {"stem": 4, "widths": [4, 8], "hidden": 4, "score_range": [0.0, 10.0]}


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.safetensors"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        save(path, CompactNetwork(**SMALL), {"params": SMALL, "training_datasets": ["x:train"]}, half=False)
    return path


def test_nothing_is_read_before_first_use(tmp_path: Path) -> None:
    model = models.create("compact", weights=str(tmp_path / "missing.safetensors"))
    assert model.weights == str(tmp_path / "missing.safetensors")
    with pytest.raises(CheckpointError, match="no such file"):
        model(torch.zeros(1, 3, 32, 32))
    with pytest.raises(CheckpointError, match="no such file"):
        _ = model.info


@pytest.mark.parametrize(
    "use",
    [
        lambda model: model.info,
        lambda model: list(model.parameters()),
        lambda model: model.state_dict(),
        lambda model: model.to("cpu"),
        lambda model: model(torch.zeros(1, 3, 32, 32)),
        lambda model: nn.Sequential(model).state_dict(),
        lambda model: nn.Sequential(model).to(torch.float32),
    ],
)
def test_every_first_use_loads_everything(small: Path, use) -> None:
    model = models.create("compact", weights=str(small))
    use(model)
    assert len(list(model.parameters())) == len(list(CompactNetwork(**SMALL).parameters()))
    assert not any(parameter.is_meta for parameter in model.parameters())


def test_weights_are_frozen_and_the_mode_stays(small: Path) -> None:
    model = models.create("compact", weights=str(small)).train()
    assert not any(module.training for module in model.modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    x = torch.rand(2, 3, 40, 40, requires_grad=True)
    assert torch.equal(model(x), model(x))
    assert nn.Sequential(model).train()[0].network.training is False


def test_copies_are_independent_and_equal(small: Path) -> None:
    model = models.create("compact", weights=str(small))
    x = torch.rand(1, 3, 40, 40)
    assert torch.equal(copy.deepcopy(model)(x), model(x))
    assert torch.equal(copy.deepcopy(model)(x), model(x))  # now a loaded one is copied


def test_loading_leaves_the_global_random_state(small: Path) -> None:
    before = torch.get_rng_state()
    _ = models.create("compact", weights=str(small)).info
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "no(ne| usable|t)"),
        ({"params": {**SMALL, "depth": 3}}, "do not describe a network"),
        ({"params": {**SMALL, "stem": 8}}, "shape"),
        ({"params": {**SMALL, "widths": [4, 8, 8]}}, "misses|holds"),
        ({"params": {**SMALL, "stem": 10**9}}, "shape"),
        ({"params": {**SMALL, "score_range": "wide"}}, "params|configuration"),
    ],
)
def test_broken_configurations_are_refused(tmp_path: Path, config: dict, message: str) -> None:
    path = tmp_path / "broken.safetensors"
    save_file(dict(CompactNetwork(**SMALL).state_dict()), path, metadata={"config": json.dumps(config)})
    with pytest.raises(CheckpointError, match=message):
        _ = models.create("compact", weights=str(path)).info


def test_the_trunk_regressor_refuses_another_backbone(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save(path, nn.Linear(1, 1), {"params": {"backbone": "resnet18", "score_range": [0, 1]}})
    with pytest.raises(CheckpointError, match="pass backbone='resnet18'"):
        _ = models.create("trunk-regressor", weights=str(path)).info


def test_unknown_parameters_are_a_request_error() -> None:
    with pytest.raises(RequestError, match="weight"):
        models.create("compact", weight="photos")


@given(st.floats(-1e4, 1e4), st.floats(-10, 10), st.floats(0.1, 100))
def test_scores_stay_in_range_and_never_lose_their_slope(z: float, low: float, width: float) -> None:
    value = torch.tensor(z, dtype=torch.float32, requires_grad=True)
    score = into_range(value, low, low + width)
    score.backward()
    expected = low + width / 2 * (1 + z / math.sqrt(1 + z * z))
    assert score.item() == pytest.approx(expected, abs=1e-6 * (abs(low) + width))  # float32
    assert value.grad is not None
    slope = width / 2 * (1 + z * z) ** -1.5
    assert value.grad.item() == pytest.approx(slope, rel=2e-2)  # the documented percent, twice: z itself is rounded


@given(st.floats(0.05, 0.95), st.floats(-10, 10), st.floats(0.1, 100))
def test_from_range_inverts_into_range(share: float, low: float, width: float) -> None:
    score = torch.tensor(low + share * width, dtype=torch.float64)
    assert into_range(from_range(score, low, low + width), low, low + width).item() == pytest.approx(score.item())


def test_from_range_brings_the_ends_to_finite_values() -> None:
    assert bool(torch.isfinite(from_range(torch.tensor([0.0, 1.0]), 0, 1)).all())
