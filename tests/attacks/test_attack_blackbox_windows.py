"""What random searches tell a model of their proposals: where these differ from the best so far."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.models.base import IQAModel
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.changes.windows import cut, paste
from iqa_robust.records import Budget


class Listener(IQAModel):
    """Scores by another model; keeps what every call was told, and what was settled after it."""

    def __init__(self, inner: IQAModel) -> None:
        super().__init__()
        self.inner, self.info = inner, inner.info
        self.kept: torch.Tensor | None = None
        self.calls = self.announced = 0

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        return self.inner(x)

    def score_changed(self, x: torch.Tensor, ref: torch.Tensor | None, memory: Memory) -> torch.Tensor:
        self.calls += 1
        if self.kept is None:
            self.kept = x.clone()
        elif memory.windows is not None:
            self.announced += 1
            elsewhere = self.kept.clone()
            paste(elsewhere, memory.windows, cut(x, memory.windows))
            assert torch.equal(elsewhere, x)
        before, trial = self.kept, x.clone()

        def keep(won: torch.Tensor) -> None:
            self.kept = torch.where(won.view(-1, 1, 1, 1), trial, before)

        memory.settle = keep  # type: ignore[method-assign]
        return self.inner(x)


@pytest.mark.parametrize(
    ("name", "budget"),
    [
        ("square", Budget(eps_255=4, queries=120)),
        ("ran-bidirectional", Budget(eps_255=4, queries=120)),
        ("patch-rs", Budget.at("patch", 0.1, queries=120)),
    ],
)
def test_images_equal_the_best_so_far_outside_the_windows(
    name: str, budget: Budget, images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    listener = Listener(linear)
    attacks.create(name)(listener, images(3), goal="up", budget=budget)
    assert listener.announced == listener.calls - 1


def test_a_search_that_announces_nothing_is_scored_as_ever(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    listener = Listener(linear)
    attacks.create("square")(listener, images(3), goal="up", budget=Budget.at("l2", 2.0, queries=20))
    assert (listener.calls, listener.announced) == (1, 0)
