"""Every published board is what its records give; needs no torch."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from iqa_robust.records import read_records
from iqa_robust.tables.board import board
from iqa_robust.tables.board_file import same_board
from iqa_robust.tables.canaries import check_canaries
from iqa_robust.tables.submission import check_submission
from iqa_robust.tables.write import BOARD_DIGITS, csv_text

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
TRACKS = sorted(path.name for path in LEADERBOARDS.glob("runs/*"))
SOURCES = sorted(path.stem for path in (LEADERBOARDS / "sources").glob("*.toml"))


def test_boards_and_records_belong_together() -> None:
    assert {path.stem for path in LEADERBOARDS.glob("*.csv")} == set(TRACKS)


@pytest.mark.parametrize("track", TRACKS)
def test_a_board_is_its_records(track: str) -> None:
    records = read_records(LEADERBOARDS / "runs" / track)
    assert {record.spec.track for record in records} == {track}
    assert same_board(csv_text(board(records), BOARD_DIGITS), (LEADERBOARDS / f"{track}.csv").read_text())


@pytest.mark.parametrize("track", TRACKS)
def test_what_is_published_would_be_accepted(track: str) -> None:
    assert check_submission(LEADERBOARDS / "runs" / track) == []
    assert check_canaries(LEADERBOARDS / "runs" / track) == []


@pytest.mark.parametrize("track", SOURCES)
def test_a_source_lists_the_models_that_have_rows_and_holds_how_they_were_made(track: str) -> None:
    text = (LEADERBOARDS / "sources" / f"{track}.toml").read_text()
    with (LEADERBOARDS / f"{track}.csv").open(newline="") as file:
        assert set(re.findall(r'^label = "(.+)"$', text, re.MULTILINE)) == {
            row["model"] for row in csv.DictReader(file)
        }
    for weights in re.findall(r'weights = "(.+)\.safetensors"', text):
        for ending in ("toml", "md"):
            assert (LEADERBOARDS / "sources" / f"{weights}.{ending}").is_file()
