"""Scores computed from small changes: what a change reaches, and the same scores as of the whole image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from iqa_robust import models
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.models.changes.convolution import Convolution
from iqa_robust.models.changes.layers import maps_of
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.moments import mean_and_std
from iqa_robust.models.changes.reach import Reach
from iqa_robust.models.changes.scorer import ChangeScorer
from iqa_robust.models.changes.trace import traced
from iqa_robust.models.changes.windows import Windows, covering, cut, hull, laid_out, paste, placed
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.pooling import mean_and_std as whole_mean_and_std
from iqa_robust.models.prepared import prepare
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunk_regressor import TrunkNetwork

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


class Overwriting(nn.Module):
    """The ReLU writes into what the sum reads afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.relu = nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return self.relu(made) + made


class Adding(nn.Module):
    """Adds to what its parent goes on to use."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x += self.convolution(x)
        return x


class Reusing(nn.Module):
    """Reads its maps after a part of it has edited them."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.part = nn.Conv2d(3, 4, 3, padding=1), Adding()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return torch.cat([made, self.part(made)], 1)


class Asking(nn.Module):
    """Does something else when it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.convolution(x) * 0.5 if isinstance(x, torch.Tensor) else self.convolution(x)


class Spreading(nn.Module):
    """Adds a map of one position to all positions, for images of 64 pixels; and the other way around."""

    def __init__(self, *, first: bool) -> None:
        super().__init__()
        self.convolution, self.pool, self.first = nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(64), first

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made = self.convolution(x)
        return self.pool(made) + made if self.first else made + self.pool(made)


class Branching(nn.Module):
    """Two branches, one of which reaches farther, summed and put side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Conv2d(3, 4, 5, padding=2), nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        wide, narrow = self.wide(x), self.narrow(x)
        return torch.cat([torch.relu(wide + narrow), narrow], 1)


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


def _walk(
    twin: IQAModel, whole: IQAModel, x: torch.Tensor, sizes: Sequence[int], *, drops: bool = False
) -> tuple[torch.Tensor, torch.Tensor]:
    """Go as a search does: squares one after the other, a half of which stay.

    The changes of the score from the first image on, by a twin that remembers, and by one that scores the whole image.
    """
    generator = torch.Generator().manual_seed(4)
    kept, memory, pairs = x.clone(), Memory(), []
    index = torch.arange(len(x))
    with torch.no_grad():
        memory.propose(index, None)
        first, wanted_first = twin.score_changed(kept, None, memory), whole(kept)
        torch.testing.assert_close(first, wanted_first, rtol=0, atol=100 * CLOSE)
        for number, size in enumerate(sizes):
            if drops and number == len(sizes) // 2:
                index, kept, first, wanted_first = (values[1:] for values in (index, kept, first, wanted_first))
            top, left = (
                torch.randint(0, side - size + 1, (len(kept),), generator=generator).tolist() for side in x.shape[-2:]
            )
            windows, trial = Windows(top, left, size, size), kept.clone()
            paste(trial, windows, torch.rand(len(kept), 3, size, size, generator=generator))
            memory.propose(index, None if number % 5 == 4 else windows)
            before = trial.clone()
            found, wanted = twin.score_changed(trial, None, memory), whole(trial)
            assert torch.equal(trial, before)
            pairs.append(torch.stack([found - first, wanted - wanted_first]))
            stays = torch.rand(len(kept), generator=generator) < 0.5
            memory.settle(stays)
            kept = torch.where(stays.view(-1, 1, 1, 1), trial, kept)
    found, wanted = torch.cat(pairs, dim=1)
    return found, wanted


def _same(twin: IQAModel, x: torch.Tensor, sizes: Sequence[int], scale: float = 100.0, *, drops: bool = False) -> None:
    """Assert that a float32 twin gives the scores of the whole, and remembers."""
    found, wanted = _walk(twin, copy.deepcopy(twin), x, sizes, drops=drops)
    torch.testing.assert_close(found, wanted, rtol=0, atol=scale * CLOSE)


