"""`iqa-robust report`: the page a person looks at, from records."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    folder: Annotated[str, typer.Argument(metavar="DIR", help="The --out folder of a run, or its URL.")],
    html: Annotated[str | None, typer.Option(help="The file to write [DIR/report.html].")] = None,
) -> None:
    """Write one self-contained HTML page from the records of DIR."""
    from iqa_robust.records import place, read_records, target_file
    from iqa_robust.tables.board import board
    from iqa_robust.tables.report import write_report

    source = place(folder, "DIR")
    target = source / "report.html" if html is None else target_file(html, "--html")
    records = read_records(source)
    write_report(records, board(records), target)
    print(target)
