"""`iqa-robust train`: a recipe -> a checkpoint and its model card, with progress."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    recipe: Annotated[str, typer.Argument(help="A recipe file, or the name of a shipped recipe.")],
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the datasets [environment variable IQA_ROBUST_DATA].")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The checkpoint to write [<recipe>.safetensors].")] = None,
    log: Annotated[Path | None, typer.Option(help="A CSV file with the measures of every epoch.")] = None,
) -> None:
    """Train a network; the same command goes on where an interrupted one stopped."""
    from rich.console import Console

    from iqa_robust.cli.training_progress import TrainingProgress
    from iqa_robust.training import train

    with TrainingProgress(Console()) as progress:
        written = train(recipe, data_root=data_root, out=out, log=log, progress=progress)
    print(written)
