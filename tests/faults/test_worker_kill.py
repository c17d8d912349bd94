"""kill -9 of workers and of their driver: a worker costs its batch, a driver nothing that was finished."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from killed_track import board, track_text

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="finds workers in /proc")
needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")

PROCESSES = ("--workers", "2")
RAY = ("--executor", "ray", "--workers", "2")


@pytest.fixture(scope="module")
def track(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("track") / "killed.toml"
    path.write_text(track_text(limit=8, crop=64, radii=[4], steps=120))
    return path


@pytest.fixture(scope="module")
def whole(track: Path) -> pd.DataFrame:
    """The board of a run that nobody disturbed, on one worker."""
    out = track.parent / "whole"
    start(track, out).wait(timeout=280)
    return board(out)


def start(track: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "iqa_robust", "run", str(track), "--out", str(out), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background job ignores it
    )


def descendants(pid: int) -> list[int]:
    """All processes below one, by /proc."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # pid (name) state ppid; the name may hold spaces and brackets
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except OSError:
                continue
    found, more = set(), {pid}
    while more:
        more = {child for child, parent in parents.items() if parent in more} - found
        found |= more
    return sorted(found)


def command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def busy_workers(driver: int, out: Path) -> list[int]:
    """The worker processes, once they have finished a first batch."""
    if not list(out.glob("runs/*.parts/*.parquet")):
        return []
    return [pid for pid in descendants(driver) if any(t in command_line(pid) for t in ("spawn_main", "ray::RayWorker"))]


def wait_for(there: Callable[[], list[int]], process: subprocess.Popen[bytes]) -> list[int]:
    for _ in range(1500):
        found = there()
        if found:
            return found
        assert process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise TimeoutError


def kill_a_worker(track: Path, out: Path, whole: pd.DataFrame, options: tuple[str, ...]) -> None:
    process = start(track, out, *options)
    workers = wait_for(lambda: busy_workers(process.pid, out), process)
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    printed, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    assert printed.decode().count("a worker died over") == 1
    pd.testing.assert_frame_equal(board(out), whole, check_exact=True)
    assert not list(out.rglob("*.parts"))


def kill_the_driver(track: Path, out: Path, whole: pd.DataFrame, options: tuple[str, ...]) -> None:
    process = start(track, out, *options)
    wait_for(lambda: busy_workers(process.pid, out), process)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    for _ in range(600):  # what it started does not outlive it by more than a batch
        if not any("iqa_robust" in command_line(pid) or "spawn_main" in command_line(pid) for pid in below):
            break
        time.sleep(0.1)
    else:
        raise AssertionError([command_line(pid) for pid in below])
    again = start(track, out, *options)
    _, errors = again.communicate(timeout=280)
    assert again.returncode == 0, errors
    pd.testing.assert_frame_equal(board(out), whole, check_exact=True)
    assert not list(out.rglob("*.parts"))


def test_a_process_that_is_killed_costs_its_batch(track: Path, tmp_path: Path, whole: pd.DataFrame) -> None:
    kill_a_worker(track, tmp_path / "out", whole, PROCESSES)


@pytest.mark.slow
def test_processes_go_with_their_driver(track: Path, tmp_path: Path, whole: pd.DataFrame) -> None:
    kill_the_driver(track, tmp_path / "out", whole, PROCESSES)


@needs_ray
@pytest.mark.slow
def test_a_ray_worker_that_is_killed_costs_its_batch(track: Path, tmp_path: Path, whole: pd.DataFrame) -> None:
    kill_a_worker(track, tmp_path / "out", whole, RAY)


@needs_ray
@pytest.mark.slow
def test_a_driver_of_ray_that_is_killed(track: Path, tmp_path: Path, whole: pd.DataFrame) -> None:
    kill_the_driver(track, tmp_path / "out", whole, RAY)


def test_ctrl_c_ends_processes_too(track: Path, tmp_path: Path) -> None:
    process = start(track, tmp_path / "out", *PROCESSES)
    wait_for(lambda: busy_workers(process.pid, tmp_path / "out"), process)
    below = descendants(process.pid)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130
    assert errors.decode() == "iqa-robust: interrupted; what was finished is kept, the same command resumes.\n"
    assert not any("spawn_main" in command_line(pid) for pid in below)
