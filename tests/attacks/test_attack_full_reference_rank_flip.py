"""Rank flips: partners against brute force, closed forms on a linear model, and a stop at the flip."""

from __future__ import annotations

from collections.abc import Callable

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings

from iqa_robust.attacks.full_reference.rank_flip import RankFlip, partners
from iqa_robust.attacks.set_attack import SetScores
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.full_reference import SSIM
from iqa_robust.records import Budget


@given(
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["a", "b", None])), min_size=1, max_size=12),
    st.sampled_from([0.5, 1.0, 3.0]),
)
@settings(deadline=None)
def test_partners_are_those_of_a_search_over_all_pairs(images: list[tuple[int, str | None]], gap: float) -> None:
    clean, ids = np.array([float(score) for score, _ in images]), [name for _, name in images]
    for i, j in enumerate(partners(clean, ids, gap)):
        apart = [
            (abs(clean[k] - clean[i]), clean[k] < clean[i])  # nearest first, then the higher
            for k in range(len(clean))
            if ids[k] == ids[i] and abs(clean[k] - clean[i]) >= gap
        ]
        if apart:
            assert ids[j] == ids[i] and (abs(clean[j] - clean[i]), clean[j] < clean[i]) == min(apart)
        else:
            assert j == i


def test_targets_lie_a_margin_beyond_the_partner() -> None:
    scores = SetScores(torch.tensor([0.0, 40.0, 100.0, 70.0]), None, True, ["a", "a", "b", "c"])
    targets = RankFlip(gap=0.2, margin=0.05).plan(scores, seed=0)
    torch.testing.assert_close(targets, torch.tensor([45.0, -5.0, 100.0, 70.0]))
    same = SetScores(torch.tensor([3.0, 3.0]), None, True, ["a", "a"])
    assert torch.equal(RankFlip().plan(same, seed=0), same.clean)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_on_a_linear_model_exactly_the_reachable_pairs_flip(
    images: Callable[..., torch.Tensor],
    weights: torch.Tensor,
    make_linear: Callable[..., IQAModel],
    higher_is_better: bool,
) -> None:
    import dataclasses

    model = make_linear(weights)
    model.info = dataclasses.replace(model.info, higher_is_better=higher_is_better)
    x = images(6, low=64, high=192)  # never clipped
    with torch.no_grad():
        clean = model(x)
    budget = Budget(eps_255=4, steps=10)
    most = weights.abs().sum() * 4 / 255  # the farthest an L-infinity change of 4/255 moves the score
    target = clean + most * torch.tensor([0.3, -0.8, 0.98, -1.02, 2.0, 0.0])
    result = RankFlip()(model, x, goal="away", budget=budget, target=target)
    flipped = (result.score_adv - target) * (target - clean) >= 0
    assert flipped.tolist() == [True, True, True, False, False, True]
    # Where it is out of reach, the attack goes as far as it can, up to float32 sums of 768 terms.
    reached = (result.score_adv - clean).abs()[3:5]
    torch.testing.assert_close(reached, most.expand(2), rtol=1e-5, atol=0)
    # Nothing to do: nothing is spent. An easy flip takes few steps and little change.
    assert result.queries[5] == 0 and torch.equal(result.images[5], x[5])
    assert result.gradients[0] <= 3 < result.gradients[3] == 10
    assert result.l2[0] < 0.7 * result.l2[3]


def test_images_leave_after_their_flip(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(2, low=64, high=192)
    with torch.no_grad():
        target = linear(x) + torch.tensor([0.5, 1000.0])
    result = RankFlip()(linear, x, goal="away", budget=Budget(eps_255=4, steps=20), target=target)
    assert result.gradients[0] < 5 and result.gradients[1] == 20


@pytest.mark.parametrize("norm,eps_255", [("linf", 2), ("l2", 60), ("psnr", 1.5), ("ssim", 8)])
def test_it_flips_pairs_of_a_full_reference_model_in_every_norm(
    images: Callable[..., torch.Tensor], norm: str, eps_255: float
) -> None:
    ref = images(1, size=32, low=90, high=160).expand(4, -1, -1, -1)
    noise = torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    strength = torch.tensor([0.02, 0.024, 0.06, 0.066]).view(-1, 1, 1, 1)
    x = torch.round((ref + strength * noise).clamp(0, 1) * 255) / 255
    model = SSIM()
    attack = RankFlip(gap=0.01)
    with torch.no_grad():
        clean = model(x, ref)
    targets = attack.planned(SetScores(clean, (-1.0, 1.0), True, ["r"] * 4), seed=0)
    result = attack(model, x, ref, goal="away", budget=Budget(norm=norm, eps_255=eps_255, steps=15), target=targets)
    assert bool(((result.score_adv - targets) * (targets - clean) >= 0).all())


def released(model: IQAModel, x: torch.Tensor, ref: torch.Tensor, other: torch.Tensor, eps: float) -> torch.Tensor:
    """The released loop on similarities 1 - s, one image at a time, 30 steps of eps / 30; (N,) bool: flipped."""
    flips = []
    for i in range(len(x)):
        z, center = x[i : i + 1].clone(), x[i : i + 1]
        distance_other = 1 - other[i]
        for _ in range(30):
            z.requires_grad_(True)
            distance = 1 - model(z, ref[i : i + 1])
            loss = (distance_other / (distance_other + distance) - 1).square().sum()
            (slope,) = torch.autograd.grad(loss, z)
            z = (center + (z.detach() + eps / 30 * slope.sign() - center).clamp(-eps, eps)).clamp(0, 1)
        rounded = torch.round(z * 255) / 255
        with torch.no_grad():
            flips.append(bool(1 - model(rounded, ref[i : i + 1]) > distance_other))
    return torch.tensor(flips)


def test_it_flips_whatever_the_released_loop_flips(images: Callable[..., torch.Tensor]) -> None:
    """The task of the paper: the better image of a pair, made to look worse than the other, at equal eps and steps."""
    ref = images(1, size=24, low=90, high=160).expand(12, -1, -1, -1)
    noise = torch.randn(12, 3, 24, 24, generator=torch.Generator().manual_seed(1))
    x = torch.round((ref + 0.03 * noise).clamp(0, 1) * 255) / 255
    model, eps = SSIM(), 4 / 255  # a whole gray level, so that their rounded image is inside, too
    with torch.no_grad():
        clean = model(x, ref)
    other = clean - torch.linspace(0.01, 0.25, 12)
    result = RankFlip()(model, x, ref, goal="away", budget=Budget(eps_255=255 * eps, steps=30), target=other - 1e-4)
    ours, theirs = result.score_adv < other, released(model, x, ref, other, eps)
    assert 2 < theirs.sum() < 12, "the pairs are neither all easy nor all hard"
    assert bool((ours | ~theirs).all())


@pytest.mark.parametrize("params", [{"gap": 0}, {"margin": -1}, {"momentum": -1}, {"step_ratio": 0}, {"gap": "x"}])
def test_parameters_are_checked(params: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(params))):
        RankFlip(**params)  # type: ignore[arg-type]
