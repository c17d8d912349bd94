"""What a leaderboard submission must satisfy, checked on its files; nothing is run and no dataset is needed."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from iqa_robust.errors import IqaRobustError, RecordError
from iqa_robust.records import (
    EXPLANATION_TABLES,
    FLAG_NAMES,
    IMAGE_COLUMNS,
    IMAGE_STATES,
    RunRecord,
    RunSpec,
    explanation_files,
    read_record,
)
from iqa_robust.tables.board import board
from iqa_robust.tables.board_file import check_board_file, same_board
from iqa_robust.tables.cells import defense_title, limited
from iqa_robust.tables.write import BOARD_DIGITS, csv_text

BUDGET_TOLERANCE_255 = 1e-3
"""Gray levels by which a measured distance may exceed its budget: distances are stored in float32."""


def check_submission(path: Path) -> list[str]:
    """Every problem of a submission, one sentence each; empty where there is none.

    Args:
        path: the folder of a run (with `runs/`, or with the records themselves), or a board as CSV.

    A folder must hold whole, unedited records of one track and one version of the package, all images of the track's
    set, no failed cell, the same attack cells for every system, an adaptive cell beside the oblivious ones, the
    control, images inside the budget, finite scores wherever an image is not marked as failed, and, if there is a
    `board.csv`, the one that its records give. A file is checked column by column and cell by cell. That the spec is
    that of the track, and that flags are complete, can only be seen by running the track again.
    """
    if path.is_file():
        return check_board_file(path)
    if not path.is_dir():
        return [f"{path}: no such file or folder; give the --out folder of a run, or a board CSV."]
    runs = path / "runs" if (path / "runs").is_dir() else path
    records, problems = _read(runs)
    if not records:
        return problems or [f"{path}: expected run records (runs/<digest>.json), found none."]
    for record in records:
        problems += [f"{_name(record)}: {problem}" for problem in _check_record(record)]
    problems += _check_together(records)
    problems += _check_grid(records)
    problems += _check_board(path, records, whole=len(records) == len(list(_documents(runs))))
    return problems


def _documents(runs: Path) -> Iterable[Path]:
    return sorted(file for file in runs.rglob("*.json") if not file.name.startswith("."))


def _read(runs: Path) -> tuple[list[RunRecord], list[str]]:
    """The readable records below a folder, and what is wrong with the rest."""
    records: dict[str, RunRecord] = {}
    files: dict[str, Path] = {}
    problems = []
    for document in _documents(runs):
        try:
            record = read_record(document)
        except RecordError as error:
            problems.append(str(error))
            continue
        if malformed := _malformed(record):
            problems.append(f"{document}: {malformed} is not what a run writes.")
            continue
        if record.digest in records:
            problems.append(f"{document}: the same record is there twice.")
        records[record.digest], files[record.digest] = record, document
    explanations = {
        path
        for r in records.values()
        if r.explanations is not None
        for path in explanation_files(files[r.digest]).values()
    }
    for images in sorted(runs.rglob("*.parquet")):
        if images.parent.suffix == ".parts" or images in explanations:
            continue
        document = images.with_name(f"{images.name.partition('.')[0]}.json")
        if not document.is_file():
            problems.append(f"{images}: images without their record; finish the run or leave the file out.")
        elif images != document.with_suffix(".parquet") and document.stem in records:
            problems.append(f"{images}: its record names no such file; leave it out.")
    for parts in sorted(runs.rglob("*.parts")):
        problems.append(f"{parts}: a cell that is not finished; give the same run command again.")
    return list(records.values()), problems


def _malformed(record: RunRecord) -> str:
    """The part of a record that another hand wrote with the wrong type; empty where there is none."""
    spec = record.spec
    components = [spec.dataset, spec.model, spec.attack, *([] if spec.defense is None else [spec.defense])]
    texts = [spec.track, spec.manifest, spec.package_version, record.reason, *record.flags]
    texts += [part for c in components for part in (c.name, c.label, c.distribution, c.version)]
    numbers = [name for name, kind in IMAGE_COLUMNS.items() if kind in ("float64", "int64")]
    checks = {
        "a text": all(isinstance(text, str) for text in texts),
        "a component's params": all(isinstance(c.params, Mapping) for c in components),
        "the seed": isinstance(spec.seed, int),
        "a column of the images": all(record.images[name].dtype.kind in "fi" for name in numbers),
    }
    return ", ".join(what for what, right in checks.items() if not right)


def _check_record(record: RunRecord) -> list[str]:
    spec, images, problems = record.spec, record.images, []
    if record.status == "failed":
        problems.append(f"the cell failed ({record.reason}).")
    if limited(record):
        problems.append(f"run with --limit {spec.dataset.params.get('limit')}; a submission takes all images.")
    if record.environment.get("package_version") != spec.package_version:
        problems.append("its environment names another version of iqa_robust than its spec.")
    unknown = sorted(set(record.flags) - set(FLAG_NAMES))
    if unknown:
        problems.append(f"unknown flags: {', '.join(unknown)}.")
    if images.empty:
        problems.append("holds no image.")
    if images["image_id"].duplicated().any():
        problems.append("an image is there twice.")
    good = images[images["status"] == "ok"]
    bad = images[images["status"] != "ok"]
    if not good.empty and record.status == "ok" and not bad.empty:
        problems.append(f"{len(bad)} images failed, but its status is ok.")
    if (bad["reason"].fillna("") == "").any():
        problems.append("an image failed without a reason.")
    scores = ["mos", "score_clean", "score_adv", "linf", "l2"] + ([] if spec.defense is None else ["score_def_clean"])
    for column in scores:
        missing = ~np.isfinite(good[column].to_numpy(dtype=float))
        if missing.any():
            problems.append(
                f"{column} of {int(missing.sum())} images is not finite, and they are not marked as failed."
            )
    return problems + _check_budget(spec, good) + _check_explanations(record)


def _check_budget(spec: RunSpec, images: pd.DataFrame) -> list[str]:
    problems = []
    norm = spec.budget.norm
    measured = images[norm].to_numpy(dtype=float)
    distances = 255 * {"psnr": 10 ** (-measured / 20), "ssim": 1 - measured}.get(norm, measured)
    outside = distances > spec.budget.eps_255 + BUDGET_TOLERANCE_255
    if outside.any():
        problems.append(
            f"{int(outside.sum())} images lie outside the budget: {norm} up to"
            f" {np.nanmax(distances):.6g}/255, allowed {spec.budget.eps_255:g}/255."
        )
    spent = images["queries"].to_numpy(dtype=float)
    if spec.budget.queries is not None and (spent > spec.budget.queries).any():
        problems.append(f"spent up to {spent.max():.0f} queries an image, allowed {spec.budget.queries}.")
    return problems


def _check_explanations(record: RunRecord) -> list[str]:
    """Explanations, where there are any, are of the record's images, clean and attacked."""
    found = record.explanations
    if found is None:
        return []
    known = set(record.images["image_id"])
    problems = []
    for name in EXPLANATION_TABLES:
        table = getattr(found, name)
        if not set(table["image_id"]) <= known:
            problems.append(f"its {name} are of images that the record does not hold.")
        states = table.groupby("image_id")["state"].nunique()
        if (states != len(IMAGE_STATES)).any():
            problems.append(f"its {name} lack an image clean or attacked.")
    return problems


