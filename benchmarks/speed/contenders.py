"""Who is timed, what each needs, and which attacks it has."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec

import torch
from task import ATTACKS, Attack, Task

from iqa_robust.models.base import IQAModel


@dataclass(frozen=True)
class Contender:
    """A way to run the attacks."""

    module: str
    """Where `function` makes the attack from a model, a task and the images."""
    function: str = "attack"
    attacks: tuple[str, ...] = tuple(ATTACKS)
    needs: str | None = None
    """Module of the library."""
    distribution: str = "iqa-robust"

    @property
    def version(self) -> str:
        """Distribution and version."""
        return f"{self.distribution} {version(self.distribution)}"

    @property
    def installed(self) -> bool:
        """Whether its library is there."""
        return self.needs is None or find_spec(self.needs) is not None

    def make(self, model: IQAModel, task: Task, x: torch.Tensor) -> Attack:
        """Its attack on images such as `x` (N, 3, H, W). Called once, before anything is timed."""
        made: Attack = getattr(import_module(self.module), self.function)(model, task, x)
        return made


OURS = "ours"
ALONE = "search alone"
FLOOR = "passes alone"
AS_STRONG = {f"{OURS}, as strong": OURS, f"{ALONE}, as strong": ALONE}
"""The same with no more steps or queries than it takes to reach what the strongest of the libraries reaches."""
CONTENDERS = {
    OURS: Contender("ours"),
    ALONE: Contender("ours", "search_alone"),
    "ours, unprepared": Contender("ours", "plain"),
    "torchattacks": Contender("with_torchattacks", needs="torchattacks", distribution="torchattacks"),
    "ART": Contender("with_art", needs="art", distribution="adversarial-robustness-toolbox"),
    "Foolbox": Contender("with_foolbox", attacks=("fgsm", "pgd"), needs="foolbox", distribution="foolbox"),
    FLOOR: Contender("ours", "passes"),
}


def those_for(attack: str) -> dict[str, Contender]:
    """Contenders that are installed and have the attack, ours first."""
    return {name: who for name, who in CONTENDERS.items() if who.installed and attack in who.attacks}
