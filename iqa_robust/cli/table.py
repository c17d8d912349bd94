"""`iqa-robust table`: the board and the per-image scores, from records."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The --out folder of a run.")],
    csv: Annotated[Path | None, typer.Option(help="Write the board to this file.")] = None,
    per_image: Annotated[Path | None, typer.Option(help="Write the per-image scores to this file.")] = None,
    verdicts: Annotated[
        Path | None, typer.Option(help="Write what the strongest attack leaves of each system to this file.")
    ] = None,
) -> None:
    """Rebuild the board from the records of DIR; print it, or write it."""
    from iqa_robust.records import read_records
    from iqa_robust.tables.board import board
    from iqa_robust.tables.per_image import write_per_image
    from iqa_robust.tables.verdicts import verdicts as make_verdicts
    from iqa_robust.tables.write import write_board

    records = read_records(folder)
    if per_image is not None:
        write_per_image(records, per_image)
    if verdicts is not None:
        write_board(make_verdicts(records), verdicts)
    if csv is None and (per_image is not None or verdicts is not None):
        return
    table = board(records)
    if csv is not None:
        write_board(table, csv)
        return
    from iqa_robust.cli.terminal import make_console, print_board

    print_board(table, make_console())
