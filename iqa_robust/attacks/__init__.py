"""Attacks: `names()`, `get(name)`, `create(name, **params)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_robust.registry import Registry

if TYPE_CHECKING:
    from iqa_robust.attacks.base import Attack

registry: Registry[Attack] = Registry(
    "attack",
    base="iqa_robust.attacks.base:Attack",
    builtins={
        "art/fgm": "iqa_robust.attacks.adapters.art:FastGradientMethod",
        "fgsm": "iqa_robust.attacks.gradient.fgsm:FGSM",
        "noise": "iqa_robust.attacks.noise:Noise",
        "pgd": "iqa_robust.attacks.gradient.pgd:PGD",
        "score-reflection": "iqa_robust.attacks.gradient.score_reflection:ScoreReflection",
        "square": "iqa_robust.attacks.blackbox.square:Square",
        "torchattacks/gradient/pgd": "iqa_robust.attacks.adapters.torchattacks:TorchattacksPGD",
    },
)
names, get, create = registry.names, registry.get, registry.create
