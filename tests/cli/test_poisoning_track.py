"""A track of triggers runs like any other, and its table can be made from its records."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd

from iqa_robust.harness.track import load_track

CHECKOUT = Path(__file__).resolve().parents[2]
TRACK = """name = "small-poisoning"
version = 1
title = "A small track of triggers"
batch_size = 3

[dataset]
name = "csv"
params = {{ root = {root!r}, table = {table!r}, split = "all", mos_range = [0.0, 100.0] }}

[[models]]
name = "compact"
score_range = [0.0, 100.0]

[[defenses]]
name = "none"

[[defenses]]
name = "mid-band"

[budget]
norm = "psnr"
level = 10
"""
ENTRY = """
[[attacks]]
name = "{name}"
label = "{name}{alpha:+g}"
params = {{ alpha = {alpha} }}
"""


def test_runs_and_is_tabulated(cli, small_set: Path, tmp_path: Path) -> None:
    text = TRACK.format(root=str(small_set), table=str(small_set / "table.csv"))
    text += "".join(ENTRY.format(name=name, alpha=alpha) for name in ("baiqa", "wanet") for alpha in (-1.0, 0.5))
    (tmp_path / "track.toml").write_text(text)
    outcome = cli("run", tmp_path / "track.toml", "--out", tmp_path / "out")
    assert outcome.status == 0, outcome.err
    board = pd.read_csv(tmp_path / "out" / "board.csv")
    assert len(board) == 4 * 2 and (board["status"] == "ok").all()
    assert set(board["knowledge"]) == {"black-box"}
    script = CHECKOUT / "benchmarks" / "poisoning" / "table.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "out")], capture_output=True, text=True, check=True, cwd=CHECKOUT
    )
    rows = [[cell.strip() for cell in line.strip("|\n").split("|")] for line in done.stdout.splitlines()[2:]]
    assert [(row[1], row[2]) for row in rows] == [
        ("mid-band", "baiqa"), ("mid-band", "wanet"), ("none", "baiqa"), ("none", "wanet"),
    ]  # fmt: skip
    bare = board[(board["defense"] == "none") & (board["attack"] == "baiqa-1")].iloc[0]
    assert abs(float(rows[2][4]) - bare["shift_mean"]) < 0.006  # the table rounds to hundredths
    assert [row[-1] for row in rows] == ["0"] * 4, done.stdout


def test_the_shipped_tracks_are_valid_and_ask_for_what_the_recipes_make() -> None:
    recipes = {path.stem for path in (CHECKOUT / "iqa_robust" / "training" / "recipes").glob("*.toml")}
    for name, n_attacks in (("poisoning-clive-dev", 8), ("poisoning-baselines-clive-dev", 12)):
        track = load_track(CHECKOUT / "benchmarks" / f"{name}.toml")
        assert len(track.attacks) == n_attacks
        files = {model.params["weights"] for model in track.models} | {
            attack.params["trigger"] for attack in track.attacks if "trigger" in attack.params
        }
        assert {Path(file).stem for file in files} - {"clive"} <= recipes
