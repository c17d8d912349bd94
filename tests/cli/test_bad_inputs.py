"""Bad inputs: one clear sentence each, exit status 2, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

SMALL = "small.toml"

TRACK_EDITS = {
    "unknown key": ("batch_size = 2", "batch_sise = 2", "batch_sise: unknown key (got 2)"),
    "no TOML": ("[dataset]", "[dataset", "not a TOML file"),
    "negative radius": (
        "eps_255 = [1, 2]",
        "eps_255 = [1, -2]",
        "expected eps_255 to be a finite number >= 0, got -2.0",
    ),
    "radius is text": ("eps_255 = [1, 2]", 'eps_255 = "big"', "attacks.1.eps_255"),
    "a name in capitals": (
        '"small"',
        '"Small Track"',
        "name: expected lower-case words joined by hyphens (got 'Small Track').",
    ),
    "a label with a blank": (
        '"gaussian"',
        '"gaussian"\nlabel = "a b"',
        "defenses.1.label: expected letters, digits and any of `._/+-`, the first one a letter or a digit (got 'a b').",
    ),
    "no steps": ("eps_255 = [1, 2]", "steps = 0", "expected steps to be a whole number >= 1, got 0"),
    "no radius": ("eps_255 = [1, 2]", "eps_255 = []", "attacks.1.eps_255"),
    "a radius twice": ("eps_255 = [1, 2]", "eps_255 = [2, 2]", "asks for this cell twice"),
    "a seed twice": ("batch_size = 2", "batch_size = 2\nseeds = [0, 0]", "asks for this cell twice"),
    "no seed": ("batch_size = 2", "batch_size = 2\nseeds = []", "seeds"),
    "a white box called black": (
        "eps_255 = [1, 2]",
        'knowledge = ["black-box"]',
        "fgsm differentiates the model: expected knowledge oblivious or adaptive, got 'black-box'",
    ),
    "unknown norm": ("eps_255 = [1, 2]", 'norm = "l7"', "attacks.1.norm"),
    "unknown goal": ("eps_255 = [1, 2]", 'goal = "sideways"', "attacks.1.goal"),
    "target without a score": ("eps_255 = [1, 2]", 'goal = "target"', "goal 'target' needs `target`"),
    "target that is not a number": ("eps_255 = [1, 2]", 'goal = "target"\ntarget = nan', "expected a finite number"),
    "a radius beyond floats": ("eps_255 = [1, 2]", f"eps_255 = {10**400}", "expected a number of at most 1.8e308"),
    "a seed below zero": (
        "batch_size = 2",
        "batch_size = 2\nseeds = [0, -1]",
        "seeds.1: expected greater than or equal",
    ),
    "inverted score range": ("[0.0, 1.0]", "[1.0, 0.0]", "two finite numbers with low < high, got [1.0, 0.0]"),
    "infinite score range": ("[0.0, 1.0]", "[-inf, inf]", "two finite numbers with low < high, got [-inf, inf]"),
    "score range of truths": ("[0.0, 1.0]", "[false, true]", "two finite numbers with low < high, got [False, True]"),
    "one table of models": ("[[models]]", "[models]", "models: expected tables, each below a line `[[models]]`."),
    "several datasets": ("[dataset]", "[[dataset]]", "dataset: expected a table."),
    "knowledge in one word": ("eps_255 = [1, 2]", 'knowledge = "adaptive"', "attacks.1.knowledge: expected a list"),
    "parameters of no defense": ('"gaussian"', '"none"\nparams = { x = 1 }', "'none' is the bare model"),
    "more nesting than there is": ("batch_size = 2", f"batch_size = {'[' * 3000}{']' * 3000}", "not a TOML file"),
    "more digits than there are": ("batch_size = 2", f"batch_size = {'9' * 5000}", "not a TOML file"),
    "opinion scores without end": ("[0.0, 100.0]", "[0.0, inf]", "mos_range must be two finite numbers"),
    "opinion scores in words": ("[0.0, 100.0]", '["a", "b"]', "mos_range must be two finite numbers"),
    "a truth in words": (
        'split = "all"',
        'split = "all", mos_higher_is_better = "no"',
        "must be true or false, got 'no'",
    ),
    "unknown model": ('"ssim"', '"sism"', "models.0 (sism): no model named 'sism'. Did you mean 'ssim'"),
    "unknown defense": (
        '"gaussian"',
        '"gausian"',
        "defenses.1 (gausian): no defense named 'gausian'. Did you mean 'gaussian'",
    ),
    "unknown attack with a label": ('"fgsm"', '"fgms"\nlabel = "mine"', "attacks.1 (mine): no attack named 'fgms'."),
    "unknown attack": ('"fgsm"', '"fgms"', "no attack named 'fgms'. Did you mean 'fgsm'"),
    "unknown dataset": ('"csv"', '"cvs"', "no dataset named 'cvs'"),
    "unknown parameter": (
        "eps_255 = [1, 2]",
        "params = { speed = 3 }",
        "attack 'fgsm': got an unexpected keyword argument 'speed'",
    ),
    "parameter out of range": ('name = "gaussian"', 'name = "gaussian"\nparams = { sigma = -1.0 }', "sigma"),
    "label twice": (
        'name = "gaussian"',
        'name = "gaussian"\n[[defenses]]\nname = "gaussian"',
        "'gaussian' appears twice",
    ),
    "reflect without a range": (
        "score_range = [0.0, 1.0]\n",
        "",
        None,  # filled below: needs a model of unknown range
    ),
    "moving the frame of a full reference": (
        '"gaussian"',
        '"random-crop"',
        "cannot defend a full-reference model",
    ),
    "another number of images": ('name = "csv"', 'name = "csv"\nn_images = 7', "frozen on 7 images, found 6"),
    "another manifest": (
        'name = "csv"',
        f'name = "csv"\nmanifest = "{"0" * 64}"',
        "not those the track is frozen on",
    ),
    "empty split": ('split = "all"', 'split = "val"', "there is no split 'val'"),
    "a split that is a number": ('split = "all"', "split = 3", "dataset 'csv': expected split to be text, got 3"),
    "weights that are a number": (
        '"ssim"',
        '"compact"\nparams = { weights = 5 }',
        "model 'compact': expected weights to be text, got 5",
    ),
    "a model that is a number": (
        '"gaussian"',
        '"trained"\nparams = { model = 3 }',
        "defense 'trained': expected model to be text, got 3",
    ),
    "a purifier that is a number": (
        '"gaussian"',
        '"denoised-median-smoothing"\nparams = { purifier = 3 }',
        "expected purifier to be text, got 3",
    ),
    "parameters that are a number": (
        '"gaussian"',
        '"denoised-median-smoothing"\nparams = { purifier_params = 3 }',
        "expected purifier_params to be a table of names and values, got 3",
    ),
    "table is not there": ("table.csv", "tabel.csv", "tabel.csv"),
}
del TRACK_EDITS["reflect without a range"]


@pytest.mark.parametrize("case", TRACK_EDITS)
def test_wrong_tracks(cli, tmp_path: Path, track_text: str, case: str) -> None:
    old, new, sentence = TRACK_EDITS[case]
    assert old in track_text
    path = tmp_path / SMALL
    path.write_text(track_text.replace(old, new))
    outcome = cli("run", path, "--out", tmp_path / "out")
    assert (outcome.status, sentence in outcome.err) == (2, True), outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "out").exists()


def test_a_bad_default_is_reported_once(cli, tmp_path: Path, track_text: str) -> None:
    path = tmp_path / SMALL
    path.write_text(track_text.replace("[[attacks]]", "[budget]\nstepz = 3\n[[attacks]]", 1))
    outcome = cli("run", path)
    assert outcome.status == 2
    assert [line.split(": ", 2)[2] for line in outcome.err.splitlines()] == ["budget.stepz: unknown key (got 3)."]


@pytest.mark.parametrize(
    ("entry", "sentence"),
    [
        ("eps_255 = -1", "budget: expected eps_255 to be a finite number >= 0, got -1.0."),
        ('norm = "l7"', "budget.norm: expected 'linf', 'l2', 'psnr', 'ssim', 'l0' or 'patch' (got 'l7')."),
    ],
)
def test_a_bad_value_of_the_budget_is_not_repeated_by_attacks(
    cli, tmp_path: Path, track_text: str, entry: str, sentence: str
) -> None:
    path = tmp_path / SMALL
    path.write_text(track_text.replace("[[attacks]]", f"[budget]\n{entry}\n[[attacks]]", 1))
    outcome = cli("run", path)
    assert [line.split(": ", 2)[2] for line in outcome.err.splitlines()] == [sentence]


def test_a_broken_record_is_run_again(cli, track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("run", track, "--out", out, "--attacks", "noise", "--defenses", "none")
    record = next((out / "runs").glob("*.json"))
    whole = record.read_text()
    record.write_text(whole[:50])
    (out / "runs" / "notes.json").write_text("[]")
    assert cli("run", track, "--out", out, "--attacks", "noise", "--defenses", "none").status == 0
    assert len(record.read_text()) > 1000


def test_a_board_that_cannot_be_written(cli, track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (out / "board.csv").mkdir(parents=True)
    outcome = cli("run", track, "--out", out, "--attacks", "noise", "--defenses", "none")
    assert (outcome.status, "board.csv: cannot be written" in outcome.err) == (1, True), outcome


def test_scores_that_do_not_vary(cli, tmp_path: Path, small_set: Path, track_text: str) -> None:
    table = _edit_table(small_set, tmp_path, lambda frame: frame.assign(mos="50"))
    path = tmp_path / SMALL
    text = track_text.replace(str(small_set / "table.csv"), table).replace(", mos_range = [0.0, 100.0]", "")
    path.write_text(text)
    outcome = cli("run", path, "--out", tmp_path / "out", "--attacks", "noise", "--defenses", "none")
    assert (outcome.status, "every label is 50" in outcome.err) == (2, True), outcome
    path.write_text(track_text.replace(str(small_set / "table.csv"), table))  # on a stated scale it is a measurement
    outcome = cli("run", path, "--out", tmp_path / "out", "--attacks", "noise", "--defenses", "none")
    assert outcome.status == 0, outcome
    assert pd.read_csv(tmp_path / "out" / "board.csv")["srocc_clean"].isna().all()


def test_several_problems_are_reported_at_once(cli, tmp_path: Path, track_text: str) -> None:
    path = tmp_path / SMALL
    path.write_text(track_text.replace('"ssim"', '"sism"').replace('"fgsm"', '"fgms"').replace('"gaussian"', '"x"'))
    outcome = cli("run", path, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert all(word in outcome.err for word in ("'sism'", "'fgms'", "'x'"))
    assert len(outcome.err.strip().splitlines()) == 3


def test_a_problem_names_its_line(cli, tmp_path: Path, track_text: str) -> None:
    path = tmp_path / SMALL
    path.write_text(track_text.replace("eps_255 = [1, 2]", "steps = 0"))
    line = path.read_text().splitlines().index("steps = 0") + 1
    err = cli("run", path).err
    # An error of a whole entry names the entry's header; `steps` is the second line below it.
    assert f"{SMALL}:{line - 2}" in err, err


OPTIONS = {
    "unknown track": (("run", "quikstart"), "no track 'quikstart'. Did you mean 'quickstart'"),
    "no such track file": (("run", "nope.toml"), "nope.toml: no such file. Give a .toml file or one of "),
    "no such data root": (("run", "clive-dev", "--data-root", "/nowhere/at/all"), "no such folder"),
    "limit of nothing": (("run", "quickstart", "--limit", "0"), "--limit"),
    "no workers": (("run", "quickstart", "--workers", "0"), "--workers"),
    "unknown device": (("run", "quickstart", "--device", "tpu"), "--device"),
    "a room that does not exist": (("list", "cars"), "cars"),
    "no such folder of records": (("table", "/nowhere/at/all"), "expected run records"),
    "unknown recipe": (("train", "compact-koniq"), "no recipe 'compact-koniq'. Did you mean 'compact"),
    "no such recipe file": (("train", "nope.toml"), "nope.toml: no such file. Give a .toml file or one of "),
    "submitting an empty text": (("submit-check", ""), "expected a path, got an empty text"),
    "a URL without a path": (("table", "file://"), "DIR: expected a path or a URL, got an empty text"),
    "nothing to submit": (("submit-check", "/nowhere/at/all"), "no such folder or file"),
    "unknown name to check": (("check", "defense", "jpg"), "no defense named 'jpg'. Did you mean 'jpeg'"),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_wrong_options(cli, case: str) -> None:
    arguments, sentence = OPTIONS[case]
    outcome = cli(*arguments)
    assert (outcome.status, sentence in outcome.err) == (2, True), outcome
    assert "Traceback" not in outcome.err


@pytest.mark.parametrize(
    ("option", "value", "sentence"),
    [
        ("--precision", "fp8", "Invalid value for '--precision'"),
        ("--models", ",", "expected names separated by commas"),
        ("--attacks", "pdg", "no attack named 'pdg'. Did you mean 'pgd'"),
    ],
)
def test_wrong_choices_on_a_good_track(cli, track: Path, option: str, value: str, sentence: str) -> None:
    outcome = cli("run", track, option, value, "--out", track.parent / "out")
    assert (outcome.status, sentence in outcome.err) == (2, True), outcome


def test_a_dataset_that_is_not_there_says_where_to_get_it(cli, tmp_path: Path) -> None:
    outcome = cli("run", "clive-dev", "--data-root", tmp_path, "--out", tmp_path / "out")
    assert outcome.status == 2
    assert "'clive'" in outcome.err and "obtain the dataset from http" in outcome.err


def _edit_table(small_set: Path, tmp_path: Path, edit) -> str:
    frame = edit(pd.read_csv(small_set / "table.csv", dtype=str))
    frame.to_csv(tmp_path / "table.csv", index=False)
    return str(tmp_path / "table.csv")


TABLES = {
    "no mos column": (lambda f: f.rename(columns={"mos": "score"}), "mos"),
    "mos is not a number": (lambda f: f.assign(mos="good"), "mos"),
    "mos is NaN": (lambda f: f.assign(mos="nan"), "is nan; expected a number"),
    "an image twice": (lambda f: pd.concat([f, f.iloc[:1]]), "twice"),
    "a name that leaves the folder": (
        lambda f: f.assign(image=["../../etc/passwd", *f["image"][1:]]),
        "../../etc/passwd",
    ),
    "an absolute name": (lambda f: f.assign(image=["/etc/passwd", *f["image"][1:]]), "/etc/passwd"),
    "a missing image": (lambda f: f.assign(image=["gone.png", *f["image"][1:]]), "gone.png"),
    "no rows": (lambda f: f.iloc[:0], "empty"),
}


@pytest.mark.parametrize("case", TABLES)
def test_wrong_tables(cli, tmp_path: Path, small_set: Path, track_text: str, case: str) -> None:
    edit, sentence = TABLES[case]
    table = _edit_table(small_set, tmp_path, edit)
    path = tmp_path / SMALL
    path.write_text(track_text.replace(str(small_set / "table.csv"), table))
    outcome = cli("run", path, "--out", tmp_path / "out")
    assert (outcome.status, sentence in outcome.err) == (2, True), outcome.err
    assert "Traceback" not in outcome.err


def _with_one_bad_image(tmp_path: Path, small_set: Path, track_text: str, write) -> Path:
    root = tmp_path / "set"
    (root / "images").mkdir(parents=True)
    for source in (small_set / "images").iterdir():
        (root / "images" / source.name).write_bytes(source.read_bytes())
    bad = root / pd.read_csv(small_set / "table.csv")["image"][2]
    write(bad)
    (root / "table.csv").write_bytes((small_set / "table.csv").read_bytes())
    path = tmp_path / SMALL
    path.write_text(track_text.replace(str(small_set), str(root)))
    return path


def _huge_header(path: Path) -> None:
    """A PNG whose header promises 60,000 x 60,000 pixels; decoding it would take 10 GB."""
    import struct
    import zlib

    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = b"IHDR" + header
    content = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(content + b"\0" * 64)


IMAGES = {
    "a text file": lambda path: path.write_text("not an image"),
    "a truncated image": lambda path: path.write_bytes(path.read_bytes()[:400]),
    "an empty file": lambda path: path.write_bytes(b""),
    "an enormous image": _huge_header,
    "a 16-bit image": lambda path: Image.new("I;16", (64, 64)).save(path),
}


@pytest.mark.parametrize("case", IMAGES)
def test_one_broken_image_is_counted_and_shown_and_the_others_go_on(
    cli, tmp_path: Path, small_set: Path, track_text: str, case: str
) -> None:
    path = _with_one_bad_image(tmp_path, small_set, track_text, IMAGES[case])
    outcome = cli("run", path, "--out", tmp_path / "out", "--attacks", "noise", "--defenses", "none")
    assert outcome.status == 1, outcome
    board = pd.read_csv(tmp_path / "out" / "board.csv")
    assert (board["n_images"][0], board["n_failed"][0], board["status"][0]) == (6, 1, "partial")
    assert "1 of 6 images failed" in outcome.out
    assert "Traceback" not in outcome.err + outcome.out


def test_records_of_another_version_are_not_mixed(cli, track: Path, tmp_path: Path, monkeypatch) -> None:
    from iqa_robust.harness import plan

    out = tmp_path / "out"
    assert cli("run", track, "--out", out, "--attacks", "noise").status == 0
    monkeypatch.setattr(plan, "package_version", lambda: "9.9.9")
    outcome = cli("run", track, "--out", out, "--attacks", "noise")
    assert outcome.status == 2
    assert "numbers of two versions do not belong in one board" in outcome.err


def test_an_edited_record_is_refused(cli, track: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    cli("run", track, "--out", out, "--attacks", "noise", "--defenses", "none")
    record = next((out / "runs").glob("*.json"))
    record.write_text(record.read_text().replace('"seed": 0', '"seed": 1'))
    outcome = cli("table", out)
    assert (outcome.status, "the file was edited or renamed" in outcome.err) == (2, True)
