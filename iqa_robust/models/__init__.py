"""IQA models: `names()`, `get(name)`, `create(name, **params)`, and `wrap` for anything with a forward."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from iqa_robust.registry import Registry

if TYPE_CHECKING:
    from iqa_robust.models.base import IQAModel, ModelInfo

registry: Registry[IQAModel] = Registry(
    "model",
    base="iqa_robust.models.base:IQAModel",
    builtins={
        "cnniqa": "iqa_robust.models.cnniqa:CNNIQA",
        "compact": "iqa_robust.models.compact:Compact",
        "psnr": "iqa_robust.models.full_reference:PSNR",
        "ssim": "iqa_robust.models.full_reference:SSIM",
        "trunk-regressor": "iqa_robust.models.trunk_regressor:TrunkRegressor",
    },
)
names, get, create = registry.names, registry.get, registry.create


def wrap(module: Any, info: ModelInfo | None = None) -> IQAModel:
    """A model of anything whose forward maps (N, 3, H, W) in [0, 1] to N scores; see `models.base.wrap`."""
    from iqa_robust.models import base

    return base.wrap(module, info)
