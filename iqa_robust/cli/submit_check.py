"""`iqa-robust submit-check`: what a leaderboard submission must satisfy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    path: Annotated[Path, typer.Argument(metavar="DIR|FILE", help="A run's folder, or a board CSV.")],
) -> None:
    """Check a submission and list every problem."""
    from iqa_robust.tables.submission import check_submission

    problems = check_submission(path)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem(s): not ready to submit")
        raise typer.Exit(1)
    print("ready to submit")
