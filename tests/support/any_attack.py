"""One call that every registered attack takes, whatever norm, goal or model it wants, for tests of what all keep."""

from __future__ import annotations

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.base import Attack, AttackResult
from iqa_robust.attacks.perceptual.learned import distance_for
from iqa_robust.attacks.set_attack import SetAttack
from iqa_robust.attacks.trained_attack import TrainedAttack
from iqa_robust.errors import CheckpointError
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget
from iqa_robust.testing.toy import OfReference

OWN = [name for name in attacks.names() if "/" not in name]
"""Everything that is not another library's."""
SIZES = {"linf": 4, "l2": 200, "psnr": 2, "ssim": 10, "l0": 10, "patch": 20}
"""`eps_255` of a budget that leaves room for an effect, per norm."""


def made(name: str) -> Attack:
    """An instance that is quick."""
    cls = attacks.get(name)
    if issubclass(cls, TrainedAttack):
        return attacks.create(name, fit_images=2, fit_epochs=1)
    skip_without_weights(name)
    return attacks.create(name)


def skip_without_weights(name: str) -> None:
    """Skip where the attack needs the weights of a learned similarity and they are not on this machine."""
    needed = {"zhang-lpips": "LPIPS", "zhang-dists": "DISTS"}.get(name)
    if needed is not None:
        try:
            distance_for(needed, torch.zeros(1, 3, 32, 32))
        except CheckpointError as error:
            pytest.skip(str(error))


def goal_of(attack: Attack) -> str:
    """`away` where it is served: the one goal that any model allows."""
    return "away" if "away" in attack.goals else attack.goals[0]


def hit(
    attack: Attack,
    model: IQAModel,
    x: torch.Tensor,
    *,
    norm: str | None = None,
    eps_255: float | None = None,
    steps: int = 3,
    queries: int = 20,
    seed: int = 0,
    plan: torch.Tensor | None = None,
) -> AttackResult:
    """The attack on `x`, with the goal of `goal_of` and its first norm unless one is given.

    An attack that learns is fitted first, on other images; `plan` (N,) are the targets of an attack on a set, by
    default 10 above the clean scores.
    """
    norm = norm or attack.norms[0]
    budget = Budget(norm=norm, eps_255=SIZES[norm] if eps_255 is None else eps_255, steps=steps, queries=queries)
    goal = goal_of(attack)
    ref = None
    if attack.perturbs == "reference":
        model, ref = OfReference(model), x
    if isinstance(attack, TrainedAttack):
        other = torch.rand(2, *x.shape[1:], generator=torch.Generator().manual_seed(7))
        attack.fit(model, list(other.to(x.device)), goal=goal, budget=budget, seed=seed)
    target = None
    if isinstance(attack, SetAttack):
        with torch.no_grad():
            target = model(x).float().nan_to_num() + 10 if plan is None else plan
    return attack(model, x, ref, goal=goal, budget=budget, seed=seed, target=target)
