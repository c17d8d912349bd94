"""Every published board is what its records give, byte for byte; needs no torch."""

from __future__ import annotations

from pathlib import Path

import pytest

from iqa_robust.records import read_records
from iqa_robust.tables.board import board
from iqa_robust.tables.canaries import check_canaries
from iqa_robust.tables.submission import check_submission
from iqa_robust.tables.write import write_board

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"
TRACKS = sorted(path.name for path in LEADERBOARDS.glob("runs/*"))


def test_boards_and_records_belong_together() -> None:
    assert {path.stem for path in LEADERBOARDS.glob("*.csv")} == set(TRACKS)


@pytest.mark.parametrize("track", TRACKS)
def test_a_board_is_its_records(track: str, tmp_path: Path) -> None:
    records = read_records(LEADERBOARDS / "runs" / track)
    assert {record.spec.track for record in records} == {track}
    write_board(board(records), tmp_path / "board.csv")
    assert (tmp_path / "board.csv").read_bytes() == (LEADERBOARDS / f"{track}.csv").read_bytes()


@pytest.mark.parametrize("track", TRACKS)
def test_what_is_published_would_be_accepted(track: str) -> None:
    assert check_submission(LEADERBOARDS / "runs" / track) == []
    assert check_canaries(LEADERBOARDS / "runs" / track) == []
