"""`iqa-robust table`: the board and the per-image scores, from records."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The --out folder of a run, or its URL.")],
    csv: Annotated[str | None, typer.Option(help="Write the board to this file.")] = None,
    per_image: Annotated[str | None, typer.Option(help="Write the per-image scores to this file.")] = None,
    verdicts: Annotated[
        str | None, typer.Option(help="Write what the strongest attack leaves of each system to this file.")
    ] = None,
) -> None:
    """Rebuild the board from the records of DIR; print it, or write it."""
    from iqa_robust.records import place
    from iqa_robust.tables.from_folder import board_of, verdicts_of, write_per_image_of
    from iqa_robust.tables.write import write_board

    source = place(folder)
    if per_image is not None:
        write_per_image_of(source, place(per_image))
    if verdicts is not None:
        write_board(verdicts_of(source), place(verdicts))
    if csv is None and (per_image is not None or verdicts is not None):
        return
    table = board_of(source)
    if csv is not None:
        write_board(table, place(csv))
        return
    from iqa_robust.cli.terminal import make_console, print_board

    print_board(table, make_console())
