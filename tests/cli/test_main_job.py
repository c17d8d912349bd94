"""The main job: run, resume, table, report, dry run; with an in-process command line on real photographs."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
from scipy import stats

from iqa_robust.records import read_record

BOARD_COLUMNS = (
    "track,rank,model,defense,attack,goal,norm,eps_255,knowledge,n_images,n_failed,srocc_clean,srocc_adv,"
    "srocc_adv_lo,srocc_adv_hi,plcc_clean,plcc_adv,krocc_clean,krocc_adv,rmse_adv,shift_mean,shift_abs_mean,"
    "shift_abs_scaled,shift_abs_sd,shift_abs_mos,shift_p95,r_score,linf_max_255,psnr_mean,ssim_mean,queries_mean,"
    "seconds,flags,status,plugin,run"
)
IMAGE_COLUMNS = (
    "track,model,defense,attack,goal,norm,eps_255,knowledge,seed,image_id,mos,score_clean,score_adv,score_def_clean,"
    "linf_255,l2,psnr,ssim,queries,status"
)


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("run") / "out"


def test_a_run_leaves_a_board_a_report_and_a_record_per_cell(cli, track, out) -> None:
    outcome = cli("run", track, "--out", out)
    assert outcome.status == 0, outcome.err
    board = pd.read_csv(out / "board.csv", keep_default_na=True)
    assert ",".join(board.columns) == BOARD_COLUMNS
    # noise + fgsm at two radii = 3 bare cells; behind gaussian fgsm is run oblivious and adaptive: 1 + 2 * 2 = 5
    assert len(board) == 8
    assert set(board["defense"]) == {"none", "gaussian"}
    assert set(board["knowledge"]) == {"adaptive", "oblivious", "black-box"}
    assert (board["status"] == "ok").all()
    assert (board["linf_max_255"] <= board["eps_255"] + 1e-3).all()
    assert sorted(board["run"]) == sorted(path.stem for path in (out / "runs").glob("*.json"))
    assert "<html" in (out / "report.html").read_text().lower()
    assert not list((out / "runs").glob("*.parts"))


def test_the_board_is_what_the_per_image_scores_say(cli, track, out, tmp_path) -> None:
    cli("run", track, "--out", out)
    assert cli("table", out, "--csv", tmp_path / "board.csv", "--per-image", tmp_path / "images.csv").status == 0
    assert (tmp_path / "board.csv").read_bytes() == (out / "board.csv").read_bytes()
    board, images = pd.read_csv(tmp_path / "board.csv"), pd.read_csv(tmp_path / "images.csv")
    assert ",".join(images.columns) == IMAGE_COLUMNS
    for _, row in board.iterrows():
        keys = ["model", "defense", "attack", "eps_255", "knowledge"]
        mine = images[(images[keys] == row[keys].to_numpy()).all(axis=1)]
        assert len(mine) == row["n_images"] == 6
        # Both tables print 6 significant digits or more; ranks survive that, differences of scores lose up to 1e-5.
        assert stats.spearmanr(mine["mos"], mine["score_adv"]).statistic == pytest.approx(row["srocc_adv"], abs=1e-5)
        assert (mine["score_adv"] - mine["score_clean"]).mean() == pytest.approx(row["shift_mean"], abs=2e-5)


def test_running_again_does_nothing_and_changes_nothing(cli, track, out) -> None:
    cli("run", track, "--out", out)
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()}
    board = (out / "board.csv").read_bytes()
    outcome = cli("run", track, "--out", out)
    assert outcome.status == 0
    assert "8 cells are finished already" in outcome.out
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").iterdir()} == before
    assert (out / "board.csv").read_bytes() == board


def test_a_dry_run_lists_the_cells_and_runs_nothing(cli, track, tmp_path) -> None:
    outcome = cli("run", track, "--out", tmp_path / "never", "--dry-run")
    assert outcome.status == 0
    assert outcome.out.count("to run") == 8
    assert "left in one process" in outcome.out
    assert not (tmp_path / "never").exists()


def test_a_dry_run_of_a_shard_counts_its_cells(cli, track, tmp_path) -> None:
    counts = []
    for i in (1, 2):
        outcome = cli("run", track, "--out", tmp_path / "never", "--dry-run", "--shard", f"{i}/2")
        assert outcome.status == 0, outcome.err
        counts.append(outcome.out.count("to run"))
        assert f"{counts[-1]} cells of shard {i}/2 on 6 images" in outcome.out
    assert sum(counts) == 8 and min(counts) > 0


def test_names_narrow_a_track_down(cli, track, tmp_path) -> None:
    outcome = cli("run", track, "--out", tmp_path / "o", "--defenses", "none", "--attacks", "fgsm", "--limit", "3")
    assert outcome.status == 0, outcome.err
    board = pd.read_csv(tmp_path / "o" / "board.csv")
    assert list(board["eps_255"]) == [1, 2]
    assert set(board["n_images"]) == {3}


def test_a_registered_defense_the_track_lacks_can_be_added(cli, track, tmp_path) -> None:
    outcome = cli("run", track, "--out", tmp_path / "o", "--defenses", "bit-depth", "--attacks", "noise")
    assert outcome.status == 0, outcome.err
    assert list(pd.read_csv(tmp_path / "o" / "board.csv")["defense"]) == ["bit-depth"]


def assert_the_same(one: pd.DataFrame, other: pd.DataFrame) -> None:
    """Boards but for the order of float32 sums, which the curve that is fitted to these few images magnifies.

    Scores of up to 100 differ by some 1e-4 on processors without AVX-512; SROCC would move by steps of 1e-2.
    """
    pd.testing.assert_frame_equal(one, other, rtol=1e-3, atol=1e-3)


def test_two_processes_give_the_same_board(cli, track, out, tmp_path) -> None:
    cli("run", track, "--out", out)
    outcome = cli("run", track, "--out", tmp_path / "two", "--workers", "2")
    assert outcome.status == 0, outcome.err
    one, two = (pd.read_csv(folder / "board.csv").drop(columns="seconds") for folder in (out, tmp_path / "two"))
    assert_the_same(one, two)  # workers get fewer threads, which changes the order of float32 sums


def test_another_batch_size_gives_the_same_board(cli, track_text, track, out, tmp_path) -> None:
    cli("run", track, "--out", out)
    other = tmp_path / "other.toml"
    other.write_text(track_text.replace("batch_size = 2", "batch_size = 5"))
    assert cli("run", other, "--out", tmp_path / "five").status == 0
    one, five = (pd.read_csv(folder / "board.csv").drop(columns="seconds") for folder in (out, tmp_path / "five"))
    assert_the_same(one, five)  # another batch may change the order of float32 sums


def test_a_record_says_where_it_comes_from(cli, track, out) -> None:
    cli("run", track, "--out", out)
    record = read_record(sorted((out / "runs").glob("*.json"))[0])
    assert record.spec.dataset.params["split"] == "all"
    assert record.environment["package_version"] == record.spec.package_version
    assert record.environment["precision"] == "fp32"
    assert record.facts["n_missing"] == 0
    assert record.peak_memory_mb > 10


def test_lists_are_machine_readable(cli) -> None:
    for room in ("models", "defenses", "attacks", "datasets", "tracks"):
        entries = json.loads(cli("list", room, "--json").out)
        assert entries and all({"name", "distribution", "version", "status"} <= set(entry) for entry in entries)
        assert {entry["status"] for entry in entries} <= {"ok", "broken", "not-installed"}
    assert "quickstart" in cli("list", "tracks").out
