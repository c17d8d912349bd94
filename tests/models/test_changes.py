"""Scores computed from small changes: what a change reaches, and the same scores as of the whole image."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import pytest
import torch
from change_examples import Asking, Branching, Normalizing, Spreading
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from iqa_robust import models
from iqa_robust.models.base import IQAModel, ModelInfo, with_score_range
from iqa_robust.models.changes.convolution import Convolution
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.changes.scorer import ChangeScorer
from iqa_robust.models.changes.windows import Windows, cut, paste
from iqa_robust.models.compact import CompactNetwork
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.models.score_network import ScoreNetwork
from iqa_robust.models.trunk_regressor import TrunkNetwork

N = 8
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
            windows, trial = Windows.at(top, left, size, size), kept.clone()
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


@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_scores_of_shipped_networks_are_those_of_the_whole(name: str) -> None:
    x = _images(3, 128, 160)
    twin = prepare(with_score_range(models.create(name), (0.0, 100.0)), "fp32", x[:1])
    _same(twin, x, [100, 40, 20, 10, 5, 1] * 4)


@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_float32_begins_to_remember_where_windows_become_small(precision: str) -> None:
    x, index, memory = _images(3, 64, 64), torch.arange(3), Memory()
    twin, model = prepare(models.create("compact"), precision, x[:1]), models.create("compact")
    kept, began = x.clone(), []
    with torch.no_grad():
        for number, size in enumerate((64, 40, 8, 40, 4)):
            windows, trial = Windows.at([0, 5, 9], [3, 0, 7], size, size) if number else None, kept.clone()
            if windows is not None:
                paste(trial, windows, 1 - cut(kept, windows))
            memory.propose(index, windows, kept.clone)
            found = twin.score_changed(trial, None, memory)
            if precision == "fp32":
                torch.testing.assert_close(found, model(trial), rtol=0, atol=100 * CLOSE)
            began.append(bool(memory.maps))
            memory.settle(stays := torch.tensor([True, False, number % 2 == 0]))
            kept = torch.where(stays.view(-1, 1, 1, 1), trial, kept)
    assert began == ([False, False, True, True, True] if precision == "fp32" else [True] * 5)


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
@pytest.mark.parametrize("name", ["compact", "trunk-regressor"])
def test_rounded_changes_are_off_in_proportion_to_themselves(name: str, precision: str) -> None:
    x = _images(N, 128, 160)
    exact, rounded = (prepare(models.create(name), kind, x[:1]) for kind in ("fp32", precision))
    with torch.no_grad():
        for size in (60, 8, 1):
            memory, index = Memory(), torch.arange(N)
            memory.propose(index, None)
            clean = rounded.score_changed(x, None, memory)
            windows, moved = Windows.at(range(0, 8 * N, 8), range(0, 12 * N, 12), size, size), x.clone()
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
        memory.propose(torch.arange(2), Windows.at([10, 20], [30, 0], 4, 4))
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


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_a_rounded_score_does_not_hang_on_who_stands_beside_an_image(precision: str) -> None:
    x = _images(N, 64)
    twin = prepare(models.create("compact"), precision, x[:1])
    tops = [5 * row for row in range(N)]
    found: dict[int, torch.Tensor] = {}
    for size in (N, 3, 1):
        parts = []
        for first in range(0, N, size):
            rows, memory = slice(first, first + size), Memory()
            images, index = x[rows], torch.arange(len(x[rows]))
            windows, moved = Windows.at(tops[rows], tops[rows], 3, 3), images.clone()
            paste(moved, windows, 1 - cut(images, windows))
            with torch.no_grad():
                memory.propose(index, None)
                twin.score_changed(images, None, memory)
                assert memory.maps
                memory.propose(index, windows)
                parts.append(twin.score_changed(moved, None, memory))
        found[size] = torch.cat(parts)
    with torch.no_grad():
        assert float((found[N] - twin(x)).abs().max()) > 10 * CLOSE  # the change is not too small to be seen
    for size in (3, 1):
        torch.testing.assert_close(found[size], found[N], rtol=0, atol=CLOSE)


def test_models_that_remember_nothing_score_as_ever() -> None:
    x, memory = _images(2, 64), Memory()
    model, classic = models.create("compact"), nn.Sequential(nn.Conv2d(3, 1, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    twin = prepare(models.wrap(classic), "fp32", x[:1])
    memory.propose(torch.arange(2), Windows.at([0, 0], [0, 0], 3, 3))
    with torch.no_grad():
        for scorer in (model, twin):
            assert torch.equal(scorer.score_changed(x, None, memory), scorer(x))
    assert not memory.maps
