"""The compact model: size, cost, invariances, and how well the published weights rank held-out photos."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr
from torch.utils.flop_counter import FlopCounterMode

from iqa_robust import attacks, datasets, models
from iqa_robust.errors import ContractError
from iqa_robust.models.base import check_inputs
from iqa_robust.models.compact import PUBLISHED, ROBUST, WEIGHTS
from iqa_robust.records import Budget

REACHED = 0.80
"""SROCC that the published weights must have on the whole test split, to two decimals."""


@pytest.fixture(scope="module")
def compact():
    return models.create("compact")


def test_it_is_small_and_cheap(compact) -> None:
    assert sum(parameter.numel() for parameter in compact.parameters()) < 1_500_000
    assert (WEIGHTS / PUBLISHED["photos"]).stat().st_size <= 3 * 2**20
    with FlopCounterMode(display=False) as counter:
        compact(torch.zeros(1, 3, 192, 192))
    assert counter.get_total_flops() <= 0.30e9  # multiplications and additions, each counted


def test_info_is_that_of_the_card(compact) -> None:
    info = compact.info
    card = (WEIGHTS / "compact-photos.md").read_text()
    assert info.weights_sha256 in card
    assert info.weights_license in card
    assert info.score_range == (0.0, 100.0)
    assert info.higher_is_better
    assert not info.full_reference
    assert "photos:train" in info.training_datasets
    assert "photos:test" not in info.training_datasets


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (192, 192), (250, 101)])
def test_any_size_is_scored_with_a_gradient(compact, height: int, width: int) -> None:
    x = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = compact(x)
    assert scores.shape == (2,)
    assert bool(((scores > 0) & (scores < 100)).all())
    scores.sum().backward()
    assert x.grad is not None
    assert bool((x.grad.flatten(1).abs().amax(1) > 0).all())


def test_too_small_images_are_refused(compact) -> None:
    with pytest.raises(ContractError, match="at least 32"):
        check_inputs(compact, torch.zeros(1, 3, 31, 40), None)


def test_batches_do_not_matter(compact) -> None:
    x = torch.rand(7, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    alone = torch.cat([compact(image[None]) for image in x])
    # float32 sums in another order: a few units in the last place of numbers up to 100
    torch.testing.assert_close(compact(x), alone, rtol=0, atol=1e-3)


def test_scores_fall_with_noise(compact) -> None:
    # one distortion of every crop: the mean over the pictures, because a single one may be an exception
    rows = {row.reference_id: row for row in datasets.create("photos", split="test").rows()}
    clean = torch.stack([datasets.create("photos", split="test").load(row).ref for row in rows.values()])
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    scores = [compact((clean + sigma / 255 * noise).clamp(0, 1)).mean().item() for sigma in (0, 15, 30, 60)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] - scores[-1] > 20


def test_published_weights_rank_held_out_photos(compact) -> None:
    items = list(datasets.create("photos", split="test"))
    batches = [torch.stack([item.x for item in items[i : i + 60]]) for i in range(0, len(items), 60)]
    with torch.no_grad():
        predicted = torch.cat([compact(batch) for batch in batches])
    assert round(spearmanr(predicted, [item.mos for item in items]).statistic, 2) >= REACHED


@pytest.mark.parametrize("name", ROBUST)
def test_robust_weights_have_a_card_and_are_small(name: str) -> None:
    path = WEIGHTS / PUBLISHED[name]
    assert path.stat().st_size <= 3 * 2**20
    card = path.with_suffix(".md").read_text()
    assert models.create("compact", weights=name).info.weights_sha256 in card
    assert f"| recipe | `compact-{name}-photos`" in card


def test_all_published_weights_are_small_together() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.glob("*.safetensors")) <= 20 * 2**20


def test_weights_trained_on_attacked_images_move_less_than_clean_ones() -> None:
    items = list(datasets.create("photos", split="test", limit=8))
    x = torch.stack([item.x for item in items])
    budget = Budget(eps_255=2, steps=5)

    def moved(weights: str) -> float:
        """Mean shift in deviations of the model's own clean scores."""
        model = models.create("compact", weights=weights)
        result = attacks.create("score-reflection")(model, x, goal="reflect", budget=budget)
        return float((result.score_adv - result.score_clean).abs().mean() / result.score_clean.std())

    clean = moved("photos")
    attacked = [name for name in ROBUST if name != "nt"]  # which only saw slopes at clean images, and falls
    assert {name: moved(name) < clean for name in attacked} == dict.fromkeys(attacked, True)
