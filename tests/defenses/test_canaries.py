"""Every canary does what it is there for: the evaluation catches it, and the image or score hardly says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from iqa_robust import datasets, defenses, models
from iqa_robust.errors import ContractError
from iqa_robust.harness.plan import Selection, make_plan
from iqa_robust.harness.run import run
from iqa_robust.harness.track import load_track
from iqa_robust.harness.tracks_folder import find_track
from iqa_robust.models.base import IQAModel
from iqa_robust.tables.canaries import canaries

NAMES = [name for name in defenses.names() if defenses.get(name).canary]


@pytest.fixture(scope="module")
def compact() -> IQAModel:
    return models.create("compact").eval()


@pytest.fixture(scope="module")
def photos() -> torch.Tensor:
    dataset = datasets.create("photos")
    return torch.stack([dataset.load(row).x[:, :64, :64] for row in dataset.rows()[:60:20]])


def test_there_are_enough_of_them() -> None:
    assert len(NAMES) >= 6


@pytest.mark.parametrize("name", ["canary-quantizer", "canary-rank", "canary-saturated"])
def test_the_gradient_is_silent(name: str, compact: IQAModel, photos: torch.Tensor) -> None:
    x = photos.clone().requires_grad_(True)
    slope = torch.autograd.grad(defenses.create(name).wrap(compact)(x).sum(), x)[0]
    assert (slope == 0).all()


def test_the_ripple_is_small_and_turns_the_gradient() -> None:
    x = torch.linspace(0.1, 0.9, 3 * 64 * 64).view(1, 3, 64, 64).requires_grad_(True)
    y = defenses.create("canary-shattered").purify(x)
    assert (y - x).abs().max() <= 2.001 / 255
    slope = torch.autograd.grad(y.sum(), x)[0]
    assert 0.3 < (slope < 0).float().mean() < 0.5  # arccos(1 / 3.8) / pi = .41 of a wave falls


def test_scores_move_or_depend_as_the_canary_says(compact: IQAModel, photos: torch.Tensor) -> None:
    with torch.no_grad():
        restless = defenses.create("canary-unrepeatable").wrap(compact)
        assert not torch.equal(restless(photos), restless(photos))
        batch = defenses.create("canary-batch").wrap(compact)
        assert not torch.allclose(batch(photos)[:1], batch(photos[:1]), atol=0.1)
        bare, collapsed = compact(photos), defenses.create("canary-collapsed").wrap(compact)(photos)
    torch.testing.assert_close(collapsed, 50 + 0.01 * (bare - 50), rtol=1e-5, atol=1e-3)


def test_a_score_canary_needs_a_range(compact: IQAModel) -> None:
    endless = models.wrap(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(1), torch.nn.Flatten(0)))
    with pytest.raises(ContractError, match="score range"):
        defenses.create("canary-rank").wrap(endless)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_shipped_track_catches_every_one(tmp_path: Path) -> None:
    plan = make_plan(load_track(find_track("canaries")), selection=Selection(limit=4))
    table = canaries(run(plan, tmp_path))
    assert list(table["canary"].sort_values()) == NAMES
    assert table["caught"].all(), table.to_string()
