"""Places that results cannot go to: one sentence and exit status 2, before anything is read."""

from __future__ import annotations

from pathlib import Path

import pytest

TARGETS = {
    "a board without a name": (("table", "DIR", "--csv", ""), "--csv: expected a path or a URL, got an empty text"),
    "a board that is here": (("table", "DIR", "--csv", "."), "--csv: expected the name of a file, got '.'"),
    "a board that is a folder": (("table", "DIR", "--csv", "FOLDER"), "(Is a directory); give another --csv"),
    "a board below a file": (("table", "DIR", "--csv", "FILE/b.csv"), "b.csv: cannot be written ("),
    "scores in a folder": (("table", "DIR", "--per-image", "FOLDER"), "give another --per-image"),
    "verdicts in a folder": (("table", "DIR", "--verdicts", "FOLDER"), "give another --verdicts"),
    "records of nowhere": (("table", ""), "DIR: expected a path or a URL, got an empty text"),
    "a page without a name": (("report", "DIR", "--html", ""), "--html: expected a path or a URL, got an empty text"),
    "a page that is a folder": (("report", "DIR", "--html", "FOLDER"), "give another --html"),
    "a run to nowhere": (("run", "quickstart", "--out", ""), "--out: expected a path or a URL, got an empty text"),
    "weights below a file": (("train", "compact-photos", "--out", "FILE/x.safetensors"), "give another --out"),
    "a log that is a folder": (("train", "compact-photos", "--log", "FOLDER"), "(Is a directory); give another --log"),
}


@pytest.mark.parametrize("case", TARGETS)
def test_a_place_that_cannot_be_written_is_told_before_anything_is_read(
    cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "FOLDER").mkdir()
    (tmp_path / "FILE").write_text("mine")
    arguments, sentence = TARGETS[case]
    outcome = cli(*arguments)
    assert (outcome.status, sentence in outcome.err) == (2, True), outcome
    assert len(outcome.err.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"FOLDER", "FILE"}
