"""The largest strength inside a budget."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from iqa_robust.attacks.norms import distance, inside
from iqa_robust.attacks.perceptual.matching import BISECTIONS, largest_scale


def _noise(n: int = 2, size: int = 16) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = 0.3 + 0.4 * torch.rand(n, 3, size, size, generator=generator)
    return x, torch.randn(x.shape, generator=generator)


@pytest.mark.parametrize("norm,eps", [("linf", 0.02), ("l2", 0.3), ("psnr", 0.01), ("ssim", 0.05)])
def test_it_meets_the_budget_and_goes_no_further(norm: str, eps: float) -> None:
    x, pattern = _noise()
    most = torch.tensor([0.9, 0.4])

    def make(scale: torch.Tensor) -> torch.Tensor:
        return (x + scale.view(-1, 1, 1, 1) * pattern).clamp(0, 1)

    scale = largest_scale(make, x, norm, eps, most)
    assert bool(inside(make(scale), x, norm, eps).all())
    # The first strength that fits is within a factor of two of the best; bisection halves that gap each time.
    assert not inside(make(scale * (1 + 2.0**-BISECTIONS) + 1e-6), x, norm, eps).any()


@pytest.mark.parametrize("norm,eps", [("linf", 0.02), ("psnr", 0.01)])
def test_without_clipping_it_has_a_closed_form(norm: str, eps: float) -> None:
    x, pattern = _noise()
    scale = largest_scale(lambda s: x + s.view(-1, 1, 1, 1) * pattern, x, norm, eps, torch.ones(2), bisections=20)
    size = pattern.abs().amax(dim=(1, 2, 3)) if norm == "linf" else pattern.square().mean(dim=(1, 2, 3)).sqrt()
    torch.testing.assert_close(scale, eps / size, rtol=2e-4, atol=0)  # `inside` allows 1e-6 on 0.01


def test_a_distance_that_falls_again_is_used() -> None:
    """At strengths 0.9 to 1 the image is itself again: the largest strength counts, not the first that is too far."""
    x = torch.full((1, 3, 8, 8), 0.5)

    def make(scale: torch.Tensor) -> torch.Tensor:
        return x + torch.where(scale > 0.9, 0, scale).view(-1, 1, 1, 1) * torch.ones_like(x) / 4

    assert largest_scale(make, x, "linf", 0.01, torch.ones(1)).item() == 1
    tried = largest_scale(make, x, "linf", 0.01, torch.full((1,), 0.9))
    torch.testing.assert_close(tried, torch.tensor([0.04]), rtol=0.01, atol=0)


def test_nothing_fits() -> None:
    x = torch.full((2, 3, 8, 8), 0.5)
    assert largest_scale(lambda s: x + 0.1, x, "linf", 0.01, torch.ones(2)).tolist() == [0, 0]
    exact = largest_scale(lambda s: x + s.view(-1, 1, 1, 1), x, "linf", 0.0, torch.full((2,), 0.1))
    assert exact.max() <= 1e-4  # the last strengths tried are within the slack of `inside`


@given(seed=st.integers(0, 10_000), eps=st.floats(0.001, 0.2), norm=st.sampled_from(["linf", "l2", "psnr"]))
@settings(max_examples=50, deadline=None)
def test_what_it_finds_is_always_inside_and_belongs_to_the_image(seed: int, eps: float, norm: str) -> None:
    """Also for a distance that goes up and down at random; an image alone gives what it gives in a batch."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(3, 3, 4, 4, generator=generator)
    waves = 20 * torch.rand(3, 1, 1, 1, generator=generator)

    def make(scale: torch.Tensor, index: slice = slice(None)) -> torch.Tensor:
        s = scale.view(-1, 1, 1, 1)
        return (x[index] + 0.5 * s * (waves[index] * s).sin()).clamp(0, 1)

    most = torch.tensor([1.0, 0.5, 0.1])
    scale = largest_scale(make, x, norm, eps, most)
    assert bool((scale <= most).all()) and bool(inside(make(scale), x, norm, eps).all())
    assert distance(make(scale), x, norm).max() <= eps + 1e-6
    for i in range(3):
        one = slice(i, i + 1)
        alone = largest_scale(lambda s, one=one: make(s, one), x[one], norm, eps, most[one])
        assert torch.equal(alone, scale[one])