def _steps(twin: IQAModel, x: torch.Tensor) -> list[str]:
    """The classes of the steps that pass changes on."""
    with torch.no_grad():
        twin.score_changed(x, None, Memory())
    scorer = twin._by_changes
    assert isinstance(scorer, ChangeScorer) and scorer.serves(x)
    return [type(step).__name__ for step, _ in zip(scorer.network.steps(), scorer.steps, strict=False)]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_the_change_of_a_convolution_is_that_of_the_whole(data: st.DataObject) -> None:
    """And, with weights of one, what lies outside the stated windows does not change."""
    sides = [data.draw(st.integers(10, 40)) for _ in "hw"]
    kernel, dilation = data.draw(st.integers(1, 5)), data.draw(st.integers(1, 2))
    strides = tuple(data.draw(st.integers(1, 3)) for _ in "hw")
    padding = data.draw(st.integers(0, dilation * (kernel - 1)))
    size = [data.draw(st.integers(1, side)) for side in sides]
    starts = [
        [data.draw(st.integers(0, side - length)) for _ in range(2)] for side, length in zip(sides, size, strict=True)
    ]
    layer = nn.Conv2d(2, 3, kernel, strides, padding, dilation).requires_grad_(False)
    layer.weight.fill_(1.0)
    generator, windows = torch.Generator().manual_seed(0), Windows(*starts, *size)
    old = torch.rand(2, 2, *sides, generator=generator).contiguous(memory_format=torch.channels_last)
    new = old.clone()
    paste(new, windows, 1 + torch.rand(2, 2, *size, generator=generator))
    made = layer(old)
    change, where = Convolution(layer, rounded=False).change(
        made, maps_of(Kept(old, cut(new, windows) - cut(old, windows), windows))
    )
    # Float32 sums of at most 50 values.
    torch.testing.assert_close(made + placed(change, where, covering(made)), layer(new), rtol=1e-5, atol=1e-5)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_what_a_pool_reads_is_enough(data: st.DataObject) -> None:
    """The outputs that change, made of what is said to be needed alone, are those of the whole."""
    kernel, stride = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 3))
    padding = data.draw(st.integers(0, kernel // 2))
    side = data.draw(st.integers(12, 40))
    length = data.draw(st.integers(1, side))
    start = data.draw(st.integers(0, side - length))
    layer = nn.MaxPool2d(kernel, stride, padding, ceil_mode=data.draw(st.booleans()))
    old = torch.rand(1, 1, 1, side, generator=torch.Generator().manual_seed(0)).expand(1, 1, side, side)
    new = old.clone()
    new[..., start : start + length] = 2
    made, wanted = layer(old), layer(new)
    reach = Reach.of(kernel, stride, padding, 1)
    changed = reach.changed([start], length, made.shape[-1])
    (first,), count = changed.starts, changed.length
    outside = torch.ones(made.shape[-1], dtype=torch.bool)
    outside[first : first + count] = False
    assert torch.equal(made[..., outside], wanted[..., outside])
    needed = reach.needed(changed.starts, count, side)
    (begin,), (inside,) = needed.starts, needed.inside
    piece = layer(new[..., begin : begin + needed.length])[..., inside : inside + count]
    assert torch.equal(piece, wanted[..., first : first + count])


def test_windows_that_hold_others() -> None:
    parts = [Windows([2, 7], [0, 5], 2, 3), Windows([3, 6], [1, 5], 4, 1)]
    # Rows 2 to 7 and 6 to 10: five and four of them, so five each, inside ten. Columns 0 to 3 and 5 to 8.
    assert hull(parts, 10, 8) == Windows([2, 5], [0, 5], 5, 3)


def test_pieces_laid_out_over_edges() -> None:
    piece = torch.arange(9.0).view(1, 1, 3, 3)
    found = laid_out(piece, [-1], [2], 3, 4)
    assert found.tolist() == [[[[0, 0, 3, 4], [0, 0, 6, 7], [0, 0, 0, 0]]]]
    assert not laid_out(piece, [3], [0], 3, 3).any()


@pytest.mark.parametrize(
    ("layer", "known"),
    [
        (nn.Conv2d(3, 4, 3, stride=(2, 1), padding=1, groups=1), True),
        (nn.MaxPool2d(3, 2, ceil_mode=True), True),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout()), True),
        (Branching(), True),
        (nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), False),
        (nn.Conv2d(3, 4, 3, padding="same"), False),
        (nn.MaxPool2d(3, 2, return_indices=True), False),
        (nn.BatchNorm2d(3, track_running_stats=False), False),
        (nn.InstanceNorm2d(3), False),
        (nn.AdaptiveAvgPool2d(64), False),
        (nn.PixelShuffle(1), False),
        (Normalizing(), False),
        (Mirroring(), False),
        (Squeezing(), False),
        (Overwriting(), False),
        (Reusing(), False),
        (nn.Sequential(nn.Conv2d(3, 4, 1), Adding()), True),
    ],
    ids=lambda value: type(value).__name__,
)
def test_which_layers_pass_changes_on(layer: nn.Module, known: bool) -> None:
    assert (traced(layer.eval().requires_grad_(False), rounded=False) is not None) == known


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_moments_stay_those_of_the_maps(data: st.DataObject) -> None:
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 100)))
    offset = data.draw(st.sampled_from([0.0, 100.0]))
    values = (offset + torch.rand(2, 3, 9, 8, generator=generator)).contiguous(memory_format=torch.channels_last)
    memory = Memory()
    mean_and_std(maps_of(Kept(values)), memory, "here")
    for _ in range(20):
        side = data.draw(st.integers(1, 8))
        windows = Windows([data.draw(st.integers(0, 9 - side)) for _ in "ab"], [0, 8 - side], side, side)
        now = offset + torch.rand(2, 3, side, side, generator=generator)
        change = Kept(values, now - cut(values, windows), windows)
        found = mean_and_std(maps_of(change), memory, "here")
        trial = values.clone()
        paste(trial, windows, now)
        # Sums of 72 values of about one, or of a hundred less a hundred, which have lost two digits.
        torch.testing.assert_close(found, whole_mean_and_std(trial), rtol=1e-5, atol=1e-5 * max(offset, 1))
        won = torch.tensor([data.draw(st.booleans()), True])
        memory.settle(won)
        values[won] = trial[won]


