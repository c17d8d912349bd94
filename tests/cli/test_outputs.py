"""Where output goes: folders and files that cannot be written, full devices, and what is printed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest


def test_an_out_folder_that_is_a_file(cli, track: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    outcome = cli("run", track, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert "cannot be written" in outcome.err
    assert (tmp_path / "out").read_text() == "mine"


def test_a_full_disk_keeps_what_was_finished(cli, track: Path, tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "out"
    real, calls = os.fsync, []

    def full(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    outcome = cli("run", track, "--out", out)
    assert outcome.status == 1
    assert "No space left on device" in outcome.err
    assert "give the same command again" in outcome.err
    assert not list(out.rglob("*.tmp"))
    monkeypatch.setattr(os, "fsync", real)
    assert list(out.rglob("*.parquet"))
    assert cli("run", track, "--out", out).status == 0


def test_two_outputs_in_one_file(cli, track: Path, tmp_path: Path) -> None:
    out, file = tmp_path / "out", tmp_path / "both.csv"
    cli("run", track, "--out", out, "--attacks", "noise", "--defenses", "none")
    outcome = cli("table", out, "--csv", file, "--per-image", file)
    assert (outcome.status, "got the same one twice" in outcome.err) == (2, True)
    assert not file.exists()


def test_a_title_is_any_text(cli, tmp_path: Path, track_text: str) -> None:
    path = tmp_path / "small.toml"
    path.write_text(track_text.replace('"A small track"', '"[draft] [/red] small"'), encoding="utf-8-sig")
    for more in ((), ("--dry-run",)):
        outcome = cli("run", path, "--attacks", "noise", "--defenses", "none", "--out", tmp_path / "out", *more)
        assert outcome.status == 0
        assert "[draft] [/red] small" in outcome.out


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("words", [["list", "models"], ["--version"]])
def test_a_full_output(words: list[str], unbuffered: str) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "iqa_robust", *words],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    assert ended.returncode == 1
    assert ended.stderr == "iqa-robust: no space is left where the output goes; what was finished is kept.\n"


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_an_output_that_nobody_reads_any_more(unbuffered: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        ended = subprocess.run(
            [sys.executable, "-m", "iqa_robust", "list", "models"],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONUNBUFFERED": unbuffered},
        )
    finally:
        os.close(writing)
    assert (ended.returncode, ended.stderr) == (1, "")
