"""Defenses: `names()`, `get(name)`, `create(name, **params)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from iqa_robust.registry import Registry

if TYPE_CHECKING:
    from iqa_robust.defenses.base import Defense

registry: Registry[Defense] = Registry(
    "defense",
    base="iqa_robust.defenses.base:Defense",
    builtins={
        "bit-depth": "iqa_robust.defenses.quantization.bit_depth:BitDepth",
        "dncnn": "iqa_robust.defenses.learned.dncnn:DnCNN",
        "gaussian": "iqa_robust.defenses.filtering.gaussian:Gaussian",
        "jpeg": "iqa_robust.defenses.codec.jpeg:JPEG",
        "median": "iqa_robust.defenses.filtering.median:Median",
        "mid-band": "iqa_robust.defenses.filtering.mid_band:MidBand",
        "random-crop": "iqa_robust.defenses.geometry.random_crop:RandomCrop",
    },
)
names, get, create = registry.names, registry.get, registry.create
