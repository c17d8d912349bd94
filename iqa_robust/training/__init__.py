"""Training: `train(recipe)` turns a TOML recipe into a checkpoint with a model card."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from iqa_robust.training.progress import Progress


def train(
    recipe: str | Path,
    *,
    data_root: Path | None = None,
    out: Path | None = None,
    log: Path | None = None,
    progress: Callable[[Progress], Any] | None = None,
) -> Path:
    """Train what a recipe describes.

    The same command resumes an interrupted training, from `<out>.resume.pt`, to the same weights, and returns at once
    where `out` is finished. On a CPU with the same number of threads a recipe always gives the same weights.

    Args:
        recipe: a TOML file, or the name of a shipped recipe.
        data_root: folder of the datasets; None takes `IQA_ROBUST_DATA`.
        out: the checkpoint to write, a .safetensors file; None takes the recipe's name in the current folder. The
            model card goes beside it, as `.md`.
        log: a CSV file with a row of measures per epoch, replaced after every epoch; None writes none.
        progress: called with a `Progress` after every batch.

    Returns:
        The path of the checkpoint.

    Raises:
        RequestError: the recipe is wrong (all mistakes are listed), `out` is taken by another one, or
            `out` or `log` cannot be written.
        DataError: a dataset or a picture is missing or broken.
        CheckpointError: first weights or the state of an interrupted training cannot be used.
    """
    import os

    from iqa_robust.training.progress import silent
    from iqa_robust.training.run import run

    if data_root is None and os.environ.get("IQA_ROBUST_DATA"):
        data_root = Path(os.environ["IQA_ROBUST_DATA"])
    return run(recipe, data_root=data_root, out=out, log=log, listener=progress or silent)
