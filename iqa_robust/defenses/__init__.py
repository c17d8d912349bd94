"""Defenses: `names()`, `get(name)`, `create(name, **params)`."""

from __future__ import annotations

from iqa_robust.defenses.naming import DefenseRegistry

registry = DefenseRegistry(
    "defense",
    base="iqa_robust.defenses.base:Defense",
    builtins={
        "bit-depth": "iqa_robust.defenses.quantization.bit_depth:BitDepth",
        "denoised-median-smoothing": "iqa_robust.defenses.certified.median_smoothing:DenoisedMedianSmoothing",
        "dncnn": "iqa_robust.defenses.learned.dncnn:DnCNN",
        "gaussian": "iqa_robust.defenses.filtering.gaussian:Gaussian",
        "jpeg": "iqa_robust.defenses.codec.jpeg:JPEG",
        "median": "iqa_robust.defenses.filtering.median:Median",
        "median-smoothing": "iqa_robust.defenses.certified.median_smoothing:MedianSmoothing",
        "mid-band": "iqa_robust.defenses.filtering.mid_band:MidBand",
        "random-crop": "iqa_robust.defenses.geometry.random_crop:RandomCrop",
        "randomized-smoothing": "iqa_robust.defenses.certified.randomized_smoothing:RandomizedSmoothing",
    },
)
names, get, create = registry.names, registry.get, registry.create
