"""The board in the terminal."""

from __future__ import annotations

import pandas as pd
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from iqa_robust.tables.board import summary_rows


def print_board(board: pd.DataFrame, console: Console) -> None:
    """Print the columns a person looks at first."""
    rows = summary_rows(board)
    table = Table(header_style="bold")
    for name in rows[0] if rows else ("model",):
        table.add_column(
            name, justify="left" if name in ("model", "defense", "attack", "knowledge", "flags") else "right"
        )
    for row in rows:
        table.add_row(*(escape(value) for value in row.values()))
    console.print(table)
