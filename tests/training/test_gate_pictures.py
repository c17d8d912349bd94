"""The pictures of gates: drawn from the gates themselves, from any gated model and any images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch
from scripts import scripts_of

from iqa_robust.models.base import ModelInfo
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.learned import LearnedModel
from iqa_robust.testing.pictures import pictures

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "robust_training"


class ToyGated(LearnedModel):
    """A tiny untrained network with two gates."""

    def _load(self) -> tuple[torch.nn.Module, ModelInfo]:
        torch.manual_seed(0)
        gate = {"name": "sort-mask", "where": "every", "form": "elements"}
        network = CompactNetwork(stem=4, widths=(4, 6), hidden=16, gate=gate)
        return network, ModelInfo(score_range=(0.0, 100.0))


@pytest.fixture
def script() -> Iterator[Any]:
    mpl.use("agg")
    with scripts_of(SCRIPTS) as found:
        yield found.gate_pictures
    plt.close("all")


@pytest.mark.parametrize("threshold", [0.5, 2.0])
def test_curves_are_the_published_formulas(script: Any, threshold: float) -> None:
    d = torch.linspace(-3, 3, 13, dtype=torch.float64)
    made, slope = script.by_value(d, threshold)
    assert torch.allclose(made, d - threshold * torch.tanh(d / threshold), atol=1e-12)
    assert torch.allclose(slope, torch.tanh(d / threshold) ** 2, atol=1e-12)
    ranks, weights = script.by_rank()
    assert torch.allclose(weights, torch.sigmoid((ranks - 0.5) / 0.1), atol=1e-6)  # float32


def test_both_pictures_are_drawn(script: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert len(script.curves().axes) == 3
    monkeypatch.setattr(script, "SIDE", 32)
    figure = script.maps(ToyGated(), {"toy": pictures(1, 32, 32)[0]})
    assert [ax.get_ylabel().split("\n")[0] for ax in figure.axes[::5]] == ["toy, clean", "toy, attacked"]
    layers = [ax.images[1].get_array() for ax in figure.axes if len(ax.images) == 2]
    assert len(layers) == 8 and all(layer.shape[2] == 4 for layer in layers)
    assert any(layer[..., 3].max() > 0 for layer in layers)  # something is seen


def test_crops_are_of_the_photographs(script: Any) -> None:
    found = script.crops()
    assert set(found) == {"astronaut", "coffee"}
    assert {tuple(x.shape) for x in found.values()} == {(3, 224, 224)}
