from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.records import write_record
from iqa_robust.tables.board import BOARD_COLUMNS, TEXT_COLUMNS, board
from iqa_robust.tables.from_folder import write_per_image_of
from iqa_robust.tables.per_image import per_image
from iqa_robust.tables.write import csv_text, number, text, write_board


def test_rebuilding_gives_the_same_bytes(make_grid: Callable, tmp_path: Path) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.csv"
    write_board(board(make_grid()), first)
    write_board(board(make_grid()), second)
    assert first.read_bytes() == second.read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.csv", "b.csv"]  # no temporary file is left


def test_a_board_reads_back(make_grid: Callable, make_record: Callable, tmp_path: Path) -> None:
    table = board([*make_grid(), make_record(model="gamma", status="failed", reason="it broke")])
    write_board(table, tmp_path / "board.csv")
    back = pd.read_csv(tmp_path / "board.csv", keep_default_na=True)
    assert list(back.columns) == list(BOARD_COLUMNS)
    for name in BOARD_COLUMNS:
        if name in TEXT_COLUMNS:
            assert list(back[name].astype(object).fillna("")) == list(table[name]), name
        else:
            # 6 significant digits: off by at most half of the sixth.
            np.testing.assert_allclose(back[name], table[name], rtol=5e-6, atol=0, err_msg=name)


def test_the_form_of_cells(make_grid: Callable, make_record: Callable, tmp_path: Path) -> None:
    write_board(board([*make_grid(), make_record(model="gamma", status="failed", reason="x")]), tmp_path / "board.csv")
    content = (tmp_path / "board.csv").read_bytes()
    assert b"\r" not in content
    assert b"%" not in content
    assert content.endswith(b"\n")
    rows = list(csv.DictReader(io.StringIO(content.decode())))
    failed = rows[-1]
    assert failed["srocc_adv"] == failed["rank"] == failed["r_score"] == ""
    assert failed["n_images"] == "40"
    assert rows[0]["eps_255"] == "4"
    assert "nan" not in content.decode().lower()


def test_a_per_image_table_brings_back_float32(make_record: Callable, tmp_path: Path) -> None:
    record = make_record(n=30)
    write_record(tmp_path / "runs", record)
    write_per_image_of(tmp_path, tmp_path / "images.csv")
    back = pd.read_csv(tmp_path / "images.csv")
    for name in ("score_clean", "score_adv"):
        np.testing.assert_array_equal(np.float32(back[name]), np.float32(record.images[name]))
    assert back["score_def_clean"].isna().all()


def test_an_unchanged_image_has_an_infinite_psnr(make_record: Callable) -> None:
    record = make_record(n=5)
    record.images.loc[2, "psnr"] = math.inf
    rows = list(csv.DictReader(io.StringIO(csv_text(per_image([record]), 9))))
    assert rows[2]["psnr"] == "inf"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.5, "0.5"),
        (4.0, "4"),
        (-0.0, "0"),
        (1 / 3, "0.333333"),
        (-1e-7, "-1e-07"),
        (1234567.0, "1.23457e+06"),
        (math.nan, ""),
        (math.inf, "inf"),
    ],
)
def test_numbers(value: float, shown: str) -> None:
    assert number(value, 6) == shown


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_rounding_twice_is_rounding_once(value: float) -> None:
    once = number(value, 6)
    assert number(float(once), 6) == once


@pytest.mark.parametrize("hostile", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1"])
def test_text_is_never_a_formula(hostile: str) -> None:
    assert text(hostile).startswith("'")


@given(st.text())
def test_text_stays_in_its_cell_and_line(value: str) -> None:
    frame = pd.DataFrame({"a": [value], "b": [1]})
    rows = list(csv.reader(io.StringIO(csv_text(frame, 6))))
    assert len(rows) == 2
    assert rows[1][1] == "1"
    assert not rows[1][0].startswith(("=", "+", "-", "@", "\t", "\r"))
    if value.isprintable() and not value.lstrip().startswith(("=", "+", "-", "@")):
        assert rows[1][0] == value


def test_missing_text_is_empty() -> None:
    assert [text(value) for value in (None, math.nan, pd.NA, "")] == ["", "", "", ""]
