"""Tables made record by record are the tables of all records at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from iqa_robust.errors import RecordError
from iqa_robust.measures import resampling
from iqa_robust.records import read_record, read_records, read_spec, write_record
from iqa_robust.tables.board import board
from iqa_robust.tables.from_folder import board_of, verdicts_of, write_per_image_of
from iqa_robust.tables.per_image import PER_IMAGE_DIGITS, per_image
from iqa_robust.tables.verdicts import verdicts
from iqa_robust.tables.write import csv_text


@pytest.fixture
def folder(make_grid: Callable, make_record: Callable, tmp_path: Path) -> Path:
    records = [
        *make_grid(),
        *make_grid(models=("alpha",), attacks=("iterated",), seed=1),
        make_record(model="gamma", status="failed", reason="it broke"),
    ]
    for record in records:
        write_record(tmp_path / "out" / "runs", record)
    return tmp_path / "out"


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_the_board_of_a_folder(folder: Path, workers: int | None) -> None:
    pd.testing.assert_frame_equal(board_of(folder, workers), board(read_records(folder)), check_exact=True)


@pytest.mark.parametrize("workers", [None, 2])
def test_the_images_of_a_folder(folder: Path, tmp_path: Path, workers: int | None) -> None:
    write_per_image_of(folder, tmp_path / "images.csv", workers)
    expected = csv_text(per_image(read_records(folder)), PER_IMAGE_DIGITS)
    assert (tmp_path / "images.csv").read_text() == expected
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".csv" or path.name.startswith(".")] == [
        "images.csv"
    ]


def test_the_verdicts_on_a_folder(folder: Path) -> None:
    expected = verdicts(read_records(folder))
    assert len(expected) > 1
    pd.testing.assert_frame_equal(verdicts_of(folder), expected, check_exact=True)


def test_a_record_that_is_there_twice(folder: Path, make_record: Callable) -> None:
    record = read_records(folder)[0]
    write_record(folder / "copy", record)
    for table in (board_of, verdicts_of, lambda folder: write_per_image_of(folder, folder / "images.csv")):
        with pytest.raises(RecordError) as caught:
            table(folder)
        assert str(caught.value) == (
            f"{record.digest}: given twice; expected each record once, so leave one of its copies out."
        )
    assert not (folder / "images.csv").exists()


def test_some_columns_of_a_record(folder: Path) -> None:
    path = sorted(folder.rglob("*.json"))[0]
    whole, part = read_record(path), read_record(path, ("mos", "score_adv"))
    assert list(part.images.columns) == ["mos", "score_adv"]
    pd.testing.assert_frame_equal(part.images, whole.images[["mos", "score_adv"]])
    assert read_spec(path) == (whole.spec, len(whole.images))


@pytest.mark.parametrize(
    ("n", "expected"),
    [(0, 10_000), (24, 10_000), (500, 10_000), (1_000, 5_000), (10_000, 500), (20_000, 500), (10**6, 500)],
)
def test_the_resamples_of_a_board(n: int, expected: int) -> None:
    assert resampling.resamples_for(n) == expected
