"""Random noise: the normal distribution, per image and draw."""

from __future__ import annotations

import pytest
import torch
from scipy import stats

from iqa_robust.defenses.noise.random_noise import RandomNoise
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import seeded


def test_the_noise_is_normal_with_the_stated_deviation() -> None:
    x = torch.full((4, 3, 40, 40), 0.5)
    with seeded(range(4)):
        noise = (RandomNoise(sigma=0.05).purify(x) - x).flatten()
    assert stats.kstest(noise.double().numpy(), "norm", args=(0, 0.05)).pvalue > 0.01  # fixed seeds: always the same
    assert noise.std() == pytest.approx(0.05, rel=0.03)  # 19,200 values: a standard error of 0.5 %


def test_every_image_and_call_draws_anew() -> None:
    x = torch.full((2, 3, 8, 8), 0.5)
    defense = RandomNoise()
    with seeded([1, 2]):
        first, second = defense.purify(x), defense.purify(x)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)


def test_stays_in_range_and_black_and_white_have_a_slope() -> None:
    x = torch.zeros(1, 3, 8, 8)
    x[..., 4:] = 1
    x.requires_grad_(True)
    with seeded([1]):
        y = RandomNoise(sigma=3.0).purify(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    assert (y.min(), y.max()) == (0, 1)
    assert torch.equal(slope, torch.ones_like(slope))


@pytest.mark.parametrize("sigma", [0, -0.1, float("inf"), None])
def test_refuses(sigma: object) -> None:
    with pytest.raises(ContractError, match=r"^RandomNoise: expected sigma to be a finite number > 0, got"):
        RandomNoise(sigma=sigma)  # type: ignore[arg-type]
