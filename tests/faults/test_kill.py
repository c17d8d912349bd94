"""kill -9 at random moments: the same command finishes the rest, and the board is that of an uninterrupted run."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest
from killed_track import board, track_text

from iqa_robust.records import read_images, read_records


def _track(steps: int) -> str:
    return track_text(limit=6, crop=96, radii=[1, 2], steps=steps)


def _command(track: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "iqa_robust", "run", str(track), "--out", str(out)]


def _kill_and_resume(tmp_path: Path, moments: int, steps: int, seed: int) -> None:
    track = tmp_path / "killed.toml"
    track.write_text(_track(steps))
    start = time.monotonic()
    subprocess.run(_command(track, tmp_path / "whole"), check=True, capture_output=True, timeout=600)
    whole = time.monotonic() - start
    rng = random.Random(seed)
    for moment in range(moments):
        out = tmp_path / f"killed-{moment}"
        process = subprocess.Popen(_command(track, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(timeout=rng.uniform(0.3, 1.0) * whole)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        kept = {path: read_images(path) for path in out.glob("runs/*.parts/*.parquet")}
        subprocess.run(_command(track, out), check=True, capture_output=True, timeout=600)
        pd.testing.assert_frame_equal(board(out), board(tmp_path / "whole"), check_exact=True)
        assert not list(out.rglob("*.parts")), "parts of finished cells must go"
        # What had been finished was used: the rows of every kept part are in the final records, bit for bit.
        records = {record.digest: record.images.set_index("image_id") for record in read_records(out)}
        for path, rows in kept.items():
            there = records[path.parent.stem].loc[rows["image_id"]].reset_index()
            pd.testing.assert_frame_equal(there[list(rows)], rows, check_exact=True)


def test_killed_twice(tmp_path: Path) -> None:
    _kill_and_resume(tmp_path, moments=2, steps=10, seed=0)


@pytest.mark.slow
@pytest.mark.timeout(2700)
def test_killed_at_twenty_random_moments(tmp_path: Path) -> None:
    _kill_and_resume(tmp_path, moments=20, steps=10, seed=1)


def test_ctrl_c_says_so_and_leaves_with_130(tmp_path: Path) -> None:
    track = tmp_path / "killed.toml"
    track.write_text(_track(400))
    process = subprocess.Popen(
        _command(track, tmp_path / "out"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )
    for _ in range(600):
        if list((tmp_path / "out").rglob("*.parquet")) or process.poll() is not None:
            break
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.decode().endswith("interrupted; what was finished is kept, the same command resumes.\n")
    assert "Traceback" not in err.decode()
    assert list((tmp_path / "out").rglob("*.parquet"))
