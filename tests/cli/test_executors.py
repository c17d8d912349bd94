"""The same board from any number of workers, processes or Ray actors, and from shards; and what is said when not."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import torch

from iqa_robust.records import read_records

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="needs the extra `ray`")


# Asked for, since `auto` measures which one is faster, which may differ from run to run.
BF16 = ("--precision", "bf16")


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every worker sums with one thread, so that boards can be compared bit by bit."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def track(tmp_path: Path, track_text: str) -> Path:
    """The small track with what numbers could depend on: a network, a randomized defense, an attack that draws."""
    text = track_text.replace("eps_255 = [1, 2]", "")
    for section, entry in (("models", "compact"), ("defenses", "random-noise"), ("attacks", "square")):
        text += f'\n[[{section}]]\nname = "{entry}"\n'
    path = tmp_path / "small.toml"
    path.write_text(f"{text}queries = 6\n\n[budget]\neot = 2\n")
    return path


def start(track: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "iqa_robust", "run", str(track), "--out", str(out), *BF16, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def run(track: Path, out: Path, *options: str) -> None:
    left(start(track, out, *options))


def left(process: subprocess.Popen[str]) -> str:
    """What a run printed that ended well."""
    printed, errors = process.communicate(timeout=280)
    assert process.returncode == 0, errors
    return printed


def board(out: Path) -> pd.DataFrame:
    return pd.read_csv(out / "board.csv").drop(columns="seconds")


def assert_same(one: Path, other: Path) -> None:
    """The same boards, and the same rows of every record, bit by bit."""
    pd.testing.assert_frame_equal(board(one), board(other), check_exact=True)
    for mine, theirs in zip(read_records(one), read_records(other), strict=True):
        pd.testing.assert_frame_equal(mine.images, theirs.images, check_exact=True)
        assert (mine.digest, mine.flags) == (theirs.digest, theirs.flags)
    assert not list(other.rglob("*.parts"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("alone") / "out"


@pytest.fixture
def one_worker(track: Path, alone: Path) -> Path:
    if not alone.exists():
        run(track, alone)
    return alone


def test_two_processes_give_the_same_numbers(track: Path, one_worker: Path, tmp_path: Path) -> None:
    run(track, tmp_path / "two", "--workers", "2")
    assert_same(one_worker, tmp_path / "two")


@pytest.mark.slow
def test_eight_processes_give_the_same_numbers(track: Path, one_worker: Path, tmp_path: Path) -> None:
    run(track, tmp_path / "eight", "--workers", "8")
    assert_same(one_worker, tmp_path / "eight")


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("workers", ["1", "2"])
def test_ray_gives_the_same_numbers(track: Path, one_worker: Path, tmp_path: Path, workers: str) -> None:
    run(track, tmp_path / "ray", "--executor", "ray", "--workers", workers)
    assert_same(one_worker, tmp_path / "ray")


@needs_ray
@pytest.mark.slow
def test_ray_starts_its_own_cluster_beside_another(
    track: Path, one_worker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as short:  # Ray's sockets are below it: 107 characters
        monkeypatch.setenv("RAY_TMPDIR", short)
        left_by_another = Path(short, "ray", "ray_current_cluster")  # what `ray start --head` leaves
        left_by_another.parent.mkdir()
        left_by_another.write_text("127.0.0.1:9")
        run(track, tmp_path / "ray", "--executor", "ray", "--workers", "1")
    assert_same(one_worker, tmp_path / "ray")


DEADLY = """
import multiprocessing, os
from iqa_robust.models.base import IQAModel, ModelInfo

class Deadly(IQAModel):
    info = ModelInfo(score_range=(0.0, 1.0))

    def __init__(self):
        super().__init__()

    def forward(self, x, ref=None):
        if multiprocessing.parent_process() is not None:  # the driver looks at the model, too
            os._exit(9)
        return x.mean(dim=(1, 2, 3))
