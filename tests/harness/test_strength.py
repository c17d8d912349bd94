"""Whether a rounded twin is as good to search on: what counts as a loss, what as chance, and twins that lose."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from iqa_robust import datasets, models
from iqa_robust.harness.strength import WEAKER, Share, Trial
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel
from iqa_robust.models.prepared.twin import prepare

SIDE = 48


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    photos = torch.stack([item.x for item in datasets.create("photos", limit=4, crop=192)])
    return to_8bit_grid(F.interpolate(photos, (SIDE, SIDE), mode="area"))


class Changed(IQAModel):
    """A model seen through something."""

    def __init__(self, model: IQAModel) -> None:
        super().__init__()
        self.model, self.info = model, model.info


class Noisy(Changed):
    """Scores off by up to `size`, as the images say."""

    def __init__(self, model: IQAModel, size: float) -> None:
        super().__init__(model)
        self.size = size

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return self.model(x) + self.size * torch.sin(1e5 * x.detach().double().mean(dim=(1, 2, 3))).float()


class Blind(Changed):
    """Has no slope in a part of each image, at the clean images alone."""

    def __init__(self, model: IQAModel, clean: torch.Tensor) -> None:
        super().__init__(model)
        self.clean = clean

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        if x.shape == self.clean.shape and torch.equal(x, self.clean):
            x = torch.cat([x[..., : SIDE // 2].detach(), x[..., SIDE // 2 :]], dim=3)
        return self.model(x)


def _draws(loss: float, n: int = 48, trials: int = 400) -> list[Share]:
    """Shares of searches of the same mean but for a loss, each off by some percent of its own."""
    generator = torch.Generator().manual_seed(0)
    size = 1 + torch.rand(trials, n, generator=generator)
    exact, rounded = (size * (1 + 0.04 * torch.randn(trials, n, generator=generator)) for _ in range(2))
    return [Share.of(*pair) for pair in zip(exact, (1 - loss) * rounded, strict=True)]


@pytest.mark.parametrize(("loss", "least", "most"), [(0.0, 0.98, 1.0), (0.05, 0.0, 0.02)])
def test_equal_searches_pass_and_weaker_ones_do_not(loss: float, least: float, most: float) -> None:
    shares = _draws(loss)
    assert least <= sum(share.suffices for share in shares) / len(shares) <= most
    # The stated error is that of the totals from draw to draw.
    spread = float(torch.tensor([share.total for share in shares]).std())
    assert sum(share.error for share in shares) / len(shares) == pytest.approx(spread, rel=0.1)


def test_a_share_counts_all_and_one_outlier_is_chance() -> None:
    exact, rounded = torch.full((8,), 2.0), torch.full((8,), 2.0)
    rounded[0] = 1.0
    share = Share.of(exact, rounded)
    assert share.total == pytest.approx(15 / 16)
    assert share.error == pytest.approx(1 / 16)  # by hand: the loss of one of n is its own standard error
    assert share.typical == 1
    assert share.suffices and not share.is_clear
    assert not Share.of(exact, exact * (1 - 1.5 * WEAKER)).suffices
    assert Share.of(exact, exact) == Share(1.0, 0.0, 1.0)


def test_no_movement_and_no_numbers_do_not_suffice() -> None:
    assert not Share(0.8, 0.2, 0.8).suffices  # two images that say little are no proof
    assert not Share.of(torch.zeros(3), torch.ones(3)).suffices
    assert not Share.of(torch.tensor([1.0, torch.nan]), torch.ones(2)).suffices


def test_float32_in_another_order_of_sums_is_as_strong_as_itself(x: torch.Tensor) -> None:
    model = models.create("compact").eval()
    trial = Trial(model, prepare(model, "fp32", x[:1]), model, x, None)
    for share in (trial.climb(), trial.step(), trial.search("linf")):
        assert share.suffices, str(share)


def test_a_loss_of_the_first_slope_is_seen_by_the_step(x: torch.Tensor) -> None:
    model = models.create("compact").eval()
    trial = Trial(model, model, Blind(model, x), x, None)
    assert not trial.step().suffices
    assert trial.climb().total > trial.step().total + 0.1  # later steps make up for it


def test_noise_of_the_scores_is_seen_by_the_search(x: torch.Tensor) -> None:
    model = models.create("compact").eval()
    assert not Trial(model, model, Noisy(model, 1.0), x, None).search("linf").suffices


def test_changes_in_bfloat16_serve_a_search(x: torch.Tensor) -> None:
    model = models.create("compact").eval()
    exact, mixed = (prepare(model, name, x[:1]) for name in ("fp32", "mixed"))
    share = Trial(model, exact, mixed, x, None).search("linf")
    assert share.suffices and share.total == pytest.approx(1, abs=0.05)
