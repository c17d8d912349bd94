from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from drawn import explanations

from iqa_robust.records import Budget, Component, RunRecord, write_images, write_record
from iqa_robust.tables.board import BOARD_COLUMNS, board
from iqa_robust.tables.board_file import same_board
from iqa_robust.tables.submission import check_submission
from iqa_robust.tables.write import csv_text, write_board


@pytest.fixture
def records(make_grid: Callable) -> list[RunRecord]:
    return make_grid(models=("alpha",), n=12)


def stored(folder: Path, records: list[RunRecord]) -> Path:
    for record in records:
        write_record(folder / "runs", record)
    return folder


def only(problems: list[str], *parts: str) -> None:
    """There is one problem, and it says all of `parts`."""
    assert len(problems) == 1, problems
    assert all(part in problems[0] for part in parts), problems[0]


def test_a_whole_run_is_ready(records: list[RunRecord], tmp_path: Path) -> None:
    write_board(board(records), tmp_path / "board.csv")
    assert check_submission(stored(tmp_path, records)) == []
    assert check_submission(tmp_path / "runs") == []
    assert check_submission(tmp_path / "board.csv") == []


def test_several_seeds_and_failed_images_are_ready(
    make_grid: Callable, make_record: Callable, with_failed_images: Callable, tmp_path: Path
) -> None:
    both = [*make_grid(models=("alpha",), n=12), *make_grid(models=("alpha",), n=12, seed=1)]
    hurt = [
        dataclasses.replace(record, images=with_failed_images(record.images, [3]), status="partial", reason="one")
        for record in both
    ]
    assert check_submission(stored(tmp_path, hurt)) == []


def test_nothing_there(tmp_path: Path) -> None:
    only(check_submission(tmp_path), "found none")
    only(check_submission(tmp_path / "nowhere"), "no such file or folder")


def test_an_edited_spec_is_found(records: list[RunRecord], tmp_path: Path) -> None:
    stored(tmp_path, records)
    document = tmp_path / "runs" / f"{records[0].digest}.json"
    document.write_text(document.read_text().replace('"eps_255": 4', '"eps_255": 2'))
    problems = check_submission(tmp_path)
    assert any("digest is not that of its spec" in problem for problem in problems)


def test_edited_images_are_found(records: list[RunRecord], tmp_path: Path) -> None:
    stored(tmp_path, records)
    write_images(tmp_path / "runs" / f"{records[0].digest}.parquet", records[1].images.assign(mos=1.0))
    assert any("not the images this record was written with" in problem for problem in check_submission(tmp_path))


def test_leftovers_are_found(records: list[RunRecord], tmp_path: Path) -> None:
    stored(tmp_path, records)
    (tmp_path / "runs" / f"{'0' * 16}.parts").mkdir()
    write_images(tmp_path / "runs" / f"{'1' * 16}.parquet", records[0].images)
    (tmp_path / "runs" / "notes.json").write_text("{}")
    problems = check_submission(tmp_path)
    assert len(problems) == 3
    for part in ("not a readable record", "images without their record", "not finished"):
        assert any(part in problem for problem in problems), part


def test_a_record_of_wrong_types_is_refused(records: list[RunRecord], tmp_path: Path) -> None:
    stored(tmp_path, records)
    document = tmp_path / "runs" / f"{records[0].digest}.json"
    content = json.loads(document.read_text())
    document.write_text(json.dumps({**content, "environment": [1, 2]}))
    assert any("expected `environment` to be an object, got [1, 2]" in line for line in check_submission(tmp_path))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"status": "failed", "reason": "it broke"}, ("the cell failed", "it broke")),
        ({"flags": ("looks-fine",)}, ("unknown flags", "looks-fine")),
        ({"environment": {"package_version": "9.9"}}, ("another version",)),
    ],
)
def test_a_bad_record_is_named(records: list[RunRecord], tmp_path: Path, fields: dict, said: tuple[str, ...]) -> None:
    records[0] = dataclasses.replace(records[0], **fields)
    only(check_submission(stored(tmp_path, records)), records[0].digest, *said)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("linf", 4.01 / 255, "outside the budget"),
        ("score_adv", math.nan, "score_adv of 1 images is not finite"),
        ("score_clean", math.inf, "score_clean of 1 images is not finite"),
        ("linf", math.nan, "linf of 1 images is not finite"),
        ("image_id", "image-000.png", "an image is there twice"),
    ],
)
def test_a_bad_image_is_found(records: list[RunRecord], tmp_path: Path, column: str, value: object, said: str) -> None:
    images = records[0].images.copy()
    images.loc[5, column] = value
    records[0] = dataclasses.replace(records[0], images=images)
    assert any(
        said in problem and records[0].digest in problem for problem in check_submission(stored(tmp_path, records))
    )


