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
    from iqa_robust.errors import RequestError
    from iqa_robust.records import place, target_file
    from iqa_robust.tables.from_folder import board_of, verdicts_of, write_per_image_of
    from iqa_robust.tables.write import write_board

    source = place(folder, "DIR")
    board_file = None if csv is None else target_file(csv, "--csv")
    images_file = None if per_image is None else target_file(per_image, "--per-image")
    verdicts_file = None if verdicts is None else target_file(verdicts, "--verdicts")
    asked = [file for file in (board_file, images_file, verdicts_file) if file is not None]
    if len(set(asked)) < len(asked):
        raise RequestError("--csv, --per-image and --verdicts: expected a file for each, got the same one twice.")
    if images_file is not None:
        write_per_image_of(source, images_file)
    if verdicts_file is not None:
        write_board(verdicts_of(source), verdicts_file)
    if board_file is not None:
        write_board(board_of(source), board_file)
    if asked:
        return
    from iqa_robust.cli.terminal import make_console, print_board

    print_board(board_of(source), make_console())