"""


def test_a_cell_that_ends_its_workers_is_on_the_board(track: Path, track_text: str, tmp_path: Path) -> None:
    site, out = tmp_path / "site", tmp_path / "out"
    (site / "deadly-1.0.dist-info").mkdir(parents=True)
    (site / "deadly.py").write_text(DEADLY)
    (site / "deadly-1.0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: deadly\nVersion: 1.0\n")
    (site / "deadly-1.0.dist-info" / "entry_points.txt").write_text("[iqa_robust.models]\nmodel = deadly:Deadly\n")
    model = '[[models]]\nname = "deadly/model"\n\n'
    track.write_text(track_text.replace("[[models]]", model + "[[models]]"))
    options = ("--workers", "2", "--limit", "2", "--defenses", "none", "--attacks", "noise")
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "iqa_robust", "run", str(track), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env={**os.environ, "PYTHONPATH": paths})
    assert (done.returncode, done.stderr) == (1, "")
    rows = pd.read_csv(out / "board.csv").set_index("model")
    assert rows["status"].to_dict() == {"deadly/model": "failed", "ssim": "ok"}
    assert pd.isna(rows["srocc_adv"]["deadly/model"]) and not pd.isna(rows["shift_mean"]["ssim"])
    (failed,) = (record for record in read_records(out) if record.status == "failed")
    reason = "3 workers died over it; look for too little memory, or leave the cell out"
    assert failed.reason == reason and set(failed.images["reason"]) == {reason}
    assert f"failed: {failed.digest}: {reason}" in done.stdout
    assert (out / "report.html").is_file()


def test_shards_at_the_same_time_give_the_same_board_and_the_last_one_writes_it(
    cli, track: Path, one_worker: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    outcome = cli("run", track, "--out", out, *BF16, "--shard", "3/3")
    assert outcome.status == 0, outcome.err
    assert "shard 3/3: its" in outcome.out and not (out / "board.csv").exists()
    first = len(list(out.glob("runs/*.json")))
    printed = [left(process) for process in [start(track, out, "--shard", f"{i}/3") for i in (1, 2)]]
    assert any(str(out / "board.csv") in text for text in printed)
    assert 0 < first < len(list(out.glob("runs/*.json")))
    assert_same(one_worker, out)
    assert cli("table", out, "--csv", tmp_path / "table.csv").status == 0
    assert (tmp_path / "table.csv").read_bytes() == (out / "board.csv").read_bytes()


def test_the_command_without_a_shard_runs_what_a_lost_shard_left(
    cli, track: Path, one_worker: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shards"
    assert cli("run", track, "--out", out, *BF16, "--shard", "1/2").status == 0
    outcome = cli("run", track, "--out", out, *BF16)
    assert outcome.status == 0, outcome.err
    assert "cells are finished already" in outcome.out
    assert_same(one_worker, out)


def test_without_ray_one_sentence_says_what_to_do(cli, track: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    outcome = cli("run", track, "--out", tmp_path / "out", "--executor", "ray")
    assert outcome.status == 2
    assert outcome.err == (
        "iqa-robust: executor 'ray': Ray is not installed; install the extra, pip install 'iqa-robust[ray]', or use"
        " --executor local --workers N.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (("--shard", "4/3"), "--shard: expected i/n with 1 <= i <= n, such as 2/8, got '4/3'."),
        (("--ray-address", "auto"), "--ray-address auto: only Ray has an address; add --executor ray."),
    ],
)
def test_wrong_requests(cli, track: Path, tmp_path: Path, options: tuple[str, ...], sentence: str) -> None:
    outcome = cli("run", track, "--out", tmp_path / "out", *options)
    assert (outcome.status, outcome.err) == (2, f"iqa-robust: {sentence}\n")
    assert not (tmp_path / "out").exists()


@needs_ray
@pytest.mark.slow
def test_a_cluster_that_is_not_there(cli, track: Path, tmp_path: Path) -> None:
    outcome = cli("run", track, "--out", tmp_path / "out", "--executor", "ray", "--ray-address", "127.0.0.1:1")
    assert outcome.status == 2
    refused = ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))
    assert outcome.err == (
        f"iqa-robust: --ray-address 127.0.0.1:1: Ray cannot be reached ({refused}); see that the cluster runs there,"
        " and set RAY_AUTH_MODE=token where it asks for a token.\n"
    )
