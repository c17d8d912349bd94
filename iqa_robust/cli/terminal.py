"""The terminal: its width, and the board in it."""

from __future__ import annotations

import pandas as pd
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iqa_robust.tables.board import summary_rows

PIPE_WIDTH = 200
"""Columns of output that goes to a file or a pipe, where nothing should be wrapped."""
_TEXT = ("model", "defense", "attack", "knowledge", "flags", "status")


def make_console() -> Console:
    """A console as wide as the terminal, or wide enough for a file."""
    console = Console()
    return console if console.is_terminal else Console(width=PIPE_WIDTH)


def print_board(board: pd.DataFrame, console: Console) -> None:
    """Print the columns a person looks at first; in a narrow terminal, what all rows share goes into a line above."""
    rows = summary_rows(board)
    if not rows:
        return
    names = list(rows[0])
    width = sum(max(len(name), *(len(row[name]) for row in rows)) + 3 for name in names) + 1
    if width > console.width:
        shared = [name for name in names if len({row[name] for row in rows}) == 1 and len(rows) > 1]
        told = [f"{name} {rows[0][name]}" for name in shared if rows[0][name]]
        if told:
            console.print(escape("all rows: " + ", ".join(told)), highlight=False)
        names = [name for name in names if name not in shared]
    table = Table(header_style="bold", box=box.SIMPLE)
    for name in names:
        table.add_column(name, justify="left" if name in _TEXT else "right")
    for row in rows:
        table.add_row(*(escape(row[name]) for name in names))
    console.print(table)
