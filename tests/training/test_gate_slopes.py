"""The scripts that look at slopes of gates and networks, `gate_slope.py` and `slopes.py` of the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from scripts import scripts_of

from iqa_robust import datasets, models
from iqa_robust.models.compact import PUBLISHED, WEIGHTS
from iqa_robust.models.gates.sort_mask import SortMask
from iqa_robust.models.trunk_regressor import TrunkNetwork

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "robust_training"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with scripts_of(SCRIPTS) as found:
        yield found


@pytest.mark.parametrize("identity", [0.0, 0.25, 1.0])
def test_other_slopes_of_the_gate_change_no_value_and_mix_with_its_own(scripts: Any, identity: float) -> None:
    torch.manual_seed(0)
    gate = SortMask(3, form="elements", threshold=2.0).eval()
    own, x = gate(h := torch.randn(2, 3, 5, 5, requires_grad=True)), torch.randn(2, 3, 5, 5)
    (slope,) = torch.autograd.grad((own * x).sum(), h)
    twin = scripts.gate_slope.through(gate, identity)
    again = twin(h)
    torch.testing.assert_close(again, own, rtol=0, atol=1e-6)  # a value is taken apart and put together again
    (mixed,) = torch.autograd.grad((again * x).sum(), h)
    torch.testing.assert_close(mixed, identity * x + (1 - identity) * slope)
    assert (x - slope).abs().max() > 0.1


def test_attacks_through_other_slopes_are_judged_on_the_model_itself(scripts: Any) -> None:
    photos = replace(scripts.databases.DATABASES["compact"], judged={"limit": 5})
    found = list(scripts.gate_slope.lines(WEIGHTS / PUBLISHED["cprl-style"], photos, [1, 3]))
    assert [(line[0], line[1]) for line in found] == [
        (slope, steps) for steps in ("1", "3") for slope in ("true", "identity", "mean of both")
    ]
    dataset = datasets.create("photos", split="test", limit=5)
    items = list(dataset)
    model = models.create("compact", weights="cprl-style").eval()
    with torch.no_grad():
        scores = model(torch.stack([item.x for item in items]))
    clean = spearmanr(scores, [item.mos for item in items]).statistic
    assert {line[2] for line in found} == {f"{clean:.2f}"}
    shifts = [float(line[4]) for line in found]
    assert min(shifts) > 0
    assert shifts[3] > shifts[0]  # three steps reach further than one


def test_the_slope_of_a_linear_score_is_its_l1_norm_in_deviations(scripts: Any) -> None:
    torch.manual_seed(0)
    weight, images = torch.randn(3, 8, 8), torch.rand(5, 3, 8, 8)

    class Linear(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x * weight).flatten(1).sum(dim=1)

    found, scores = scripts.slopes.slope(Linear(), images)
    deviation = np.std((images * weight).flatten(1).sum(dim=1).numpy(), ddof=1)
    assert found == pytest.approx(weight.abs().sum().item() / 255 / deviation, rel=1e-4)
    assert scores.shape == (5,)


def test_a_gate_is_plugged_in_with_its_averages_and_a_head_of_its_own(scripts: Any) -> None:
    torch.manual_seed(0)
    images, labels = torch.rand(12, 3, 64, 64), np.linspace(10, 90, 12).tolist()
    network = TrunkNetwork(gate={"name": "sort-mask", "form": "elements", "where": "every"}).eval()
    trunk = {key: value.clone() for key, value in network.trunk.state_dict().items()}
    scripts.slopes.fit(network, images, labels)
    assert all(torch.equal(value, trunk[key]) for key, value in network.trunk.state_dict().items())
    assert all(float((gate.scale - 1).abs().max()) > 0.1 for gate in network.gates)
    with torch.no_grad():
        fitted = network(images)
    assert spearmanr(fitted, labels).statistic > 0.9  # a thousand features of twelve images
    assert not network.training
