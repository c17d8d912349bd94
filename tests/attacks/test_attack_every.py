"""What every registered attack keeps: budgets, seeds, batches, and models that answer oddly."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import hypothesis.strategies as st
import pytest
import torch
from any_attack import OWN, hit, made
from hypothesis import given, settings

from iqa_robust import attacks
from iqa_robust.errors import ContractError
from iqa_robust.images import on_8bit_grid, to_8bit_grid
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.records import Budget


@given(
    seed=st.integers(0, 1000),
    norm_and_eps=st.one_of(
        st.tuples(st.just("linf"), st.one_of(st.integers(0, 32), st.floats(0, 32))),
        st.tuples(st.just("l2"), st.one_of(st.integers(0, 2000), st.floats(0, 2000))),
    ),
    name=st.sampled_from(["noise", "fgsm", "pgd", "square"]),
    goal=st.sampled_from(["up", "down", "away", "reflect"]),
    on_grid=st.booleans(),
)
@settings(max_examples=120, deadline=None)
def test_no_attack_exceeds_its_budget(
    seed: int, norm_and_eps: tuple[str, float], name: str, goal: str, on_grid: bool
) -> None:
    norm, eps_255 = norm_and_eps
    attack = attacks.create(name)
    if norm not in attack.norms:
        return
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(2, 3, 6, 6, generator=generator)
    x = to_8bit_grid(x) if on_grid else x
    w = torch.randn(3, 6, 6, generator=generator)

    class Bent(IQAModel):
        info = ModelInfo(score_range=(-1, 1))

        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            return torch.sin(3 * (x * w).flatten(1).sum(dim=1))

    try:
        result = attack(Bent(), x, goal=goal, budget=Budget(norm=norm, eps_255=eps_255, steps=3, queries=6))
    except ContractError as error:
        assert not on_grid and "reaches no point of the 8-bit grid" in str(error)
        return
    assert bool(on_8bit_grid(result.images).all())
    difference = (result.images - x).flatten(1).double()
    linf, l2 = difference.abs().amax(dim=1), difference.norm(dim=1)
    # The stated slack for float32 rounding, relative to eps where that exceeds 1.
    assert (linf if norm == "linf" else l2).max() <= eps_255 / 255 + 1e-6 * max(1, eps_255 / 255)
    # The float32 pixels k/255 are off by up to 3e-8 each; the result is exact.
    torch.testing.assert_close(result.linf.double(), linf, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(result.l2.double(), l2, rtol=1e-6, atol=1e-6)
    assert result.queries.max() <= 6


@pytest.mark.parametrize("name", OWN)
def test_without_a_budget_nothing_changes(images: Callable[..., torch.Tensor], linear: IQAModel, name: str) -> None:
    attack = made(name)
    x = images(2)
    for norm in set(attack.norms) - {"ssim"}:  # the windows of SSIM weigh a corner pixel next to nothing
        result = hit(attack, linear, x, norm=norm, eps_255=0)
        assert torch.equal(result.images, x)
        assert torch.equal(result.score_adv, result.score_clean)


@pytest.mark.parametrize("name", OWN)
def test_the_same_seed_gives_the_same_bytes(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str
) -> None:
    x, attack = images(), made(name)
    torch.manual_seed(1)
    first = hit(attack, convolutional, x, seed=5)
    torch.manual_seed(2)
    second = hit(attack, convolutional, x, seed=5)
    assert torch.equal(first.images, second.images)


@pytest.mark.parametrize(
    "name,params",
    [("noise", {}), ("pgd", {"random_start": True}), ("square", {}), ("torchattacks/pgd", {})],
)
def test_another_seed_gives_another_image(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str, params: dict[str, bool]
) -> None:
    x, attack = images(), attacks.create(name, **params)
    # one step of a fifth of eps from a random start: the start stays visible
    budget = Budget(steps=1 if name != "square" else 10, queries=20, eps_255=9)
    if name == "pgd":
        attack = attacks.create("pgd", random_start=True, step_ratio=0.2)
    results = [attack(convolutional, x, goal="up", budget=budget, seed=seed).images for seed in (1, 2, 3)]
    for one, other in itertools.combinations(results, 2):
        assert not torch.equal(one, other)


@pytest.mark.parametrize("name", OWN)
def test_a_batch_gives_what_single_images_give(
    images: Callable[..., torch.Tensor], linear: IQAModel, name: str
) -> None:
    """Exactly: the scores of a linear model are summed image by image, whatever the batch."""
    x, attack = images(3), made(name)
    for norm in attack.norms:
        plan = torch.tensor([60.0, 20.0, 40.0])
        whole = hit(attack, linear, x, norm=norm, seed=3, plan=plan)
        for i in range(len(x)):
            single = hit(attack, linear, x[i : i + 1], norm=norm, seed=3, plan=plan[i : i + 1])
            assert torch.equal(single.images[0], whole.images[i])
            assert torch.equal(single.score_adv[0], whole.score_adv[i])
            assert single.queries[0] == whole.queries[i]
        swapped = hit(attack, linear, x.flip(0), norm=norm, seed=3, plan=plan.flip(0))
        assert torch.equal(swapped.images.flip(0), whole.images)


@pytest.mark.parametrize("name", ["pgd", "square", "torchattacks/pgd", "art/fgm"])
def test_a_batch_of_a_network_gives_nearly_what_single_images_give(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, name: str
) -> None:
    """Convolutions of another batch size sum in another order, so a slope near zero may change its sign.

    Few pixels may differ then; the scores reached differ by less than a hundredth of the shift.
    """
    x, attack = images(6), attacks.create(name)
    budget = Budget(eps_255=8, steps=4, queries=30)
    whole = attack(convolutional, x, goal="up", budget=budget)
    single = [attack(convolutional, x[i : i + 1], goal="up", budget=budget) for i in range(6)]
    together = torch.cat([one.images for one in single])
    assert (together != whole.images).float().mean() < 0.01
    scores = torch.cat([one.score_adv for one in single])
    shift = (whole.score_adv - whole.score_clean).abs().mean().item()
    torch.testing.assert_close(scores, whole.score_adv, rtol=0, atol=0.01 * shift)


@pytest.mark.parametrize("name", [name for name in OWN if attacks.get(name).access == "white"])
def test_a_model_without_a_slope_is_reported_and_breaks_nothing(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel], name: str
) -> None:
    attack = made(name)
    detached = make_model(lambda x: linear(x).detach(), ModelInfo(score_range=(0, 100)))
    result = hit(attack, detached, images())
    honest = hit(attack, linear, images())
    assert torch.equal(result.zero_gradient, result.gradients > 0)
    assert bool((result.gradients > 0).all()) == bool((honest.gradients > 0).all())
    assert not honest.zero_gradient.any()


@pytest.mark.parametrize("name", OWN)
def test_a_model_that_answers_nan_breaks_nothing(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel], name: str
) -> None:
    """The first image, and all near it, score NaN; the others are attacked as if it were not there."""
    x, attack = images(3), made(name)

    def sick(z: torch.Tensor) -> torch.Tensor:
        near = (z - x[:1]).flatten(1).abs().median(dim=1).values < 0.1
        return torch.where(near, torch.nan, linear(z))

    plan = torch.tensor([60.0, 20.0, 40.0])
    result = hit(attack, make_model(sick, ModelInfo(score_range=(0, 100))), x, plan=plan)
    healthy = hit(attack, linear, x, plan=plan)
    assert bool(result.score_adv[0].isnan()) and bool(result.score_clean[0].isnan())
    assert torch.equal(result.images[1:], healthy.images[1:])
    assert torch.equal(result.score_adv[1:], healthy.score_adv[1:])
    assert not torch.equal(result.images[1:], x[1:])
