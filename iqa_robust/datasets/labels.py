"""Readers of label tables: text, CSV, MATLAB and Excel, with one clear sentence for each thing amiss."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from iqa_robust.errors import DataError

Record = dict[str, str]
"""One row of a table: column -> cell, as text."""


AUTHORS = "is this the authors' table?"


def number(text: str, where: str) -> float:
    """A decimal number; NaN and infinity pass and are refused with the row's name later."""
    try:
        return float(text)
    except ValueError:
        raise DataError(f"{where}: expected a number, got {text!r}; correct the label table.") from None


def read_csv(path: Path, columns: Sequence[str], advice: str = AUTHORS) -> list[Record]:
    """Rows of a comma-separated UTF-8 file with a header line that has at least `columns`, else with `advice`.

    Raises:
        DataError: a column is missing or named twice, a row has another number of cells, or the text is
            broken.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = list(csv.reader(file, strict=True))
    except OSError as error:
        raise DataError(f"{path}: the label table cannot be read ({error.strerror}); check the path.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: expected a comma-separated UTF-8 table, got a broken one ({error}).") from error
    return _records(path, lines, columns, advice)


def read_lines(path: Path, width: int) -> list[list[str]]:
    """Lines of `width` words, separated by blanks; empty lines are skipped.

    Raises:
        DataError: a line has another number of words, or the text is broken.
    """
    try:
        lines = [line.split() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise DataError(f"{path}: the label table cannot be read ({error.strerror}); check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: expected UTF-8 text, got a broken file ({error}).") from error
    for i, words in enumerate(lines, 1):
        if words and len(words) != width:
            raise DataError(f"{path}, line {i}: expected {width} words, got {len(words)}; fetch the file again.")
    return [words for words in lines if words]


def read_xlsx(path: Path, columns: Sequence[str], sheet: str | int = 0) -> list[Record]:
    """Rows of an Excel sheet below the first line that has all `columns`.

    Raises:
        DataError: openpyxl is not installed, the file is broken, or no line has the columns.
    """
    if find_spec("openpyxl") is None:
        raise DataError(
            f"{path}: reading an Excel table needs openpyxl; install it with `pip install openpyxl`,"
            " or export the sheet as text (see the dataset's documentation)."
        )
    import pandas as pd

    try:
        cells = pd.read_excel(path, sheet_name=sheet, header=None, dtype=object, engine="openpyxl")
    except Exception as error:  # a broken archive, sheet or XML each raise their own type
        raise DataError(f"{path}: expected an Excel table, got a broken one ({error}).") from error
    lines = [["" if pd.isna(cell) else str(cell).strip() for cell in line] for line in cells.to_numpy()]
    start = next((i for i, line in enumerate(lines) if set(columns) <= set(line)), None)
    if start is None:
        raise DataError(f"{path}: expected a line with the columns {', '.join(columns)}, found none.")
    kept = [i for i, name in enumerate(lines[start]) if name]
    return _records(path, [[line[i] for i in kept] for line in lines[start:] if any(line)], columns)


def _records(path: Path, lines: Sequence[Sequence[str]], columns: Sequence[str], advice: str = AUTHORS) -> list[Record]:
    header = [name.strip() for name in lines[0]] if lines else []
    missing = [name for name in columns if name not in header]
    if missing or len(set(header)) != len(header):
        shown = ", ".join(header) or "an empty file"
        if len(header) == 1 and (";" in header[0] or "\t" in header[0]):
            advice = "separate columns by commas."
        raise DataError(f"{path}: expected the columns {', '.join(columns)}, each once, got {shown}; {advice}")
    for i, line in enumerate(lines[1:], 2):
        if line and len(line) != len(header):
            raise DataError(f"{path}, line {i}: expected {len(header)} cells, got {len(line)}; correct the table.")
    return [{name: cell.strip() for name, cell in zip(header, line, strict=True)} for line in lines[1:] if line]


def read_mat(path: Path, name: str) -> NDArray[Any]:
    """The array `name` of a MATLAB file (before version 7.3), flattened.

    Raises:
        DataError: the file is broken or has no such array.
    """
    from scipy.io import loadmat

    try:
        found = loadmat(path, variable_names=[name])
    except Exception as error:  # SciPy raises many types on broken files
        raise DataError(f"{path}: expected a MATLAB file, got a broken one ({error}).") from error
    if name not in found:
        raise DataError(f"{path}: expected an array named {name!r}, found none; is this the authors' file?")
    return np.asarray(found[name]).ravel()


def read_mat_numbers(path: Path, name: str) -> list[float]:
    """The numbers of the array `name` of a MATLAB file. Raises `DataError` where they are not numbers."""
    array = read_mat(path, name)
    if array.dtype.kind not in "buif":
        raise DataError(f"{path}: expected numbers in {name!r}, got {array.dtype}; is this the authors' file?")
    return [float(value) for value in array]


def read_mat_names(path: Path, name: str) -> list[str]:
    """The texts of the cell array `name` of a MATLAB file. Raises `DataError` where they are not texts."""
    cells = [np.asarray(cell).ravel() for cell in read_mat(path, name)]
    if not all(cell.size == 1 and cell.dtype.kind == "U" for cell in cells):
        raise DataError(f"{path}: expected texts in {name!r}, got something else; is this the authors' file?")
    return [str(cell[0]) for cell in cells]


def same_length(path: Path, **columns: Sequence[Any]) -> None:
    """Raise `DataError` unless all columns, from the files at `path`, have one length."""
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        shown = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"{path}: expected label columns of one length, got {shown}; fetch the files again.")
