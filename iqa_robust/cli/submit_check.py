"""`iqa-robust submit-check`: what a leaderboard submission must satisfy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from iqa_robust.errors import RequestError


def command(
    submitted: Annotated[str, typer.Argument(metavar="DIR|FILE", help="A run's folder, or a board CSV.")],
) -> None:
    """Check a submission and list every problem."""
    from iqa_robust.tables.canaries import check_canaries
    from iqa_robust.tables.submission import check_submission

    if not submitted:
        raise RequestError("DIR|FILE: expected a path, got an empty text.")
    path = Path(submitted)
    if not path.exists():
        raise RequestError(f"{path}: no such folder or file; give the --out folder of a run, or a board CSV.")
    problems = check_submission(path)
    if path.is_dir() and not problems:
        problems = check_canaries(path)
    for problem in problems:
        print(problem)
    if problems:
        print(f"{len(problems)} problem(s): not ready to submit")
        raise typer.Exit(1)
    print("ready to submit" if path.is_dir() else "the format is right; what is submitted is the folder of records")
