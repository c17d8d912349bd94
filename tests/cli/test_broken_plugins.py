"""Plugins that fail while a track is planned: one sentence that says whose they are, and exit status 2."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from iqa_robust import defenses, models
from iqa_robust.defenses.base import Defense
from iqa_robust.models.base import IQAModel, ModelInfo


class WrapsNothing(Defense):
    """A plugin whose author forgot the return."""

    def wrap(self, model: IQAModel) -> IQAModel:
        return None  # type: ignore[return-value]


class FailsToWrap(Defense):
    """A plugin that is broken."""

    def wrap(self, model: IQAModel) -> IQAModel:
        raise RuntimeError("wrap boom")


@pytest.mark.parametrize(
    ("cls", "cause"),
    [
        (WrapsNothing, "expected wrap to return an IQAModel, got NoneType."),
        (FailsToWrap, "wrap failed: RuntimeError: wrap boom."),
    ],
)
def test_a_defense_that_cannot_wrap(
    cli, track: Path, monkeypatch: pytest.MonkeyPatch, cls: type[Defense], cause: str
) -> None:
    monkeypatch.setitem(defenses.registry._added, "broken", cls)
    outcome = cli("run", track, "--defenses", "broken", "--out", track.parent / "out")
    assert outcome.status == 2
    assert outcome.err == f"iqa-robust: ssim behind broken: defense 'broken' from (this session): {cause}\n"


class EndlessScores(IQAModel):
    """A plugin whose scores are said to have no end."""

    def __init__(self) -> None:
        super().__init__()
        self.info = ModelInfo(score_range=(0.0, math.inf))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return x.mean(dim=(1, 2, 3))


def test_a_model_whose_scores_have_no_end(cli, track: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(models.registry._added, "endless", EndlessScores)
    outcome = cli("run", track, "--models", "endless", "--out", track.parent / "out")
    assert outcome.status == 2
    assert "endless declares scores from 0.0 to inf; give the model entry a finite `score_range" in outcome.err
