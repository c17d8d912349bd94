"""Denoising blocks: identity at the start, and the filter by its definition."""

from __future__ import annotations

import math

import torch

from iqa_robust.models.feature_denoising import FeatureDenoising


def test_it_starts_as_the_identity() -> None:
    h = torch.rand(2, 8, 20, 17)
    assert torch.equal(FeatureDenoising(8)(h), h)


def test_filter_is_the_mean_over_positions_that_resemble() -> None:
    block = FeatureDenoising(4).double()
    torch.nn.init.eye_(block.mix.weight[:, :, 0, 0].data)
    torch.nn.init.constant_(block.scale, 0.5)
    h = torch.randn(1, 4, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows = h[0].flatten(1).T  # (15, 4): a map this small is its own grid
    unit = (rows - rows.mean(1, keepdim=True)) / (rows.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
    filtered = torch.softmax(unit @ unit.T / math.sqrt(4), dim=1) @ rows
    torch.testing.assert_close(block(h)[0], h[0] + 0.5 * filtered.T.reshape(4, 3, 5))


def test_a_step_of_adam_moves_large_features_by_a_small_share() -> None:
    """Features of a trunk that takes images from 0 to 255 are in the hundreds."""
    block, generator = FeatureDenoising(64), torch.Generator().manual_seed(2)
    h = 300 * torch.rand(4, 64, 9, 9, generator=generator)
    optimizer = torch.optim.AdamW(block.parameters(), lr=5e-4)
    for _ in range(20):
        optimizer.zero_grad()
        block(h).square().mean().backward()
        optimizer.step()
    # 20 steps of .0005 each of one factor per channel, of what W makes of features: no larger than they are.
    with torch.no_grad():
        assert float((block(h) - h).norm()) <= 0.02 * float(h.norm())


def test_slopes_are_exact() -> None:
    block = FeatureDenoising(3).double()
    torch.nn.init.normal_(block.mix.weight)
    torch.nn.init.normal_(block.scale)
    h = torch.randn(1, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert torch.autograd.gradcheck(block, h.requires_grad_())
