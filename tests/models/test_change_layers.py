"""Layers that pass changes on: where their output changes and by how much, and which layers do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from change_examples import Adding, Branching, Mirroring, Normalizing, Overwriting, Reusing, Squeezing
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from iqa_robust.models.changes.convolution import Convolution
from iqa_robust.models.changes.layers import maps_of
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.moments import mean_and_std
from iqa_robust.models.changes.reach import Reach
from iqa_robust.models.changes.trace import traced
from iqa_robust.models.changes.windows import Windows, covering, cut, hull, paste
from iqa_robust.models.pooling import mean_and_std as whole_mean_and_std


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
    generator, windows = torch.Generator().manual_seed(0), Windows.at(*starts, *size)
    old = torch.rand(2, 2, *sides, generator=generator).contiguous(memory_format=torch.channels_last)
    new = old.clone()
    paste(new, windows, 1 + torch.rand(2, 2, *size, generator=generator))
    made = layer(old)
    change, where = Convolution(layer, rounded=False).change(
        made, maps_of(Kept(old, cut(new, windows) - cut(old, windows), windows))
    )
    # Float32 sums of at most 50 values.
    whole = cut(change, covering(*made[:, 0].shape).seen_from(where))
    torch.testing.assert_close(made + whole, layer(new), rtol=1e-5, atol=1e-5)


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
    changed = reach.changed(np.array([start]), length, made.shape[-1])
    (first,), count = changed.starts, changed.length
    outside = torch.ones(made.shape[-1], dtype=torch.bool)
    outside[first : first + count] = False
    assert torch.equal(made[..., outside], wanted[..., outside])
    needed = reach.needed(changed.starts, count, side)
    (begin,), (inside,) = needed.starts, needed.inside
    piece = layer(new[..., begin : begin + needed.length])[..., inside : inside + count]
    assert torch.equal(piece, wanted[..., first : first + count])


def test_windows_that_hold_others() -> None:
    parts = [Windows.at([2, 7], [0, 5], 2, 3), Windows.at([3, 6], [1, 5], 4, 1)]
    # Rows 2 to 7 and 6 to 10: five and four of them, so five each, inside ten. Columns 0 to 3 and 5 to 8.
    found = hull(parts, 10, 8)
    assert (found.top.tolist(), found.left.tolist(), *found[2:]) == ([2, 5], [0, 5], 5, 3)


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_windows_hold_zeros_beyond_the_edges(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 6)), data.draw(st.integers(1, 6))
    maps = torch.arange(1.0, 1 + 6 * height * width).view(2, 3, height, width)
    maps = maps.contiguous(memory_format=data.draw(st.sampled_from([torch.contiguous_format, torch.channels_last])))
    top, left = ([data.draw(st.integers(-8, 8)) for _ in "ab"] for _ in "yx")
    size = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 9))
    around = nn.functional.pad(maps, (20, 20, 20, 20))
    wanted = [
        around[row, :, 20 + y : 20 + y + size[0], 20 + x : 20 + x + size[1]]
        for row, (y, x) in enumerate(zip(top, left, strict=True))
    ]
    windows = Windows.at(top, left, *size)
    assert torch.equal(cut(maps, windows), torch.stack(wanted))
    assert torch.equal(cut(maps, windows, [1]), wanted[1][None])


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
        windows = Windows.at([data.draw(st.integers(0, 9 - side)) for _ in "ab"], [0, 8 - side], side, side)
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
