"""The script that looks at what gates hold to be causal, `causal_channels.py` of the comparison."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from scripts import scripts_of

from iqa_robust import datasets, models

SCRIPTS = Path(__file__).resolve().parents[2] / "benchmarks" / "robust_training"


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    with scripts_of(SCRIPTS) as found:
        yield found


@pytest.fixture(scope="module")
def judged(scripts: Any) -> Any:
    items = list(datasets.create("photos", split="test", limit=5))
    model = models.create("compact", weights="cprl-style").eval()
    return scripts.causal_channels.Judged(
        model, torch.stack([item.x for item in items]), [item.mos for item in items], 1.0
    )


@pytest.mark.parametrize("count", [0, 128])
def test_silenced_channels_are_held_at_their_means(scripts: Any, judged: Any, count: int) -> None:
    gate = judged.model.explain(judged.images)[-1].layer
    (part,) = (part for name, part in judged.model.named_modules() if name.endswith(gate))

    def hold(_: Any, given: Any, made: torch.Tensor) -> torch.Tensor:
        # all images in one batch: its mean is the one that the script adds up image by image
        return torch.cat(
            [made[:, :count].mean(dim=(0, 2, 3), keepdim=True).expand_as(made[:, :count]), made[:, count:]], 1
        )

    with torch.no_grad():
        whole = judged.model(judged.images)
        with part.register_forward_hook(hold):
            held = judged.model(judged.images)
    assert torch.equal(held, whole) == (count == 0)
    (left,) = scripts.causal_channels.silenced(judged, gate, [torch.arange(count)])
    assert left == pytest.approx(spearmanr(held, judged.mos).statistic)
    assert judged.srocc() == pytest.approx(spearmanr(whole, judged.mos).statistic)


def test_movement_of_ranks_and_importance(scripts: Any) -> None:
    before = SimpleNamespace(
        importance=torch.tensor([[4.0, 3, 2, 1]]), ranks=torch.tensor([[1, 2, 3, 4]]), causal_map=torch.eye(2)[None]
    )
    after = SimpleNamespace(
        importance=torch.tensor([[1.0, 2, 3, 4]]), ranks=torch.tensor([[4, 3, 2, 1]]), causal_map=1 - torch.eye(2)[None]
    )
    assert scripts.causal_channels.movement(before, before) == pytest.approx((1.0, 0.0, 1.0))
    # ranks move by 3, 1, 1 and 3 of four channels
    assert scripts.causal_channels.movement(before, after) == pytest.approx((-1.0, 0.5, -1.0))