@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_scores_of_shipped_networks_are_those_of_the_whole(name: str) -> None:
    x = _images(3, 128, 160)
    twin = prepare(with_score_range(models.create(name), (0.0, 100.0)), "fp32", x[:1])
    _same(twin, x, [100, 40, 20, 10, 5, 1] * 4)


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_rounded_changes_are_off_in_proportion_to_themselves(name: str, precision: str) -> None:
    x = _images(3, 128, 160)
    exact, rounded = (prepare(models.create(name), kind, x[:1]) for kind in ("fp32", precision))
    with torch.no_grad():
        for size in (60, 8, 1):
            memory, index = Memory(), torch.arange(3)
            memory.propose(index, None)
            clean = rounded.score_changed(x, None, memory)
            windows, moved = Windows([20, 40, 60], [0, 50, 90], size, size), x.clone()
            paste(moved, windows, 1 - cut(x, windows))
            memory.propose(index, windows)
            found, wanted = rounded.score_changed(moved, None, memory) - clean, exact(moved) - exact(x)
            # Some dozens of roundings by at most a 256th each, which do not add up; and float32's own, of the scores.
            assert float((found - wanted).norm()) <= 0.03 * float(wanted.norm()) + 3e-4


@pytest.mark.parametrize(
    ("backbone", "steps"),
    [
        ("resnet18", 13),
        ("vgg11", 22),
        ("mobilenet_v3_small", 2),
        ("mobilenet_v2", 20),
        ("densenet121", 13),
        ("alexnet", 14),
        ("resnext50_32x4d", 21),
    ],
)
@pytest.mark.parametrize("size", [(128, 128), (97, 210)])
def test_scores_of_other_trunks_are_those_of_the_whole(backbone: str, steps: int, size: tuple[int, int]) -> None:
    x = _images(2, *size)
    twin = _twin(_seeded(TrunkNetwork, backbone=backbone), x)
    assert len(_steps(twin, x)) == steps
    _same(twin, x, [30, 8, 3, 60, 5, 8])


@pytest.mark.parametrize("gate", ["sort-mask", "soft-rank", "cas"])
def test_what_a_gate_weighs_is_computed_whole(gate: str) -> None:
    x = _images(2, 96)
    twin = _twin(_seeded(CompactNetwork, gate={"name": gate, "where": "every"}), x)
    assert len(_steps(twin, x)) == 3  # centering, stem and first stage, after which stands the first gate
    _same(twin, x, [30, 8, 3, 20, 5, 8])