def test_l2_and_queries_are_held_to_their_budget(make_record: Callable, tmp_path: Path) -> None:
    budget = Budget(norm="l2", eps_255=400, queries=10)
    fine = [make_record(n=12, attack=name, budget=budget) for name in ("noise", "iterated")]
    assert check_submission(stored(tmp_path / "fine", fine)) == []
    far = fine[0].images.assign(l2=400.1 / 255)
    many = fine[1].images.assign(queries=11)
    bad = [dataclasses.replace(record, images=images) for record, images in zip(fine, (far, many), strict=True)]
    problems = check_submission(stored(tmp_path / "bad", bad))
    assert len(problems) == 2
    assert any("l2 up to 400.1/255" in problem for problem in problems)
    assert any("11 queries" in problem for problem in problems)


def test_float32_distances_are_not_held_against_anybody(records: list[RunRecord], tmp_path: Path) -> None:
    exact = float(np.float32(4 / 255) + np.float32(1e-8))
    records[0] = dataclasses.replace(records[0], images=records[0].images.assign(linf=exact))
    assert check_submission(stored(tmp_path, records)) == []


def test_a_limit_is_refused(make_grid: Callable, tmp_path: Path) -> None:
    dataset = Component(name="some-set", params={"split": "test", "limit": 12})
    grid = make_grid(models=("alpha",), defenses=(None,), n=12)
    limited = [dataclasses.replace(r, spec=dataclasses.replace(r.spec, dataset=dataset)) for r in grid]
    problems = check_submission(stored(tmp_path, limited))
    assert len(problems) == len(limited)
    assert all("--limit 12" in problem for problem in problems)


def test_a_limit_that_the_track_itself_states_is_fine(make_grid: Callable, tmp_path: Path) -> None:
    dataset = Component(name="some-set", params={"split": "test", "limit": 12})
    grid = make_grid(models=("alpha",), defenses=(None,), n=12, dataset=dataset, facts={"limited": False})
    assert check_submission(stored(tmp_path, grid)) == []


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("track", "other-v1", "expected one track"),
        ("manifest", "ef" * 32, "expected one dataset"),
        ("package_version", "0.2.0", "expected one version"),
    ],
)
def test_records_must_belong_together(make_grid: Callable, tmp_path: Path, field: str, value: str, said: str) -> None:
    grid = make_grid(models=("alpha",), defenses=(None,), n=12)
    grid[0] = dataclasses.replace(grid[0], spec=dataclasses.replace(grid[0].spec, **{field: value}))
    if field == "package_version":
        grid[0] = dataclasses.replace(grid[0], environment={**grid[0].environment, "package_version": value})
    only(check_submission(stored(tmp_path, grid)), said)


def test_records_without_a_track_are_refused(make_record: Callable, tmp_path: Path) -> None:
    loose = [make_record(n=12, attack=name, track="") for name in ("noise", "iterated")]
    only(check_submission(stored(tmp_path, loose)), "no track")


def test_records_on_other_images_are_found(records: list[RunRecord], tmp_path: Path) -> None:
    odd = max(records, key=lambda record: record.digest)  # read last, so that the others are the rule
    changed = [dataclasses.replace(r, images=r.images.iloc[:-1]) if r is odd else r for r in records]
    only(check_submission(stored(tmp_path, changed)), "the same images", odd.digest)


def test_a_missing_cell_is_found(make_grid: Callable, tmp_path: Path) -> None:
    grid = make_grid(models=("alpha", "beta"), defenses=(None,), attacks=("noise", "one-step", "iterated"), n=12)
    kept = [r for r in grid if (r.spec.model.name, r.spec.attack.name) != ("beta", "one-step")]
    only(check_submission(stored(tmp_path, kept)), "beta", "one-step", "which others have")


def test_a_missing_adaptive_cell_is_found(records: list[RunRecord], tmp_path: Path) -> None:
    kept = [r for r in records if r.spec.defense is None or r.spec.knowledge != "adaptive"]
    only(check_submission(stored(tmp_path, kept)), "alpha with defense blur", "no adaptive cell", "iterated")


def test_a_missing_control_is_found(records: list[RunRecord], tmp_path: Path) -> None:
    kept = [r for r in records if not r.facts["control"]]
    problems = check_submission(stored(tmp_path, kept))
    assert len(problems) == 2
    assert all("control" in problem for problem in problems)


def test_an_edited_board_is_found(records: list[RunRecord], tmp_path: Path) -> None:
    table = board(records)
    table.loc[0, "srocc_adv"] = 0.99
    write_board(table, tmp_path / "board.csv")
    only(check_submission(stored(tmp_path, records)), "not the board of these records")


def test_the_last_digits_of_a_fitted_column_differ_between_processors() -> None:
    text = "rank,srocc_adv,plcc_adv\n1,0.5,0.00675619\n2,0.25,\n"
    assert same_board(text, text)
    assert same_board(text, text.replace("0.00675619", "0.0067561"))
    assert not same_board(text, text.replace("0.00675619", "0.006777"))
    assert not same_board(text, text.replace("0.00675619", ""))
    assert not same_board(text, text.replace("0.00675619", "=1"))
    assert not same_board(text, text.replace("0.5", "0.500001"))
    assert not same_board(text, text + "3,0,0\n")
    assert not same_board(text, text.replace("2,0.25,", "2,0.25"))
    assert not same_board("", text)


# A board as a file


