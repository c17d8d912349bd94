"""Transfer: the ensemble's score, its direction, what the victim is asked, and what cannot be a surrogate."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks, models
from iqa_robust.attacks.blackbox.transfer import SCALES, Transfer, _Ensemble
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo, wrap
from iqa_robust.models.randomness import seeded
from iqa_robust.records import Budget


@pytest.fixture()
def compact() -> IQAModel:
    return models.create("compact").eval()


def turned(model: IQAModel) -> IQAModel:
    """The same opinion on a scale where lower is better."""
    return wrap(lambda x: 100 - model(x), ModelInfo(score_range=(0, 100), higher_is_better=False))


def test_a_victim_that_is_its_own_surrogate_is_moved_far(
    images: Callable[..., torch.Tensor], compact: IQAModel
) -> None:
    x, budget = images(2, 48), Budget(eps_255=4, steps=6)
    for goal in ("up", "down"):
        sign = 1 if goal == "up" else -1
        noise = attacks.create("noise")(compact, x, goal=goal, budget=budget)
        result = Transfer()(compact, x, goal=goal, budget=budget)
        moved = sign * (result.score_adv - result.score_clean)
        assert bool((moved > 2 * (noise.score_adv - noise.score_clean).abs()).all())
        assert result.queries.tolist() == [2, 2] and result.gradients.tolist() == [0, 0]


def test_the_direction_is_that_of_quality(images: Callable[..., torch.Tensor], compact: IQAModel) -> None:
    """A victim on a turned scale gets the same images."""
    x, budget = images(2, 48), Budget(eps_255=4, steps=3)
    for goal in ("up", "down"):
        straight = Transfer()(compact, x, goal=goal, budget=budget)
        other = Transfer()(turned(compact), x, goal=goal, budget=budget)
        assert torch.equal(straight.images, other.images)


def test_away_is_the_better_of_up_and_down(images: Callable[..., torch.Tensor], compact: IQAModel) -> None:
    x, budget = images(3, 48), Budget(eps_255=4, steps=3)
    shifts = {}
    for goal in ("up", "down", "away"):
        result = Transfer()(compact, x, goal=goal, budget=budget)
        shifts[goal] = (result.score_adv - result.score_clean).abs()
    assert torch.equal(shifts["away"], torch.maximum(shifts["up"], shifts["down"]))


def test_a_near_target_is_not_leapt_over(images: Callable[..., torch.Tensor], compact: IQAModel) -> None:
    """Of the lengths tried, the one closest to the target counts, at a few queries."""
    x, budget = images(2, 48), Budget(eps_255=8, steps=4)
    far = Transfer()(compact, x, goal="up", budget=budget)
    rise = (far.score_adv - far.score_clean).min().item()
    clean = compact(x).detach()
    near = Transfer()(compact, x, goal="target", budget=budget, target=clean + 0.2 * rise)
    assert bool(((near.score_adv - clean - 0.2 * rise).abs() < 0.2 * rise).all())
    assert near.queries.tolist() == [2 * len(SCALES)] * 2


def test_the_ensemble_is_the_mean_share_of_the_ranges(images: Callable[..., torch.Tensor]) -> None:
    bright = wrap(lambda x: 10 * x.flatten(1).mean(dim=1), ModelInfo(score_range=(0, 10)))
    dark = wrap(
        lambda x: 3 - 4 * x[:, 0].flatten(1).mean(dim=1), ModelInfo(score_range=(-1, 3), higher_is_better=False)
    )
    x = images(3)
    expected = (x.flatten(1).mean(dim=1) + x[:, 0].flatten(1).mean(dim=1)) / 2
    # float32 means
    torch.testing.assert_close(_Ensemble([bright, dark], 0.0)(x), expected, rtol=0, atol=1e-6)


def test_smoothing_averages_noisy_copies(images: Callable[..., torch.Tensor]) -> None:
    model = wrap(lambda x: x.flatten(1).mean(dim=1), ModelInfo(score_range=(0, 1)))
    plain, noisy = _Ensemble([model], 0.0), _Ensemble([model], 0.1)
    assert plain.info.deterministic and not noisy.info.deterministic
    x = images(2)
    with seeded([1, 2]):
        first = noisy(x)
    with seeded([1, 2]):
        assert torch.equal(noisy(x), first)
    assert not torch.equal(first, plain(x))
    # Noise of 0.1 in 768 values has a mean of about 0.004.
    torch.testing.assert_close(first, plain(x), rtol=0, atol=0.02)


def test_smoothing_changes_the_attack_and_stays_repeatable(
    images: Callable[..., torch.Tensor], compact: IQAModel
) -> None:
    x, budget = images(2, 40), Budget(eps_255=4, steps=2)
    attack = Transfer(smoothing=0.05, samples=2)
    first = attack(compact, x, goal="up", budget=budget)
    assert torch.equal(first.images, attack(compact, x, goal="up", budget=budget).images)
    alone = attack(compact, x[1:], goal="up", budget=budget)
    # Sums of another batch size: a slope near zero may change its sign.
    assert (alone.images[0] != first.images[1]).float().mean() < 0.02
    assert not torch.equal(first.images, Transfer()(compact, x, goal="up", budget=budget).images)


def test_images_smaller_than_the_surrogate_accepts(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    result = Transfer()(linear, images(2, 16), goal="away", budget=Budget(eps_255=4, steps=2))
    assert bool((result.score_adv != result.score_clean).all())


def test_weights_are_named_after_a_colon(images: Callable[..., torch.Tensor], compact: IQAModel) -> None:
    x, budget = images(1, 40), Budget(eps_255=4, steps=2)
    named = Transfer(surrogates=["compact:photos"])(compact, x, goal="up", budget=budget)
    assert torch.equal(named.images, Transfer()(compact, x, goal="up", budget=budget).images)


@pytest.mark.parametrize("surrogates", [[], "compact", [""], [3]])
def test_surrogates_are_a_list_of_names(surrogates: object) -> None:
    with pytest.raises(ContractError, match="expected surrogates to be a list of model names"):
        attacks.create("transfer", surrogates=surrogates)


def test_a_full_reference_model_is_no_surrogate(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    full = next(name for name in ("psnr", "ssim") if name in models.names())
    with pytest.raises(ContractError, match="needs references"):
        Transfer(surrogates=[full])(linear, images(1), goal="up", budget=Budget())