@settings(deadline=None, max_examples=40)
@given(st.data())
def test_any_row_of_layers_gives_what_it_gives_to_the_whole(data: st.DataObject) -> None:
    layers: list[nn.Module] = []
    kinds = ["convolution", "maximum", "mean", "relu", "nothing", "normalizing", "branching"]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(data.draw(st.integers(0, 2**16)))
        for _ in range(data.draw(st.integers(1, 5))):
            kind = data.draw(st.sampled_from(kinds))
            if kind == "convolution":
                kernel = data.draw(st.sampled_from([1, 3, 5]))
                stride, padding = data.draw(st.integers(1, 2)), data.draw(st.integers(0, kernel // 2))
                layers.append(nn.Conv2d(3, 3, kernel, stride, padding))
            elif kind == "relu":
                layers.append(nn.ReLU(inplace=data.draw(st.booleans())))
            elif kind == "nothing":
                layers.append(nn.Dropout())
            elif kind == "normalizing":
                layers += [Normalizing(), nn.Conv2d(4, 3, 1)]
            elif kind == "branching":
                layers += [Branching(), nn.Conv2d(8, 3, 1)]
            else:
                pool = nn.MaxPool2d if kind == "maximum" else nn.AvgPool2d
                layers.append(pool(data.draw(st.integers(2, 3)), 2, 1, ceil_mode=data.draw(st.booleans())))
        x = _images(3, data.draw(st.integers(45, 70)), data.draw(st.integers(45, 70)))
        twin = _twin(Row(*layers, nn.Conv2d(3, 2, 1)), x)
    _same(twin, x, [9, 3, 1, 12, 5, 2, 7], scale=1.0, drops=True)  # scores are about one


def test_what_a_window_does_not_reach_is_not_computed() -> None:
    network = _seeded(Row, nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1))
    assert isinstance(network, ScoreNetwork)
    scorer = ChangeScorer(network, rounded=False)
    x, memory, seen = _images(2, 64), Memory(), list[tuple[int, ...]]()
    with torch.no_grad():
        memory.propose(torch.arange(2), None)
        assert scorer.serves(x)
        scorer(x, memory)
        for step in scorer.steps:
            layer = step.operations[0].layer
            assert isinstance(layer, Convolution)
            layer.kernel.register_forward_hook(lambda module, given, made: seen.append(tuple(given[0].shape)))
        memory.propose(torch.arange(2), Windows([10, 20], [30, 0], 4, 4))
        scorer(x, memory)
    # The second gets what the first changes, a ring of one position more.
    assert seen == [(2, 3, 4, 4), (2, 4, 6, 6)]


def test_a_step_that_is_traced_wrongly_is_computed_whole() -> None:
    x = _images(2, 64)
    twin = _twin(_seeded(Row, nn.Conv2d(3, 3, 3), Asking(), nn.Conv2d(4, 2, 1)), x)
    assert _steps(twin, x) == ["Conv2d"]
    _same(twin, x, [30, 8, 3, 20, 5, 8], scale=1.0)


@pytest.mark.parametrize("first", [False, True])
def test_a_map_of_one_position_changes_all(first: bool) -> None:
    x = _images(2, 64)
    twin = _twin(_seeded(Row, Spreading(first=first), nn.Conv2d(4, 2, 1)), x)
    assert len(_steps(twin, x)) == 2
    _same(twin, x, [30, 8, 3, 20, 5, 8], scale=1.0)


def test_steps_after_the_last_tap_are_left_out() -> None:
    class Early(Row):
        def taps(self) -> list[int]:
            return [0]

    x = _images(2, 64)
    _same(_twin(_seeded(Early, nn.Conv2d(3, 2, 3), nn.ReLU()), x), x, [8, 3, 20], scale=1.0)


def test_rounded_twins_that_cannot_pass_all_changes_on_round_the_whole() -> None:
    x, memory = _images(2, 96), Memory()
    twin = prepare(models.wrap(_seeded(TrunkNetwork, backbone="mobilenet_v3_small")), "bf16", x[:1])
    with torch.no_grad():
        assert torch.equal(twin.score_changed(x, None, memory), twin(x))
    assert not memory.maps


def test_models_that_remember_nothing_score_as_ever() -> None:
    x, memory = _images(2, 64), Memory()
    model, classic = models.create("compact"), nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    twin = prepare(models.wrap(classic), "fp32", x[:1])
    memory.propose(torch.arange(2), Windows([0, 0], [0, 0], 3, 3))
    with torch.no_grad():
        for scorer in (model, twin):
            assert torch.equal(scorer.score_changed(x, None, memory), scorer(x))
    assert not memory.maps