@pytest.fixture
def lines(records: list[RunRecord], make_record: Callable) -> list[str]:
    failed = make_record(model="gamma", status="failed", reason="it broke")
    return csv_text(board([*records, failed]), 6).splitlines()


def checked(tmp_path: Path, lines: list[str]) -> list[str]:
    file = tmp_path / "board.csv"
    file.write_text("\n".join(lines) + "\n")
    return check_submission(file)


def edited(line: str, **changes: str) -> str:
    cells = dict(zip(BOARD_COLUMNS, line.split(","), strict=True))
    return ",".join({**cells, **changes}.values())


def test_a_board_file_is_ready(tmp_path: Path, lines: list[str]) -> None:
    assert checked(tmp_path, lines) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"srocc_adv": "91%"}, "no unit"),
        ({"srocc_adv": "nan"}, "or an empty cell"),
        ({"srocc_adv": "inf"}, "or an empty cell"),
        ({"srocc_adv": "0.5 [0.4; 0.6]"}, "one number"),
        ({"srocc_adv": "1.2"}, "from -1 to 1"),
        ({"krocc_clean": "-1.5"}, "from -1 to 1"),
        ({"srocc_adv_lo": "0.9", "srocc_adv_hi": "0.1"}, "is above"),
        ({"shift_abs_mean": "-0.1"}, "from 0"),
        ({"seconds": "1e999"}, "from 0"),
        ({"rank": "1.5"}, "whole number"),
        ({"rank": "0"}, "from 1"),
        ({"n_images": "12.5"}, "whole number"),
        ({"n_images": ""}, "empty cell"),
        ({"n_failed": "13", "status": "partial"}, "above n_images"),
        ({"n_failed": "2"}, "the status is ok"),
        ({"status": "fine"}, "ok, partial, failed"),
        ({"status": "failed"}, "undefined is an empty cell"),
        ({"norm": "l1"}, "linf, l2"),
        ({"goal": "sideways"}, "up, down"),
        ({"knowledge": "psychic"}, "oblivious, adaptive"),
        ({"flags": "zero-gradient;looks-fine"}, "looks-fine"),
        ({"run": "abc"}, "16 hexadecimal"),
        ({"model": ""}, "empty cell"),
        ({"model": "=HYPERLINK(1)"}, "formula"),
        ({"plugin": "a\tb"}, "printed"),
        ({"linf_max_255": "5"}, "outside the budget"),
        ({"track": "other-v1"}, "one track"),
    ],
)
def test_a_bad_cell_is_found(tmp_path: Path, lines: list[str], changes: dict[str, str], said: str) -> None:
    lines[1] = edited(lines[1], **changes)
    only(checked(tmp_path, lines), said)


def test_wrong_columns_and_rows_are_found(tmp_path: Path, lines: list[str]) -> None:
    only(checked(tmp_path, [lines[0].replace("rank", "place"), *lines[1:]]), "expected the columns")
    only(checked(tmp_path, lines[:1]), "no row")
    only(checked(tmp_path, [*lines, lines[1] + ",1"]), "cells")
    only(checked(tmp_path, [*lines, lines[1]]), "proves line 2 already")


def test_files_that_are_no_board(tmp_path: Path) -> None:
    file = tmp_path / "board.csv"
    file.write_bytes(b"\xff\xfe\x00")
    only(check_submission(file), "UTF-8")
    file.write_bytes(b"")
    only(check_submission(file), "expected the columns")
    file.write_text('"a' + "\n")
    only(check_submission(file), "not a CSV table")


def test_explanations_belong_to_the_record(records: list[RunRecord], tmp_path: Path) -> None:
    values = {"clean": [[1.0, 2.0]] * 2, "attacked": [[2.0, 1.0]] * 2}
    ids = tuple(records[0].images["image_id"][:2])
    good = dataclasses.replace(records[0], explanations=explanations(values, ids=ids))
    assert check_submission(stored(tmp_path / "good", [good, *records[1:]])) == []

    foreign = dataclasses.replace(records[0], explanations=explanations(values, ids=(ids[0], "x")))
    problems = check_submission(stored(tmp_path / "foreign", [foreign, *records[1:]]))
    assert [problem.partition("): ")[2] for problem in problems] == [
        f"its {name} are of images that the record does not hold." for name in ("pictures", "channels", "maps")
    ]

    half = dataclasses.replace(records[0], explanations=explanations({"clean": values["clean"]}, ids=ids))
    problems = check_submission(stored(tmp_path / "half", [half, *records[1:]]))
    assert len(problems) == 3 and all("lack an image clean or attacked" in problem for problem in problems)


def test_stray_explanations_are_found(records: list[RunRecord], tmp_path: Path) -> None:
    stored(tmp_path, records)
    (tmp_path / "runs" / f"{records[0].digest}.maps.parquet").write_bytes(b"")
    only(check_submission(tmp_path), ".maps.parquet", "its record names no such file")
    (tmp_path / "runs" / f"{records[0].digest}.maps.parquet").rename(tmp_path / "runs" / f"{'1' * 16}.maps.parquet")
    only(check_submission(tmp_path), "images without their record")
