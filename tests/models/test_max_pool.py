"""Maxima and slopes of the fast pooling are torch's, bit by bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from iqa_robust.models.max_pool import MaxPool2d, replace_max_pools

SHAPES: tuple[tuple[tuple[Any, ...], bool], ...] = (
    ((3, 2), True),
    ((3, 2, 1), False),
    ((2,), False),
    ((3, 1, 1, 2), False),
    (((5, 3), (2, 1), (1, 0)), True),
)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize(("shape", "ceil"), SHAPES)
def test_it_is_what_torch_does_also_at_ties_and_nan(
    shape: tuple[Any, ...], ceil: bool, memory: torch.memory_format, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    x = (4 * torch.randn(2, 5, 31, 34)).round().relu().to(dtype).contiguous(memory_format=memory)  # full of ties
    x[0, 0, 3, 3] = torch.nan
    found = []
    for pool in (nn.MaxPool2d(*shape, ceil_mode=ceil), MaxPool2d(*shape, ceil_mode=ceil)):
        leaf = x.clone().requires_grad_(True)
        pooled = pool(leaf)
        weights = torch.randn(pooled.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        found.append((pooled, torch.autograd.grad((pooled * weights).nan_to_num().sum(), leaf)[0]))
        found[-1] = (pool(x), *found[-1])
    (plain, pooled, slope), (fast, again, fast_slope) = found
    torch.testing.assert_close(fast, plain, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(again, pooled, rtol=0, atol=0, equal_nan=True)
    torch.testing.assert_close(fast_slope, slope, rtol=0, atol=0)
    assert fast.is_contiguous(memory_format=memory)


def test_replaced_everywhere_but_where_indices_are_wanted() -> None:
    shared, indexed = nn.MaxPool2d(2), nn.MaxPool2d(2, return_indices=True)
    network = nn.Sequential(shared, nn.Sequential(nn.MaxPool2d(3, 2, 1, ceil_mode=True), shared), indexed)
    replace_max_pools(network)
    assert isinstance(network[0], MaxPool2d) and isinstance(network[1][1], MaxPool2d)
    assert network[2] is indexed
    inner = network[1][0]
    assert isinstance(inner, MaxPool2d)
    assert (inner.kernel_size, inner.stride, inner.padding, inner.ceil_mode) == (3, 2, 1, True)
