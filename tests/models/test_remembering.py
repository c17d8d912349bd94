"""Scores computed from small changes: what a change reaches, and the same scores as of the whole image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from iqa_robust import models
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.models.locality import Locality, Windows
from iqa_robust.models.memory import Memory, cut, paste
from iqa_robust.models.prepared import PreparedModel, prepare
from iqa_robust.models.remembering import RememberingLayer
from iqa_robust.models.trunk_regressor import TrunkNetwork

CLOSE = 1e-4
"""Relative: float32 sums in another order, through some dozens of layers; scores are on a scale of 100."""


class Stack(nn.Module):
    """Convolutions, then the mean: an image passes them in a row."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = layer(x)
        return x.mean(dim=(1, 2, 3))


class Row(nn.Module):
    """A convolution and what edits its maps."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.relu = nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(self.convolution(x)).mean(dim=(1, 2, 3))


class Centered(nn.Module):
    """Looks local, layer by layer, but takes the mean of the whole image off first."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Stack(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x - x.mean(dim=(2, 3), keepdim=True))


class Normalizing(nn.Module):
    """A layer of layers that hides a statistic of the whole map."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return made / (1 + made.abs().mean(dim=(2, 3), keepdim=True))


class Editing(nn.Module):
    """Adds to maps in place after the layer that made them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.first(x)
        made += 1
        return self.second(made).mean(dim=(1, 2, 3))


def _twin(module: nn.Module, side: int, precision: str = "fp32") -> IQAModel:
    return prepare(models.wrap(module.eval()), precision, _images(1, side))


def _seeded(make: type[nn.Module], *args: object) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make(*args)


