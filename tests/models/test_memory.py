"""Scores computed from small changes: what a change reaches, and the same scores as of the whole image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from iqa_robust import models
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.locality import Locality, locality_of
from iqa_robust.models.memory import Memory
from iqa_robust.models.prepared import prepare
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunk_regressor import TrunkNetwork
from iqa_robust.models.windows import Windows, cut, paste

CLOSE = 1e-4
"""Relative: float32 sums in another order, through some dozens of layers; scores are on a scale of 100."""


class Row(ScoreNetwork):
    """Layers in a row, pooled after the last."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def steps(self) -> list[nn.Module]:
        return list(self.layers)

    def taps(self) -> list[int]:
        return [len(self.layers) - 1]

    def score_features(self, z: torch.Tensor) -> torch.Tensor:
        return z.mean(dim=1)


class Normalizing(nn.Module):
    """Hides a statistic of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return made / (1 + made.abs().mean(dim=(2, 3), keepdim=True))


class Mirroring(nn.Module):
    """Local, but not at its place."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x).flip(3)


class Squeezing(nn.Module):
    """A channel's weight comes from a convolution of means, which has a kernel of one position."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.weigh = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return made * torch.sigmoid(self.weigh(made.mean(dim=(2, 3), keepdim=True)))


def _seeded(make: type[nn.Module], *args: object, **kwargs: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args, **kwargs).eval().requires_grad_(False)


def _images(n: int, side: int, width: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    return F.interpolate(coarse, (side, width or side), mode="bilinear")


def _twin(network: nn.Module, x: torch.Tensor, precision: str = "fp32") -> IQAModel:
    return prepare(models.wrap(network.eval(), ModelInfo(score_range=(0.0, 100.0))), precision, x[:1])


def _walk(twin: IQAModel, x: torch.Tensor, sizes: Sequence[int], *, drops: bool = False) -> tuple[float, Memory]:
    """Go as a search does: squares one after the other, a half of which stay.

    The largest error of a score, against a copy of the twin that never remembers; and what is remembered at the end.
    """
    generator, whole = torch.Generator().manual_seed(4), copy.deepcopy(twin)
    kept, memory, worst = x.clone(), Memory(), 0.0
    index = torch.arange(len(x))
    with torch.no_grad():
        memory.propose(index, None)
        twin.score_changed(kept, None, memory)
        for number, size in enumerate(sizes):
            if drops and number == len(sizes) // 2:
                index, kept = index[1:], kept[1:]
            top, left = (
                torch.randint(0, side - size + 1, (len(kept),), generator=generator).tolist() for side in x.shape[-2:]
            )
            windows, trial = Windows(top, left, size, size), kept.clone()
            paste(trial, windows, torch.rand(len(kept), 3, size, size, generator=generator))
            memory.propose(index, windows)
            before = trial.clone()
            found, wanted = twin.score_changed(trial, None, memory), whole(trial)
            assert torch.equal(trial, before)
            worst = max(worst, float((found - wanted).abs().max()))
            stays = torch.rand(len(kept), generator=generator) < 0.5
            memory.settle(~stays)
            kept = torch.where(stays.view(-1, 1, 1, 1), trial, kept)
    return worst, memory


@settings(deadline=None, max_examples=150)
@given(st.data())
def test_what_a_change_reaches_is_what_changes(data: st.DataObject) -> None:
    """Against a convolution of ones: it shows exactly the outputs that depend on the window."""
    kernel, stride, dilation = (data.draw(st.integers(1, most)) for most in (5, 3, 2))
    padding = data.draw(st.integers(0, dilation * (kernel - 1)))
    size = data.draw(st.integers(dilation * (kernel - 1) + 1, 40))
    length = data.draw(st.integers(1, size))
    start = data.draw(st.integers(0, size - length))
    layer = nn.Conv2d(1, 1, kernel, stride, padding, dilation, bias=False).requires_grad_(False)
    layer.weight.fill_(1.0)
    image = torch.zeros(1, 1, size, size)
    image[..., start : start + length, start : start + length] = 1
    made = layer(image)
    where = Locality(stride, padding, dilation * (kernel - 1) - padding)
    reach = where.reach(Windows([start], [start], length, length), image.shape[-2:], made.shape[-2:])
    assume(reach is not None)
    assert reach is not None
    elsewhere = made.clone()
    paste(elsewhere, reach.written, torch.zeros_like(cut(made, reach.written)))
    assert not elsewhere.any()
    piece = cut(layer(cut(image, reach.read)), reach.inside)
    assert torch.equal(piece, cut(made, reach.written))


@pytest.mark.parametrize(
    ("layer", "wanted"),
    [
        (nn.Conv2d(3, 4, 5, 2, 2), Locality(2, 2, 2)),
        (nn.Conv2d(3, 4, 3, 2), Locality(2, 0, 2)),
        (nn.MaxPool2d(3, 2, ceil_mode=True), Locality(2, 0, 2)),
        (nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 4, 3, 1, 1)), Locality(2, 3, 3)),
        (nn.ReLU(), Locality(1, 0, 0)),
        (nn.ReLU(inplace=True), Locality(1, 0, 0, needs_copy=True)),
        (nn.Identity(), Locality(1, 0, 0, needs_copy=True)),
        (nn.Conv2d(3, 4, 3, stride=(2, 1), padding=1), None),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), None),
        (nn.AdaptiveAvgPool2d(64), None),
        (nn.PixelShuffle(1), None),
        (_seeded(Normalizing), None),
        (_seeded(Mirroring), None),
        (_seeded(Squeezing), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_how_far_changes_reach_in_a_layer(layer: nn.Module, wanted: Locality | None) -> None:
    noise = torch.rand(1, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert locality_of(layer.eval(), noise) == wanted


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_scores_of_shipped_networks_are_those_of_the_whole(name: str, precision: str) -> None:
    x = _images(3, 128, 160)
    twin = prepare(with_score_range(models.create(name), (0.0, 100.0)), precision, x[:1])
    error, memory = _walk(twin, x, [100, 40, 20, 10, 5, 1] * 4)
    assert len(memory.maps) >= 5
    # In bfloat16, windows and wholes are rounded apart; a step of its scores between 64 and 128 is half a point.
    assert error <= (100 * CLOSE if precision == "fp32" else 0.5)


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11", "mobilenet_v3_small", "densenet121", "alexnet"])
@pytest.mark.parametrize("size", [(128, 128), (97, 210)])
def test_scores_of_other_trunks_are_those_of_the_whole(backbone: str, size: tuple[int, int]) -> None:
    x = _images(2, *size)
    twin = _twin(_seeded(TrunkNetwork, backbone=backbone), x)
    error, memory = _walk(twin, x, [30, 8, 3, 60, 5, 8])
    assert error <= 100 * CLOSE
    assert memory.maps


@pytest.mark.parametrize("gate", ["sort-mask", "soft-rank", "cas"])
def test_what_a_gate_weighs_is_computed_whole(gate: str) -> None:
    x = _images(2, 96)
    twin = _twin(_seeded(CompactNetwork, gate={"name": gate, "where": "every"}), x)
    error, memory = _walk(twin, x, [30, 8, 3, 20, 5, 8])
    assert error <= 100 * CLOSE
    assert sorted(memory.maps) == [0, 1, 2]  # centering, stem and first stage, after which stands the first gate


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_row_of_layers_gives_what_it_gives_to_the_whole(data: st.DataObject) -> None:
    layers: list[nn.Module] = []
    channels, seed = 3, data.draw(st.integers(0, 2**16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(data.draw(st.integers(1, 5))):
            kind = data.draw(st.sampled_from(["convolution", "maximum", "mean", "relu", "nothing", "normalizing"]))
            if kind == "convolution":
                kernel = data.draw(st.sampled_from([1, 3, 5]))
                stride, padding = data.draw(st.integers(1, 2)), data.draw(st.integers(0, kernel // 2))
                layers.append(nn.Conv2d(channels, 3, kernel, stride, padding))
            elif kind == "relu":
                layers.append(nn.ReLU(inplace=data.draw(st.booleans())))
            elif kind == "nothing":
                layers.append(nn.Dropout())
            elif kind == "normalizing" and channels == 3:
                layers.append(Normalizing())
                channels = 4
                layers.append(nn.Conv2d(4, 3, 1))
                channels = 3
            else:
                pool = nn.MaxPool2d if kind == "maximum" else nn.AvgPool2d
                layers.append(pool(data.draw(st.integers(2, 3)), 2, 1, ceil_mode=data.draw(st.booleans())))
        x = _images(3, data.draw(st.integers(45, 70)), data.draw(st.integers(45, 70)))
        twin = _twin(Row(*layers, nn.Conv2d(3, 2, 1)), x)
    error, _ = _walk(twin, x, [9, 3, 1, 12, 5, 2], drops=True)
    assert error <= CLOSE  # scores are about one


def test_what_a_window_does_not_reach_is_not_computed() -> None:
    network = _seeded(Row, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    x, memory, seen = _images(2, 64), Memory(), list[tuple[int, ...]]()
    with torch.no_grad():
        memory.propose(torch.arange(2), None)
        network(x, memory)
        for layer in network.layers:
            layer.register_forward_hook(lambda module, given, made: seen.append(tuple(given[0].shape)))
        memory.propose(torch.arange(2), Windows([10, 20], [30, 0], 4, 4))
        network(x, memory)
    # The first writes 6 x 6 and reads one position more on every side, the second 8 x 8.
    assert seen == [(2, 3, 8, 8), (2, 4, 10, 10)]


def test_models_that_remember_nothing_score_as_ever() -> None:
    x, memory = _images(2, 64), Memory()
    model, classic = models.create("compact"), nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    twin = prepare(models.wrap(classic), "fp32", x[:1])
    memory.propose(torch.arange(2), Windows([0, 0], [0, 0], 3, 3))
    with torch.no_grad():
        for scorer in (model, twin):
            assert torch.equal(scorer.score_changed(x, None, memory), scorer(x))
    assert not memory.maps
