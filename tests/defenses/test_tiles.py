"""Tiles: they cover, they overlap, and they change nothing that does not look beyond them."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.defenses.learned.tiles import spans, tiled


@given(st.integers(1, 60), st.integers(4, 12), st.integers(0, 2), st.integers(1, 9))
def test_equal_tiles_cover_the_axis_and_overlap(length: int, tile: int, overlap: int, multiple: int) -> None:
    found = spans(length * multiple, tile * multiple, overlap * multiple, multiple)
    assert found[0].start == 0
    assert found[-1].stop == length * multiple
    assert len({span.stop - span.start for span in found}) == 1
    assert all(span.stop - span.start <= tile * multiple for span in found)
    for before, after in pairwise(found):
        assert before.start < after.start
        assert before.stop - after.start >= overlap * multiple


@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 64), (64, 64), (65, 64), (150, 211)])
def test_pixelwise_networks_give_what_they_give_on_the_whole_image(height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width)
    same = tiled(lambda part: part, x, tile=64, overlap=16, multiple=8)
    torch.testing.assert_close(same, x, rtol=0, atol=1e-6)  # weights add up to one within float32 rounding
    bent = tiled(lambda part: part**2 - part.flip(1), x, tile=64, overlap=16, multiple=8)
    torch.testing.assert_close(bent, x**2 - x.flip(1), rtol=0, atol=1e-6)


def test_sides_that_the_network_sees_are_multiples_within_the_limit() -> None:
    seen = []

    def network(part: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(part.shape[-2:]))
        return part

    tiled(network, torch.rand(1, 3, 500, 90), tile=192, overlap=24, multiple=16)
    assert set(seen) == {(192, 96)}
    assert len(seen) == 3  # (500 + 2 * 24) / 3 = 183 needs three tiles of 192


def test_the_blend_has_a_gradient_of_one() -> None:
    x = torch.rand(1, 3, 100, 130, requires_grad=True)
    tiled(lambda part: part, x, tile=64, overlap=16, multiple=8).sum().backward()
    torch.testing.assert_close(x.grad, torch.ones_like(x), rtol=0, atol=1e-6)  # float32 rounding, padding cut away
