"""iqa_robust: the adversarial-robustness benchmark for image-quality-assessment (IQA) models.

The rooms `models`, `attacks`, `defenses`, `datasets` each offer `names()`, `get(name)`, `create(name, **params)`.
Importing this package imports neither torch nor any model.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from iqa_robust import attacks, datasets, defenses, models
from iqa_robust.records import Budget

if TYPE_CHECKING:
    from iqa_robust.harness.evaluate import evaluate

__all__ = ["Budget", "__version__", "attacks", "datasets", "defenses", "evaluate", "models", "testing"]
__version__ = version("iqa-robust")


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return import_module("iqa_robust.harness.evaluate").evaluate
    if name == "testing":
        return import_module("iqa_robust.testing")
    raise AttributeError(f"module 'iqa_robust' has no attribute {name!r}")
