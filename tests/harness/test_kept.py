"""What jobs on one model share: counted in passes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from brightness import Brightness

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.known import Known
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.set_attack import SetAttack, SetScores
from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.harness.execute import Job, run_job
from iqa_robust.harness.kept import KEPT_SLOPES, Kept
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget, Component, RunRecord, RunSpec

PHOTOS = ir.datasets.create("photos", limit=5, crop=48)
DEFENSES = 12


class Counting(Brightness):
    """Counts the images it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.images = 0

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        self.images += len(x)
        return super().forward(x, ref)


class Dim(DifferentiablePurifier):
    """Takes away some of the light."""

    def __init__(self, *, share: float) -> None:
        self.share = share

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.share


class Brighten(Attack):
    """Adds eps without asking."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x + budget.eps


class Toward(SetAttack):
    """Sends all images to one score."""

    def __init__(self, *, aim: float) -> None:
        self.aimed = aim

    def plan(self, scores: SetScores, seed: int) -> torch.Tensor:
        return torch.full_like(scores.clean, self.aimed)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return x + budget.eps


def spec(attack: str, defense: Component | None) -> RunSpec:
    return RunSpec(
        track="t-v1",
        dataset=Component(name="photos", params={"limit": 5}),
        manifest="m",
        model=Component(name="counting"),
        weights_sha256=None,
        score_range=(0.0, 1.0),
        defense=defense,
        attack=Component(name=attack),
        goal="away",
        target=None,
        budget=Budget(eps_255=4),
        knowledge="adaptive" if defense is None else "oblivious",
        seed=0,
        package_version="0",
    )


def run(model: Counting, kept: Kept, name: str, attack: Attack, defenses: int = 0) -> tuple[list[RunRecord], int]:
    """The records of a bare cell and the oblivious cells of some defenses, and the images the model was shown."""
    shares = [i / DEFENSES for i in range(1, defenses + 1)]
    components: list[Any] = [None, *(Component(name="dim", params={"share": share}) for share in shares)]
    before = model.images
    job = Job(
        specs=tuple(spec(name, component) for component in components),
        dataset=PHOTOS,
        model=model,
        defenses=(None, *(Dim(share=share) for share in shares)),
        attack=attack,
        device=torch.device("cpu"),
        kept=kept,
        batch_size=2,
    )
    records = run_job(job)
    assert {record.status for record in records} == {"ok"}
    return records, model.images - before


def test_clean_images_are_scored_once_however_many_defenses_there_are() -> None:
    model, kept = Counting(), Kept()
    runs = [run(model, kept, name, Brighten(), DEFENSES) for name in ("first", "second", "third")]
    # What is left are the attacked images: by the bare model, and behind each defense.
    assert [shown for _, shown in runs[1:]] == [5 * (1 + DEFENSES)] * 2
    assert runs[0][1] >= 2 * 5 * (1 + DEFENSES)
    for records in zip(*(records for records, _ in runs), strict=True):
        assert all(records[0].images.equals(other.images) for other in records[1:])


def test_plans_for_a_set_share_the_scores_of_the_set() -> None:
    model, kept = Counting(), Kept()
    _, first = run(model, kept, "up", Toward(aim=1.0))
    (record,), second = run(model, kept, "down", Toward(aim=0.0))
    assert second == 5 < first  # the attacked images
    alone, _ = run(Counting(), Kept(), "down", Toward(aim=0.0))
    assert record.images.equals(alone[0].images)


@pytest.mark.parametrize("bare", [True, False])
def test_slopes_are_kept_of_a_few_systems(bare: bool) -> None:
    kept = Kept()
    names: list[Component | None] = [Component(name=f"d{i}") for i in range(DEFENSES)]
    names = [None, *names] if bare else names
    for name in names:
        known = kept.known(name)
        known.scores([1], lambda: torch.tensor([0.5]))
        known.keep_slopes([1], torch.ones(1, 3, 4, 4))
    for name in names:
        kept.known(name).scores([1], pytest.fail)
    sloped = [name for name in names if kept.known(name).has_slopes]
    assert len(sloped) == KEPT_SLOPES and sloped[-1] == names[-1]
    assert (None in sloped) is bare


def test_slopes_that_are_dropped_leave_their_room() -> None:
    known = Known(room=2 * 3 * 16 * 4)
    known.keep_slopes([1, 2, 3], torch.ones(3, 3, 4, 4))
    assert known.slopes([1, 2]) is not None and known.slopes([3]) is None
    known.drop_slopes()
    known.keep_slopes([3, 4], torch.ones(2, 3, 4, 4))
    assert known.slopes([3, 4]) is not None and known.slopes([1]) is None
