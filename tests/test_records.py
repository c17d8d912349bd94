"""Budgets, digests, and records on disk."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from drawn import explanations, jpeg, png
from hypothesis import given
from hypothesis import strategies as st

from iqa_robust.errors import ContractError, RecordError
from iqa_robust.records import (
    EXPLANATION_TABLES,
    IMAGE_COLUMNS,
    Budget,
    Component,
    RunRecord,
    RunSpec,
    explanation_files,
    read_record,
    read_records,
    read_spec,
    write_atomically,
    write_record,
)
from iqa_robust.records.parquet import to_parquet

SPEC = RunSpec(
    track="t-v1",
    dataset=Component(name="photos", params={"split": "test", "limit": None}),
    manifest="0" * 64,
    model=Component(name="compact", params={"weights": "photos"}, label="c"),
    weights_sha256="ab",
    score_range=(0.0, 100.0),
    defense=Component(name="jpeg", params={"quality": 75}),
    attack=Component(name="pgd", params={"restarts": 1}),
    goal="away",
    target=None,
    budget=Budget(eps_255=2),
    knowledge="adaptive",
    seed=0,
    package_version="0.1.0",
)


def _record(spec: RunSpec = SPEC) -> RunRecord:
    row = {
        "image_id": "a",
        "reference_id": None,
        "mos": 1.5,
        "score_clean": 0.1,
        "score_adv": math.nan,
        "score_def_clean": 0.2,
        "linf": 2 / 255,
        "l2": 0.5,
        "l0": 0.25,
        "patch": 0.5,
        "psnr": math.inf,
        "ssim": 1.0,
        "lpips": math.nan,
        "dists": math.nan,
        "queries": 3,
        "gradients": 2,
        "zero_gradient": True,
        "target": math.nan,
        "curve_queries": [1, 3],
        "curve_scores": [0.15, 0.25],
        "status": "failed",
        "reason": "score is not finite",
    }
    return RunRecord(
        spec=spec,
        status="partial",
        reason="why",
        facts={"higher_is_better": True},
        probes={"repeat_difference": math.nan},
        flags=("not-finite",),
        seconds=1.5,
        peak_memory_mb=10.0,
        images=pd.DataFrame([row], columns=list(IMAGE_COLUMNS)),
    )


def test_a_record_reads_back_as_it_was_written(tmp_path: Path) -> None:
    written = _record()
    path = write_record(tmp_path, written)
    assert path.name == f"{SPEC.digest}.json"
    found = read_record(path)
    assert found.spec == SPEC
    absent = ["reference_id"]  # None here, the missing value of the reader's pandas there
    assert found.images[absent].isna().equals(written.images[absent].isna())
    pd.testing.assert_frame_equal(
        found.images.drop(columns=absent), written.images.drop(columns=absent), check_dtype=False
    )
    assert math.isnan(found.probes["repeat_difference"])
    assert (found.flags, found.status, found.reason) == (("not-finite",), "partial", "why")


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    first, second = write_record(tmp_path / "a", _record()), write_record(tmp_path / "b", _record())
    assert first.read_bytes() == second.read_bytes()
    assert first.with_suffix(".parquet").read_bytes() == second.with_suffix(".parquet").read_bytes()


def test_the_digest_ignores_the_order_of_keys_and_the_kind_of_number() -> None:
    turned = dict(reversed(list(SPEC.to_dict().items())))
    assert RunSpec.from_dict(turned).digest == SPEC.digest
    assert dataclasses.replace(SPEC, budget=Budget(eps_255=2.0)).digest == SPEC.digest


@pytest.mark.parametrize("field", [f.name for f in dataclasses.fields(RunSpec)])
def test_the_digest_depends_on_every_field(field: str) -> None:
    other = {
        "track": "u-v1",
        "dataset": Component(name="photos", params={"split": "train", "limit": None}),
        "manifest": "1" * 64,
        "model": Component(name="compact", params={"weights": "x"}, label="c"),
        "weights_sha256": "cd",
        "score_range": None,
        "defense": None,
        "attack": Component(name="pgd", params={"restarts": 2}),
        "goal": "up",
        "target": 3.0,
        "budget": Budget(eps_255=2, steps=11),
        "knowledge": "oblivious",
        "seed": 1,
        "package_version": "0.2.0",
    }
    assert dataclasses.replace(SPEC, **{field: other[field]}).digest != SPEC.digest


@given(st.floats(0, 255), st.integers(1, 1000), st.one_of(st.none(), st.integers(1, 10**6)))
def test_any_possible_budget_survives_json(eps: float, steps: int, queries: int | None) -> None:
    spec = dataclasses.replace(SPEC, budget=Budget(eps_255=eps, steps=steps, queries=queries))
    assert RunSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        ({"norm": "l7"}, "budget: expected norm to be one of linf, l2, psnr, ssim, l0, patch, got 'l7'."),
        ({"eps_255": -1}, "budget: expected eps_255 to be a finite number >= 0, got -1."),
        ({"eps_255": math.nan}, "budget: expected eps_255 to be a finite number >= 0, got nan."),
        ({"eps_255": True}, "budget: expected eps_255 to be a finite number >= 0, got True."),
        ({"eps_255": "4"}, "budget: expected eps_255 to be a finite number >= 0, got '4'."),
        ({"eps_255": 300}, "budget: expected eps_255 of at most 255 gray levels, got 300."),
        ({"steps": 0}, "budget: expected steps to be a whole number >= 1, got 0."),
        ({"queries": 1.5}, "budget: expected queries to be a whole number >= 1, got 1.5."),
        ({"eot": True}, "budget: expected eot to be a whole number >= 1, got True."),
    ],
)
def test_impossible_budgets(params: dict, sentence: str) -> None:
    with pytest.raises(ContractError) as caught:
        Budget(**params)
    assert str(caught.value) == sentence


def test_scalars_of_numpy_become_plain_numbers() -> None:
    budget = Budget(eps_255=np.float32(2.5), steps=np.int64(7), queries=np.int32(9), eot=np.uint8(3))  # type: ignore[arg-type]
    assert budget == Budget(eps_255=2.5, steps=7, queries=9, eot=3)
    assert [type(value) for value in (budget.eps_255, budget.steps, budget.queries, budget.eot)] == [
        float,
        int,
        int,
        int,
    ]
    assert type(Budget(eps_255=np.int64(4)).eps_255) is int  # type: ignore[arg-type]


def test_edited_files_are_noticed(tmp_path: Path) -> None:
    path = write_record(tmp_path, _record())
    document = json.loads(path.read_text())
    document["spec"]["seed"] = 5
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=r"its name or digest is not that of its spec"):
        read_record(path)

    path = write_record(tmp_path, _record())
    parquet = path.with_suffix(".parquet")
    parquet.write_bytes(parquet.read_bytes() + b"x")
    with pytest.raises(RecordError, match=r"not the images this record was written with"):
        read_record(path)

    path.write_text("{")
    with pytest.raises(RecordError, match=r"not a readable record"):
        read_record(path)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("{", "it is not JSON"),
        ("{}", "expected a JSON object with the key `schema`"),
        ("[]", "expected a JSON object with the key `schema`"),
        ({"n_images": "x"}, "expected `n_images` to be a whole number, got 'x'"),
        ({"facts": None}, "expected `facts` to be an object, got None"),
        ({"flags": [1, None]}, "expected `flags` to be texts, got [1, None]"),
        ({"status": "fine"}, "expected `status` to be one of ok, partial, failed, got 'fine'"),
        ({"spec": {**SPEC.to_dict(), "score_range": [None, None]}}, "spec: its fields are not those of schema 2"),
        ({"spec": {}}, "spec: its fields are not those of schema 2"),
        (
            {"spec": {**SPEC.to_dict(), "goal": "x"}},
            "spec: goal: expected one of up, down, away, reflect, target, got 'x'",
        ),
    ],
)
def test_a_broken_document_says_what_to_do(tmp_path: Path, text: str | dict, why: str) -> None:
    path = write_record(tmp_path, _record())
    path.write_text(text if isinstance(text, str) else json.dumps({**json.loads(path.read_text()), **text}))
    for read in (read_record, read_spec):
        with pytest.raises(RecordError) as caught:
            read(path)
        assert str(caught.value) == (
            f"{path}: not a readable record: {why}; delete both files (.json and .parquet) and run again."
        )


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        ({"n_images": 500}, "`n_images` is 500, but {parquet} has 1"),
        ({"n_failed": 0}, "`n_failed` is 0, but {parquet} has 1"),
        ({"status": "ok"}, "`status` is 'ok', but 1 images failed"),
    ],
)
def test_counts_and_status_are_those_of_the_images(tmp_path: Path, edit: dict, why: str) -> None:
    path = write_record(tmp_path, _record())
    path.write_text(json.dumps({**json.loads(path.read_text()), **edit}))
    for columns in (None, ()):
        with pytest.raises(RecordError) as caught:
            read_record(path, columns)
        assert str(caught.value).startswith(f"{path}: {why.format(parquet=path.with_suffix('.parquet').name)}; delete")


@pytest.mark.parametrize(
    ("edit", "why"),
    [
        (lambda images: images.assign(status=1), "expected the column status to hold string, got int64"),
        (lambda images: images.assign(mos="x"), "expected the column mos to hold double, got string"),
        (lambda images: images[:0], "expected a row per image, found none"),
    ],
)
def test_images_of_other_types_are_refused(
    tmp_path: Path, edit: Callable[[pd.DataFrame], pd.DataFrame], why: str
) -> None:
    path = write_record(tmp_path, _record())
    parquet = path.with_suffix(".parquet")
    changed = edit(pd.read_parquet(parquet))
    kinds = {name: {"status": "int64", "mos": "string"}.get(name, kind) for name, kind in IMAGE_COLUMNS.items()}
    wanted = {name: kinds[name] if len(changed) and name in why else kind for name, kind in IMAGE_COLUMNS.items()}
    parquet.write_bytes(to_parquet(changed, wanted))
    document = json.loads(path.read_text())
    document["images_sha256"] = hashlib.sha256(parquet.read_bytes()).hexdigest()
    path.write_text(json.dumps(document))
    with pytest.raises(RecordError, match=re.escape(f"{parquet}: {why}; delete both files")):
        read_record(path)


def test_a_record_without_its_images(tmp_path: Path) -> None:
    path = write_record(tmp_path, _record())
    path.with_suffix(".parquet").unlink()
    with pytest.raises(RecordError, match=r"\.parquet: not a readable record: No such file or directory; delete both"):
        read_record(path)


def test_a_record_of_another_schema(tmp_path: Path) -> None:
    path = write_record(tmp_path, _record())
    path.write_text('{"schema": 1}')
    with pytest.raises(
        RecordError, match="expected record schema 2, got 1; read it with the version of iqa-robust that"
    ):
        read_record(path)


def test_an_empty_folder_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RecordError) as caught:
        read_records(tmp_path)
    assert str(caught.value) == (
        f"{tmp_path}: expected run records (<digest>.json), found none; give the --out folder of a run."
    )


def test_a_write_that_fails_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    target = tmp_path / "board.csv"
    target.write_bytes(b"old")
    with pytest.raises(TypeError):
        write_atomically(target, "not bytes")  # type: ignore[arg-type]
    assert target.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["board.csv"]


EXPLAINED = dataclasses.replace(
    _record(), explanations=explanations({"clean": [[2.0, 1.0]], "attacked": [[1.0, 2.0]]}, ids=("a",))
)


def test_explanations_read_back_as_they_were_written(tmp_path: Path) -> None:
    path = write_record(tmp_path, EXPLAINED)
    found = read_record(path).explanations
    assert found is not None and EXPLAINED.explanations is not None
    for name in EXPLANATION_TABLES:
        written = getattr(EXPLAINED.explanations, name)
        pd.testing.assert_frame_equal(getattr(found, name), written, check_dtype=False, rtol=1e-7)  # float32
    assert read_record(path, ["mos"]).explanations is None  # a board needs none
    again = write_record(tmp_path / "again", read_record(path))
    for name, file in explanation_files(path).items():
        assert file.read_bytes() == explanation_files(again)[name].read_bytes()


def test_explanations_change_nothing_else_of_a_record(tmp_path: Path) -> None:
    plain, explained = write_record(tmp_path / "a", _record()), write_record(tmp_path / "b", EXPLAINED)
    assert [file.name for file in sorted((tmp_path / "a").iterdir())] == [plain.name, f"{plain.stem}.parquet"]
    documents = [json.loads(path.read_text()) for path in (plain, explained)]
    assert set(documents[1].pop("explanations_sha256")) == set(EXPLANATION_TABLES)
    assert documents[0] == documents[1]
    assert plain.with_suffix(".parquet").read_bytes() == explained.with_suffix(".parquet").read_bytes()


@pytest.mark.parametrize("name", EXPLANATION_TABLES)
def test_edited_and_missing_explanations_are_noticed(tmp_path: Path, name: str) -> None:
    path = write_record(tmp_path, EXPLAINED)
    file = explanation_files(path)[name]
    file.write_bytes(file.read_bytes() + b"x")
    with pytest.raises(RecordError, match=rf"{file.name} is not the file this record was written with"):
        read_record(path)
    file.unlink()
    with pytest.raises(RecordError, match="No such file"):
        read_record(path)


@pytest.mark.parametrize(
    ("table", "column", "value", "sentence"),
    [
        ("maps", "map", png([[0] * 33]), "expected maps to be gray 8-bit PNG of at most 32 pixels a side"),
        ("maps", "map", jpeg(8, 8), "expected maps to be gray"),
        ("maps", "map", b"", "expected maps to be gray"),
        ("maps", "kind", "other", "expected a kind of map to be one of causal, non-causal"),
        ("pictures", "picture", png([[0]]), "expected pictures to be JPEG"),
        ("channels", "state", "moved", "expected a state to be one of clean, attacked"),
    ],
)
def test_explanations_that_no_run_writes_are_refused(
    tmp_path: Path, table: str, column: str, value: object, sentence: str
) -> None:
    assert EXPLAINED.explanations is not None
    frame = getattr(EXPLAINED.explanations, table)
    broken = dataclasses.replace(EXPLAINED.explanations, **{table: frame.assign(**{column: [value] * len(frame)})})
    path = write_record(tmp_path, dataclasses.replace(EXPLAINED, explanations=broken))
    with pytest.raises(RecordError, match=sentence):
        read_record(path)
