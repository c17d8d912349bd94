"""A real outside package, `tests/plugin_pkg`, installed beside this one: found, checked, and run end to end."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from iqa_robust import attacks, defenses, testing
from iqa_robust.errors import PluginError
from iqa_robust.records import read_records

PACKAGE = Path(__file__).resolve().parent.parent / "plugin_pkg"
TRACK = PACKAGE / "track.toml"
try:
    VERSION = version("acme-iqa")
except PackageNotFoundError:
    pytest.skip(
        "needs the outside package: pip install --no-deps --no-build-isolation tests/plugin_pkg",
        allow_module_level=True,
    )


def iqa_robust(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The command line in a fresh interpreter, where nothing was registered by hand."""
    program = "from iqa_robust.cli.main import main; main()"
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_names_carry_the_distribution() -> None:
    assert {"acme-iqa/wavelet", "acme-iqa/retired"} <= set(defenses.names())
    assert "acme-iqa/sign-walk" in attacks.names()
    assert defenses.get("acme-iqa/wavelet").__module__ == "acme_iqa.wavelet"
    assert defenses.create("acme-iqa/wavelet", threshold=0.1).threshold == 0.1  # type: ignore[attr-defined]


def test_a_broken_entry_stays_listed_and_says_why() -> None:
    listed = {row["name"]: row for row in json.loads(iqa_robust("list", "defenses", "--json").stdout)}
    assert listed["acme-iqa/wavelet"]["status"] == "ok"
    broken = listed["acme-iqa/retired"]
    assert (broken["status"], broken["distribution"], broken["version"]) == ("broken", "acme-iqa", VERSION)
    assert all(row["status"] != "broken" for name, row in listed.items() if name != "acme-iqa/retired")
    sentence = (
        f"defense 'acme-iqa/retired' from acme-iqa {VERSION} could not be loaded (acme_iqa.retired:Retired):"
        " ModuleNotFoundError: No module named 'acme_iqa.retired'."
    )
    assert broken["detail"] == sentence
    with pytest.raises(PluginError) as raised:
        defenses.create("acme-iqa/retired")
    assert str(raised.value) == sentence


def test_using_the_broken_entry_is_a_wrong_request(tmp_path: Path) -> None:
    track = tmp_path / "track.toml"
    track.write_text(TRACK.read_text("utf-8").replace("acme-iqa/wavelet", "acme-iqa/retired"), "utf-8")
    done = iqa_robust("run", track, "--out", tmp_path / "out")
    assert done.returncode == 2, done.stderr
    assert "No module named 'acme_iqa.retired'" in done.stderr
    assert not (tmp_path / "out").exists()


def test_both_keep_their_contracts() -> None:
    testing.check_defense("acme-iqa/wavelet").raise_if_failed()
    testing.check_attack("acme-iqa/sign-walk").raise_if_failed()


def test_the_check_verb_says_so_too() -> None:
    assert iqa_robust("check", "defense", "acme-iqa/wavelet").returncode == 0
    done = iqa_robust("check", "defense", "acme-iqa/retired")
    assert done.returncode == 2
    assert "No module named 'acme_iqa.retired'" in done.stderr


def test_a_track_runs_with_both(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = iqa_robust("run", TRACK, "--out", out, "--device", "cpu")
    assert done.returncode == 0, done.stdout + done.stderr
    with (out / "board.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    cells = {(row["defense"], row["attack"]) for row in rows}
    assert cells >= {
        (defense, attack) for defense in ("none", "wavelet-0.05") for attack in ("noise", "acme-iqa/sign-walk")
    }
    assert all(row["status"] == "ok" and row["n_images"] == "4" and row["n_failed"] == "0" for row in rows)
    for row in rows:
        outside = row["defense"] != "none" or row["attack"].startswith("acme-iqa/")
        assert ("acme-iqa" in row["plugin"]) == outside
    for record in read_records(out):
        spec = record.spec
        if spec.defense is not None:
            assert (spec.defense.distribution, spec.defense.version) == ("acme-iqa", VERSION)
            assert spec.defense.params == {"threshold": 0.05}
        if spec.attack.name == "acme-iqa/sign-walk":
            assert (spec.attack.distribution, spec.attack.version) == ("acme-iqa", VERSION)
            assert spec.attack.params == {"share": 0.1}
            assert (record.images["queries"] == 20).all()
            assert (record.images["score_adv"] < record.images["score_clean"]).all()
