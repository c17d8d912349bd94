"""The verbs beside `run`: check, report, submit-check, train, and module execution."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

LEADERBOARDS = Path(__file__).parents[2] / "leaderboards"


def test_check_prints_every_check_and_passes_a_sound_defense(cli) -> None:
    outcome = cli("check", "defense", "gaussian")
    assert outcome.status == 0, outcome.out
    assert outcome.out.count(" ok ") > 5
    assert "FAILED" not in outcome.out


def test_report_writes_a_page_that_needs_nothing_else(cli, track, tmp_path) -> None:
    out = tmp_path / "out"
    cli("run", track, "--out", out, "--attacks", "noise", "--defenses", "none")
    outcome = cli("report", out, "--html", tmp_path / "page.html")
    assert outcome.status == 0
    page = (tmp_path / "page.html").read_text()
    assert page == (out / "report.html").read_text()
    assert 'src="http' not in page and "<link" not in page


def test_submit_check_lists_problems_and_leaves_with_1(cli, track, tmp_path) -> None:
    out = tmp_path / "out"
    cli("run", track, "--out", out, "--limit", "3")
    outcome = cli("submit-check", out)
    assert outcome.status == 1
    assert "limit" in outcome.out
    assert outcome.out.strip().endswith("problem(s): not ready to submit")


def test_submit_check_accepts_a_whole_run(cli, track, tmp_path) -> None:
    out = tmp_path / "out"
    assert cli("run", track, "--out", out).status == 0
    outcome = cli("submit-check", out)
    assert outcome.status == 1 and "no canaries" in outcome.out
    shutil.copytree(LEADERBOARDS / "runs" / "canaries-v1", tmp_path / "out-canaries")
    outcome = cli("submit-check", out)
    assert (outcome.status, outcome.out) == (0, "ready to submit\n")


@pytest.mark.parametrize("arguments", [["list", "tracks"], ["--help"], ["run", "--help"]])
def test_the_package_is_executable(arguments: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "iqa_robust", *arguments], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_the_version_is_printed(cli) -> None:
    from iqa_robust import __version__

    assert cli("--version").out.strip() == f"iqa-robust {__version__}"
