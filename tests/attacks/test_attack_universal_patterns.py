"""Universal patterns: closed forms on linear models, the hand-computed sum, and photographs never seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import iqa_robust as ir
from iqa_robust.attacks.noise import Noise
from iqa_robust.attacks.trained_attack import TrainedAttack
from iqa_robust.attacks.universal.generative import FACPA, GenerativeUAP
from iqa_robust.attacks.universal.pattern import scaled, tiled
from iqa_robust.attacks.universal.uap import UAP, CumulativeUAP
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.records import Budget

LINF = Budget(eps_255=4)


@pytest.mark.parametrize("make", [UAP, lambda: CumulativeUAP(rate=1e4)])
@pytest.mark.parametrize("goal,sign", [("up", 1), ("down", -1)])
def test_on_a_linear_model_the_pattern_is_the_sign_of_the_weights(
    images: Callable[..., torch.Tensor],
    weights: torch.Tensor,
    linear: IQAModel,
    make: Callable[[], TrainedAttack],
    goal: str,
    sign: int,
) -> None:
    """The best of all perturbations within eps, one image at a time or for all: reached in five steps and stored."""
    attack = make()
    attack.fit(linear, list(images(3)), goal=goal, budget=LINF)
    assert torch.equal(attack.state["pattern"][0], sign * weights.sign())
    x = images(2, low=64, high=192, seed=9)
    result = attack(linear, x, goal=goal, budget=LINF)
    assert torch.equal(result.images, torch.round(255 * (x + sign * 4 / 255 * weights.sign())) / 255)
    # The same pattern at another eps, as in the paper.
    stronger = attack(linear, x, goal=goal, budget=Budget(eps_255=8))
    shift = result.score_adv - result.score_clean
    torch.testing.assert_close(stronger.score_adv - stronger.score_clean, 2 * shift, rtol=1e-4, atol=0)  # float32 sums
    assert result.queries.sum() == result.gradients.sum() == 0


def test_a_pattern_smaller_than_the_images_has_the_sign_of_the_sum_over_its_places(
    images: Callable[..., torch.Tensor], weights: torch.Tensor, linear: IQAModel
) -> None:
    attack = UAP(size=5)
    attack.fit(linear, list(images(2, low=64, high=192)), goal="up", budget=LINF)
    total = torch.zeros(3, 5, 5)
    for row in range(16):
        for column in range(16):
            total[:, row % 5, column % 5] += weights[:, row, column]
    assert torch.equal(attack.state["pattern"][0], total.sign())
    repeated = tiled(attack.state["pattern"], 16, 16)[0]
    assert all(torch.equal(repeated[:, i, j], total[:, i % 5, j % 5].sign()) for i in (0, 4, 5, 15) for j in (0, 7, 15))


@pytest.mark.parametrize("score_range,scale", [((0.0, 100.0), 100.0), (None, None)])
def test_the_cumulative_pattern_is_the_sum_of_raw_gradients(
    images: Callable[..., torch.Tensor],
    weights: torch.Tensor,
    make_linear: Callable[..., IQAModel],
    score_range: tuple[float, float] | None,
    scale: float | None,
) -> None:
    """Every gradient of a linear model is its weights: 2 passes over 5 images in batches of 4 are 4 steps."""
    model, x = make_linear(weights, ModelInfo(score_range=score_range)), images(5)
    if scale is None:
        with torch.no_grad():
            scale = float(model(x).max() - model(x).min())
    attack = CumulativeUAP(fit_epochs=2, rate=0.2)
    attack.fit(model, list(x), goal="down", budget=Budget(eps_255=51))
    by_hand = torch.zeros_like(weights)
    for _ in range(4):
        by_hand = by_hand - 0.2 * weights / scale
    assert by_hand.abs().max() < 0.2, "nothing is clamped yet"
    torch.testing.assert_close(0.2 * attack.state["pattern"][0], by_hand, rtol=1e-5, atol=1e-8)
    clamped = CumulativeUAP(fit_epochs=2, rate=0.2)
    clamped.fit(model, list(x), goal="down", budget=Budget(eps_255=0.5))
    expected = torch.zeros_like(weights)
    for _ in range(4):
        expected = (expected - 0.2 * weights / scale).clamp(-0.5 / 255, 0.5 / 255)
    torch.testing.assert_close(0.5 / 255 * clamped.state["pattern"][0], expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("norm,eps_255", [("l2", 200), ("psnr", 4)])
def test_on_a_linear_model_the_best_direction_of_a_ball_is_the_weights(
    images: Callable[..., torch.Tensor], weights: torch.Tensor, linear: IQAModel, norm: str, eps_255: float
) -> None:
    x, budget = images(3, low=100, high=150), Budget(norm=norm, eps_255=eps_255)
    exact, learned = CumulativeUAP(), UAP(fit_epochs=60, step_ratio=0.1)
    for attack, least in ((exact, 1 - 1e-6), (learned, 0.95)):  # Adam circles around the direction it has found
        attack.fit(linear, list(x), goal="up", budget=budget)
        found = attack.state["pattern"].flatten()
        assert torch.cosine_similarity(found, weights.flatten(), dim=0) > least
    result = exact(linear, x, goal="up", budget=budget)
    length = eps_255 / 255 * (768**0.5 if norm == "psnr" else 1)
    # The whole length along the weights, up to rounding to gray levels.
    torch.testing.assert_close(
        result.score_adv - result.score_clean, length * weights.norm().expand(3), rtol=0.02, atol=0
    )


def test_a_pattern_is_scaled_to_every_budget(images: Callable[..., torch.Tensor]) -> None:
    from iqa_robust.attacks.norms import distance

    x = images(2, low=80, high=170)
    pattern = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    assert scaled(pattern, x, "linf", 0.02).abs().max() == pytest.approx(0.02)
    for norm, eps in (("l2", 0.5), ("psnr", 0.01), ("ssim", 0.05)):
        spent = distance(x + scaled(pattern, x, norm, eps), x, norm)
        # The search for the length at an SSIM stops after 12 halvings of 0.5.
        torch.testing.assert_close(spent, torch.full((2,), eps), rtol=0.02 if norm == "ssim" else 1e-4, atol=0)


def test_away_keeps_the_direction_that_moves_scores_further(
    images: Callable[..., torch.Tensor], linear: IQAModel, make_model: type[IQAModel], weights: torch.Tensor
) -> None:
    """A model with a ceiling just above the clean scores can only be moved down."""
    x = images(4, low=64, high=192)
    with torch.no_grad():
        ceiling = linear(x).max() + 0.1

    class Capped(IQAModel):
        info = ModelInfo(score_range=(0, 100))

        def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
            return torch.minimum(linear(x), ceiling)

    attack = UAP()
    attack.fit(Capped(), list(x), goal="away", budget=LINF)
    assert torch.equal(attack.state["pattern"][0], -weights.sign())
    flipped = make_model(lambda z: 100 - Capped()(z), ModelInfo(score_range=(0, 100)))  # type: ignore[call-arg]
    attack.fit(flipped, list(x), goal="away", budget=LINF)
    assert torch.equal(attack.state["pattern"][0], -weights.sign())


def test_up_and_down_follow_what_the_model_calls_better(
    images: Callable[..., torch.Tensor], weights: torch.Tensor, make_linear: Callable[..., IQAModel]
) -> None:
    model = make_linear(weights, ModelInfo(score_range=(0, 100), higher_is_better=False))
    attack = UAP()
    attack.fit(model, list(images(2)), goal="up", budget=LINF)
    assert torch.equal(attack.state["pattern"][0], -weights.sign())


def photos(split: str, n: int) -> torch.Tensor:
    dataset = ir.datasets.create("photos", split=split, limit=n, crop=64)
    return torch.stack([dataset.load(row).x for row in dataset.rows()])


@pytest.mark.parametrize(
    "attack",
    [
        UAP(size=64),
        CumulativeUAP(size=64),
        GenerativeUAP(size=64, ngf=8, depth=4, rate=1e-2),
        FACPA(ngf=8, depth=4, rate=1e-2),
    ],
    ids=lambda attack: type(attack).__name__,
)
def test_what_was_learned_moves_photographs_never_seen_further_than_noise(attack: TrainedAttack) -> None:
    model = ir.models.create("compact")
    train, test, budget = photos("train", 24), photos("test", 12), Budget(eps_255=8)
    attack.fit(model, list(train), goal="down", budget=budget)
    learned = attack(model, test, goal="down", budget=budget)
    noise = Noise()(model, test, goal="down", budget=budget)
    moved = (learned.score_clean - learned.score_adv).mean()
    # Noise counts with the sign that serves it, though it does not choose one.
    assert moved > 1.5 * (noise.score_clean - noise.score_adv).mean().abs()
    assert moved > 5
    assert learned.queries.sum() == learned.gradients.sum() == 0