def _check_together(records: Sequence[RunRecord]) -> list[str]:
    """What all records of a submission must share."""
    problems = []
    for what, values in {
        "track": [record.spec.track or "(none: made by evaluate)" for record in records],
        "version of iqa_robust": [record.spec.package_version for record in records],
        "dataset": [f"{record.spec.dataset.title} {record.spec.manifest[:12]}" for record in records],
    }.items():
        if len(set(values)) > 1:
            problems.append(f"expected one {what}, got {', '.join(sorted(set(values)))}.")
    if not any(record.spec.track for record in records):
        problems.append("the records belong to no track; make them with `iqa-robust run`.")
    ids = [tuple(record.images["image_id"]) for record in records]
    odd = [_name(record) for record, own in zip(records, ids, strict=True) if own != ids[0]]
    if odd:
        problems.append(f"expected the same images in every record; {odd[0]} has others than {_name(records[0])}.")
    return problems


def _check_grid(records: Sequence[RunRecord]) -> list[str]:
    """Every system has met every attack; every defense an attacker who knows it; every system the control."""
    problems = []
    systems: dict[str, dict[str, set[str]]] = {}
    titles: dict[str, str] = {}
    white: set[str] = set()
    controlled: set[str] = set()
    for record in records:
        spec = record.spec
        system = _canonical(spec.model, spec.weights_sha256, spec.defense)
        attack = _canonical(spec.attack, spec.goal, spec.target, spec.budget, spec.seed)
        titles[system] = f"{spec.model.title} with defense {defense_title(spec)}"
        titles[attack] = f"{_attack_title(spec)}, seed {spec.seed}"
        systems.setdefault(system, {}).setdefault(attack, set()).add(spec.knowledge)
        if record.facts.get("access") == "white":
            white.add(attack)
        if record.facts.get("control"):
            controlled.add(system)
    attacks = list(dict.fromkeys(attack for met in systems.values() for attack in met))
    for system, met in systems.items():
        for attack in attacks:
            if attack not in met:
                problems.append(f"{titles[system]}: has no cell for {titles[attack]}, which others have.")
            elif attack in white and "adaptive" not in met[attack]:
                problems.append(f"{titles[system]}: has no adaptive cell for {titles[attack]}.")
            elif met[attack] == {"oblivious"}:
                problems.append(f"{titles[system]}: has only an oblivious cell for {titles[attack]}.")
        if system not in controlled:
            problems.append(f"{titles[system]}: has no cell of the control, random noise of the same size.")
    return problems


def _check_board(folder: Path, records: Sequence[RunRecord], *, whole: bool) -> list[str]:
    file = folder / "board.csv"
    if not file.is_file():
        return []
    if not whole:
        return [f"{file}: not compared, since not every record can be read."]
    try:
        rebuilt = csv_text(board(records), BOARD_DIGITS)
    except (IqaRobustError, TypeError, ValueError) as error:
        return [f"{file}: cannot be rebuilt from the records ({error})"]
    if not same_board(file.read_bytes().decode(errors="replace"), rebuilt):
        return [f"{file}: not the board of these records; write it with `iqa-robust table {folder} --csv {file}`."]
    return []


def _attack_title(spec: RunSpec) -> str:
    return f"{spec.attack.title} {spec.budget.size} {spec.goal}"


def _name(record: RunRecord) -> str:
    spec = record.spec
    return f"{record.digest} ({spec.model.title}, {defense_title(spec)}, {_attack_title(spec)}, {spec.knowledge})"


def _canonical(*parts: object) -> str:
    """One text for equal parts of a spec."""
    plain = [
        dataclasses.asdict(part) if dataclasses.is_dataclass(part) and not isinstance(part, type) else part
        for part in parts
    ]
    return json.dumps(plain, sort_keys=True, default=str)
