"""Tables as CSV: the same numbers give the same bytes on every machine."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable
from typing import Any

import pandas as pd

from iqa_robust.records import Place, write_atomically

BOARD_DIGITS = 6
"""Significant digits of a board: far below any interval, far above the rounding that differs between machines."""
FORMULA_STARTS = ("=", "+", "-", "@")
"""A spreadsheet runs a cell that starts so."""


def write_board(board: pd.DataFrame, path: Place) -> None:
    """Write a board, whole or not at all."""
    write_atomically(path, csv_text(board, BOARD_DIGITS).encode())


def csv_text(frame: pd.DataFrame, digits: int, *, header: bool = True) -> str:
    r"""A table as CSV: UTF-8 text, `,` between cells, `\n` after rows, dot decimals, one number per cell, no `%`.

    Numbers are rounded to `digits` significant ones and written in the shortest way; whole numbers as such. NaN is an
    empty cell; infinity is `inf`. Text keeps to one line, and text that starts like a formula gets a `'` in front,
    so that no spreadsheet runs the name of somebody's image or plugin.
    """
    columns = [_column(frame[name], digits) for name in frame.columns]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    if header:
        writer.writerow([text(name) for name in frame.columns])
    writer.writerows(zip(*columns, strict=True))
    return buffer.getvalue()


def number(value: float, digits: int) -> str:
    """A number as it stands in a cell."""
    if math.isnan(value):
        return ""
    shown = f"{value:.{digits}g}"
    return "0" if shown == "-0" else shown


def text(value: Any) -> str:
    """Text as it stands in a cell: one line, not a formula, empty where it is missing."""
    if value is None or value is pd.NA or value != value:  # NaN is not equal to itself
        return ""
    line = str(value)
    if not line.isprintable():
        line = "".join(character if character.isprintable() else " " for character in line)
    return f"'{line}" if line.lstrip().startswith(FORMULA_STARTS) else line


def _column(values: pd.Series, digits: int) -> Iterable[str]:
    if pd.api.types.is_integer_dtype(values.dtype):
        return [str(value) for value in values.tolist()]
    if pd.api.types.is_float_dtype(values.dtype):
        return [number(value, digits) for value in values.to_numpy(dtype=float).tolist()]
    # Most texts of a column are one and the same; what is missing is equal to nothing and found under no key.
    shown = {value: text(value) for value in values.unique()}
    return [shown.get(value, "") for value in values]
