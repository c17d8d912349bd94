"""A board as a file: right columns, one number per cell, values that can be."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from iqa_robust.measures import BOARD_MEASURES
from iqa_robust.records import FLAG_NAMES, GOALS, KNOWLEDGE, NORMS, STATUSES
from iqa_robust.tables.board import BOARD_COLUMNS, INTEGER_COLUMNS, TEXT_COLUMNS
from iqa_robust.tables.write import FORMULA_STARTS

NUMBER = re.compile(r"-?\d+(\.\d+)?(e[+-]?\d+)?")
"""How a number stands in a cell: a dot for decimals, no blank, no sign but a minus."""
RANGES: dict[str, tuple[float, float]] = {
    **dict.fromkeys(("rank",), (1, math.inf)),
    **dict.fromkeys(("eps_255", "n_images", "n_failed", "seconds", "queries_mean", "rmse_adv"), (0, math.inf)),
    **dict.fromkeys((name for name in BOARD_MEASURES if name.startswith(("srocc", "plcc", "krocc"))), (-1, 1)),
    **dict.fromkeys((name for name in BOARD_MEASURES if name.startswith("shift_abs")), (0, math.inf)),
    "shift_p95": (0, math.inf),
    "linf_max_255": (0, 255),
    "ssim_mean": (-1, 1),
}
"""Least and largest value of a column; others may be anything finite."""
CHOICES: dict[str, tuple[str, ...]] = {"goal": GOALS, "norm": NORMS, "knowledge": KNOWLEDGE, "status": STATUSES}
NEVER_EMPTY = (
    "track",
    "model",
    "defense",
    "attack",
    "goal",
    "norm",
    "eps_255",
    "knowledge",
    *INTEGER_COLUMNS,
    "status",
    "run",
)
LINF_TOLERANCE_255 = 1e-3
FITTED = ("plcc_adv", "rmse_adv", "shift_abs_mos")
"""Columns that hang on the logistic curve: it is fitted by iteration, and processors differ in the last digits."""
FIT_TOLERANCE = 1e-5
"""Relative and absolute; ten times what was seen between an AMD and an Intel processor."""


def same_board(one: str, other: str) -> bool:
    """Whether two boards as CSV are the same text, up to the last digits of `FITTED`."""
    if one == other:
        return True
    rows, others = (list(csv.reader(io.StringIO(text))) for text in (one, other))
    if not rows or len(rows) != len(others):
        return False
    return all(
        len(row) == len(against) and all(map(_same_cell, rows[0], row, against))
        for row, against in zip(rows, others, strict=True)
    )


def _same_cell(column: str, one: str, other: str) -> bool:
    if one == other or column not in FITTED or not (NUMBER.fullmatch(one) and NUMBER.fullmatch(other)):
        return one == other
    return math.isclose(float(one), float(other), rel_tol=FIT_TOLERANCE, abs_tol=FIT_TOLERANCE)


def check_board_file(path: Path) -> list[str]:
    """Every problem of a board CSV, one sentence each; empty where there is none."""
    try:
        content = path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        return [f"{path}: cannot be read as UTF-8 text ({error})."]
    try:
        table = list(csv.reader(io.StringIO(content), strict=True))
    except csv.Error as error:
        return [f"{path}: not a CSV table ({error})."]
    header = table[0] if table else []
    if tuple(header) != BOARD_COLUMNS:
        return [f"{path}: expected the columns {','.join(BOARD_COLUMNS)}; got {','.join(header) or 'none'}."]
    if len(table) == 1:
        return [f"{path}: holds no row."]
    problems = []
    seen: dict[str, int] = {}
    for line, cells in enumerate(table[1:], start=2):
        if len(cells) != len(BOARD_COLUMNS):
            problems.append(f"{path}:{line}: expected {len(BOARD_COLUMNS)} cells, got {len(cells)}.")
            continue
        row = dict(zip(BOARD_COLUMNS, cells, strict=True))
        problems += [f"{path}:{line}: {problem}" for problem in check_row(row)]
        for digest in row["run"].split(";"):
            if digest in seen:
                problems.append(f"{path}:{line}: run {digest} proves line {seen[digest]} already.")
            seen[digest] = line
    tracks = sorted({row[0] for row in table[1:] if row})
    if len(tracks) > 1:
        problems.append(f"{path}: expected one track, got {', '.join(tracks)}.")
    return problems


def check_row(row: Mapping[str, str]) -> list[str]:
    """Every problem of one row, given as text by column."""
    problems = []
    for name, cell in row.items():
        check: Callable[[str, str], str] = _text if name in TEXT_COLUMNS else _number
        problem = (
            f"{name}: expected a value, got an empty cell." if not cell and name in NEVER_EMPTY else check(name, cell)
        )
        if problem:
            problems.append(problem)
    return problems or _together(row)


def _text(name: str, cell: str) -> str:
    if cell.startswith(FORMULA_STARTS):
        return f"{name}: starts like a formula: {cell!r}."
    if any(not character.isprintable() for character in cell):
        return f"{name}: holds characters that cannot be printed: {cell!r}."
    if name in CHOICES and cell not in CHOICES[name]:
        return f"{name}: expected one of {', '.join(CHOICES[name])}, got {cell!r}."
    unknown = [flag for flag in cell.split(";") if flag not in FLAG_NAMES] if name == "flags" and cell else []
    if unknown:
        return f"flags: unknown: {', '.join(unknown)}."
    if name == "run" and not all(re.fullmatch("[0-9a-f]{16}", digest) for digest in cell.split(";")):
        return f"run: expected digests of 16 hexadecimal digits joined by ';', got {cell!r}."
    return ""


def _number(name: str, cell: str) -> str:
    if not cell:
        return ""
    if not NUMBER.fullmatch(cell):
        return f"{name}: expected one number with a dot for decimals and no unit, or an empty cell, got {cell!r}."
    value = float(cell)
    low, high = RANGES.get(name, (-math.inf, math.inf))
    if not low <= value <= high or not math.isfinite(value):
        return f"{name}: expected a value from {low:g} to {high:g}, got {cell}."
    if name in (*INTEGER_COLUMNS, "rank") and not value.is_integer():
        return f"{name}: expected a whole number, got {cell}."
    return ""


def _together(row: Mapping[str, str]) -> list[str]:
    """What holds between the cells of a row, each of which is right by itself."""
    values = {name: float(cell) if cell else math.nan for name, cell in row.items() if name not in TEXT_COLUMNS}
    problems = []
    if values["srocc_adv_lo"] > values["srocc_adv_hi"]:
        problems.append(f"srocc_adv_lo {row['srocc_adv_lo']} is above srocc_adv_hi {row['srocc_adv_hi']}.")
    if values["n_failed"] > values["n_images"]:
        problems.append(f"n_failed {row['n_failed']} is above n_images {row['n_images']}.")
    if values["n_failed"] and row["status"] == "ok":
        problems.append(f"{row['n_failed']} images failed, but the status is ok.")
    if row["status"] == "failed" and any(row[name] for name in ("rank", *BOARD_MEASURES)):
        problems.append("the row failed and still has a rank or measures; undefined is an empty cell.")
    if row["norm"] == "linf" and values["linf_max_255"] > values["eps_255"] + LINF_TOLERANCE_255:
        problems.append(f"linf_max_255 {row['linf_max_255']} is outside the budget, eps_255 {row['eps_255']}.")
    return problems
