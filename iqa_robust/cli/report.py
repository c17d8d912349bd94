"""`iqa-robust report`: the page a person looks at, from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run.")],
    html: Annotated[Path | None, typer.Option(help="The file to write [DIR/report.html].")] = None,
) -> None:
    """Write one self-contained HTML page from the records of DIR."""
    from iqa_robust.records import read_records
    from iqa_robust.tables.board import board
    from iqa_robust.tables.report import write_report

    records = read_records(folder)
    target = html or folder / "report.html"
    write_report(records, board(records), target)
    print(target)