def _images(n: int, side: int, width: int | None = None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(n, 3, 6, 6, generator=generator)
    return F.interpolate(coarse, (side, width or side), mode="bilinear")


def _search(twin: IQAModel, x: torch.Tensor, sizes: Sequence[int], *, drops: bool = False) -> float:
    """Walk as a search does: squares one after the other, a half of which stay. The largest error of a score."""
    generator = torch.Generator().manual_seed(4)
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
            found, wanted = twin.score_changed(trial, None, memory), twin(trial)
            worst = max(worst, float((found - wanted).abs().max()))
            stays = torch.rand(len(kept), generator=generator) < 0.5
            memory.settle((~stays).nonzero().squeeze(1).tolist())
            kept = torch.where(stays.view(-1, 1, 1, 1), trial, kept)
    return worst


def _links(twin: IQAModel) -> list[RememberingLayer]:
    return [layer for layer in twin.modules() if isinstance(layer, RememberingLayer)]


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
    if reach is None:
        return
    elsewhere = made.clone()
    paste(elsewhere, reach.written, torch.zeros_like(cut(made, reach.written)))
    assert not elsewhere.any()
    piece = cut(layer(cut(image, reach.read)), reach.inside)
    assert torch.equal(piece, cut(made, reach.written))


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_scores_of_shipped_networks_are_those_of_the_whole(name: str, precision: str) -> None:
    x = _images(3, 128, 160)
    model = models.create(name)
    twin = prepare(with_score_range(model, (0.0, 100.0)), precision, x[:1])
    error = _search(twin, x, [100, 40, 20, 10, 5, 1] * 4)
    assert _links(twin)
    # In bfloat16, windows and wholes are rounded apart; a step of its scores between 64 and 128 is half a point.
    assert error <= (100 * CLOSE if precision == "fp32" else 0.5)


@pytest.mark.parametrize("backbone", ["resnet18", "vgg11", "mobilenet_v3_small", "densenet121"])
def test_scores_of_other_trunks_are_those_of_the_whole(backbone: str) -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = TrunkNetwork(backbone=backbone).eval().requires_grad_(False)
    twin = prepare(models.wrap(network, ModelInfo(score_range=(0.0, 100.0))), "fp32", _images(1, 128))
    assert _search(twin, _images(2, 128), [30, 8, 3, 60, 5, 8]) <= 100 * CLOSE
    assert _links(twin)


@settings(deadline=None, max_examples=25)
@given(st.data())
def test_any_row_of_layers_gives_what_it_gives_to_the_whole(data: st.DataObject) -> None:
    layers: list[nn.Module] = []
    channels, seed = 3, data.draw(st.integers(0, 2**16))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for _ in range(data.draw(st.integers(1, 4))):
            kind = data.draw(st.sampled_from(["convolution", "maximum", "mean", "relu"]))
            if kind == "convolution":
                kernel = data.draw(st.sampled_from([1, 3, 5]))
                stride, padding = data.draw(st.integers(1, 2)), data.draw(st.integers(0, kernel // 2))
                layers.append(nn.Conv2d(channels, 4, kernel, stride, padding))
                channels = 4
            elif kind == "relu":
                layers.append(nn.ReLU(inplace=data.draw(st.booleans())))
            else:
                pool = nn.MaxPool2d if kind == "maximum" else nn.AvgPool2d
                layers.append(pool(data.draw(st.integers(2, 3)), 2, 1, ceil_mode=data.draw(st.booleans())))
        side, width = data.draw(st.integers(50, 70)), data.draw(st.integers(50, 70))
        twin = prepare(models.wrap(Stack(*layers).eval()), "fp32", _images(1, side, width))
    error = _search(twin, _images(3, side, width), [9, 3, 1, 12, 5, 2], drops=True)
    assert error <= CLOSE  # scores are about one


def test_what_a_window_does_not_reach_is_not_computed() -> None:
    twin = _twin(_seeded(Stack, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)), 64)
    x, memory, seen = _images(2, 64), Memory(), []
    with torch.no_grad():
        memory.propose(torch.arange(2), None)
        twin.score_changed(x, None, memory)
        for layer in _links(twin):
            layer.layer.register_forward_hook(lambda module, given, made: seen.append(tuple(given[0].shape)))
        memory.propose(torch.arange(2), Windows([10, 20], [30, 0], 4, 4))
        twin.score_changed(x, None, memory)
    # The first writes 6 x 6 and reads one position more on every side, the second 8 x 8.
    assert seen == [(2, 3, 8, 8), (2, 4, 10, 10)]


@pytest.mark.parametrize(
    "module",
    [
        _seeded(Centered),
        _seeded(Stack, nn.Conv2d(3, 4, 3, padding=1), Normalizing()),
        _seeded(Editing),
        _seeded(Stack, nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")),
    ],
    ids=["mean-of-image", "mean-of-map", "edited-in-place", "around-the-edge"],
)
def test_a_network_that_reaches_farther_than_its_layers_say_is_computed_whole(module: nn.Module) -> None:
    twin = _twin(module, 64)
    assert _search(twin, _images(3, 64), [5, 9, 2, 5, 30]) <= 1e-6  # up to the rounding of a mean


@pytest.mark.parametrize("compiled", [torch.jit.script, lambda module: torch.compile(module, backend="eager")])
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_compiled_network_is_computed_whole(compiled: Callable[[nn.Module], nn.Module]) -> None:
    module = compiled(_seeded(Row).eval())
    twin = prepare(models.wrap(module), "fp32", _images(1, 32))
    assert _search(twin, _images(2, 32), [3, 5]) == 0
    assert not _links(twin)


def test_maps_live_with_the_search_and_sizes_may_differ() -> None:
    twin = _twin(_seeded(Stack, nn.Conv2d(3, 4, 3, padding=1)), 40)
    for side in (40, 64, 40, 8):
        assert _search(twin, _images(2, side), [4, 2, 1]) <= CLOSE
    assert isinstance(twin, PreparedModel)


def test_models_that_remember_nothing_score_as_ever() -> None:
    x, memory = _images(2, 64), Memory()
    model = models.create("compact")
    memory.propose(torch.arange(2), Windows([0, 0], [0, 0], 3, 3))
    with torch.no_grad():
        assert torch.equal(model.score_changed(x, None, memory), model(x))
    assert not memory.maps
