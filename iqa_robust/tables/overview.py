"""The words and small tables of the report: facts, warnings, the headline, failures, provenance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from iqa_robust.records import RunRecord
from iqa_robust.tables.cells import limited, n_failed
from iqa_robust.tables.page import Line, Section

HUMAN_LABELS = "human scores"
"""The fact `labels` of a dataset whose labels people gave; any other kind is said in the banner."""


def facts(section: Section) -> list[tuple[str, str]]:
    """What was run and on what, as terms and values."""
    records = section.records
    return [
        ("Dataset", " ".join(dict.fromkeys([section.dataset, *_dataset_details(section)]))),
        *((("Labels", "; ".join(section.facts("labels"))),) if section.facts("labels") else ()),
        ("Images", f"{section.n_images} per cell"),
        ("Models", _named(section.models)),
        ("Defenses", _named(section.defenses)),
        ("Attacks", _named(section.attacks)),
        ("Cells", str(len(section.lines)) + ("" if len(records) == len(section.lines) else f", {len(records)} runs")),
        ("iqa_robust", _listed(_environment(records, "package_version"))),
        ("torch", _listed(_environment(records, "torch"))),
        ("Device", _listed(_environment(records, "device_name"))),
        ("Precision", _listed(_environment(records, "precision"))),
    ]


def warnings(section: Section) -> list[str]:
    """What a reader must know before reading a number."""
    found = [f"The labels are {labels}." for labels in section.facts("labels") if labels != HUMAN_LABELS]
    missing = max(int(record.facts.get("n_missing") or 0) for record in section.records)
    if missing:
        found.append(
            f"{count(missing, 'image')} of the dataset's split {'were' if missing > 1 else 'was'} missing where"
            f" this was run: these are numbers on {section.n_images} images, not on the whole split."
        )
    if any(limited(record) for record in section.records):
        found.append(f"A sample of {section.n_images} images was run: not comparable with the whole track.")
    failed = [line for line in section.lines if line.values["status"] == "failed"]
    if failed:
        found.append(
            f"{count(len(failed), 'cell')} failed and {'have' if len(failed) > 1 else 'has'} no numbers; see Failed."
        )
    partial = [line for line in section.lines if line.values["status"] == "partial"]
    if partial:
        images = sum(n_failed(record) for line in partial for record in line.cell)
        found.append(
            f"{count(images, 'image')} failed in {count(len(partial), 'cell')} that otherwise ran;"
            " measures leave them out."
        )
    versions = sorted({record.spec.package_version for record in section.records})
    if len(versions) > 1:
        found.append(
            f"Records of several versions of iqa_robust ({', '.join(versions)}) are mixed: do not compare them."
        )
    return found


def headline(section: Section) -> list[dict[str, Any]]:
    """Per model: clean SROCC, the worst attacked one, the largest shift, and the defense that holds up best."""
    cards = []
    for model in section.models:
        lines = [line for line in section.lines if line.values["model"] == model]
        bare = [line for line in lines if line.bare]
        clean = [line.values["srocc_clean"] for line in lines if not math.isnan(line.values["srocc_clean"])]
        cards.append(
            {
                "model": model,
                "clean": clean[0] if clean else math.nan,
                "worst": worst(bare),
                "furthest": max(
                    (line for line in bare if not math.isnan(line.values["shift_abs_sd"])),
                    key=lambda line: line.values["shift_abs_sd"],
                    default=None,
                ),
                "best": _best_defense(section, lines),
            }
        )
    return cards


def worst(lines: Iterable[Line]) -> Line | None:
    """The line with the lowest attacked SROCC; None where none can be compared."""
    return min((line for line in lines if line.sound), key=lambda line: line.values["srocc_adv"], default=None)


def failures(section: Section) -> list[Line]:
    """Lines with a record that failed, or that has failed images."""
    return [line for line in section.lines if line.values["status"] != "ok"]


def reasons(line: Line) -> str:
    """Why a line is not whole."""
    return " ".join(dict.fromkeys(record.reason for record in line.cell if record.reason)) or "no reason was recorded"


def notes(section: Section) -> list[tuple[str, str]]:
    """What records say of their attack, such as that it was built anew from a description."""
    found = {
        (line.attack, str(record.facts["note"])): None
        for line in section.lines
        for record in line.cell
        if record.facts.get("note")
    }
    return list(found)


def provenance(line: Line) -> dict[str, str]:
    """Where the numbers of a line come from."""
    spec, records = line.spec, line.cell
    budget = [f"{spec.budget.steps} steps"]
    if spec.budget.queries is not None:
        budget.append(f"{spec.budget.queries} queries")
    if records[0].facts.get("deterministic") is False:
        budget.append(f"eot {spec.budget.eot}")
    return {
        "Goal": spec.goal if spec.target is None else f"{spec.goal} {spec.target:g}",
        "Budget": ", ".join(budget),
        "Seeds": _listed(str(record.spec.seed) for record in records),
        "Weights": _weights(records[0]),
        "Plugin": line.values["plugin"].replace(";", ", ") or "none",
        "iqa_robust": _listed(_environment(records, "package_version")),
        "Revision": _listed(revision[:12] for revision in _environment(records, "git_revision")),
        "torch": _listed(_environment(records, "torch")),
        "Device": _listed(_environment(records, "device_name")),
        "Precision": _listed(_environment(records, "precision")),
        "Seconds": "" if math.isnan(line.values["seconds"]) else f"{line.values['seconds']:.1f}",
    }


def count(n: int, thing: str) -> str:
    """`1 cell`, `2 cells`."""
    return f"{n} {thing}{'' if n == 1 else 's'}"


def _best_defense(section: Section, lines: list[Line]) -> tuple[str, Line] | None:
    """The defense with the highest worst case among those evaluated as widely as any other."""
    cases: dict[str, list[Line]] = {}
    for line in lines:
        if not line.bare and line.values["knowledge"] != "oblivious":
            cases.setdefault(line.values["defense"], []).append(line)
    widest = max((len(case) for case in cases.values()), default=0)
    worsts = {
        defense: worst(case)
        for defense, case in cases.items()
        if len(case) == widest and all(line.sound for line in case)
    }
    found = [(defense, line) for defense, line in worsts.items() if line is not None]
    return max(found, key=lambda item: item[1].values["srocc_adv"], default=None)


def _dataset_details(section: Section) -> list[str]:
    params = section.lines[0].spec.dataset.params
    return [f"({params['split']})"] if params.get("split") else []


def _weights(record: RunRecord) -> str:
    sha = record.spec.weights_sha256
    known = [record.facts.get("weights_source"), record.facts.get("weights_license"), sha and f"sha256 {sha[:12]}"]
    return ", ".join(str(part) for part in known if part) or "unknown"


def _environment(records: Iterable[RunRecord], name: str) -> list[str]:
    return list(dict.fromkeys(str(record.environment[name]) for record in records if record.environment.get(name)))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "unknown"


def _named(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 8 else f"{len(names)}, named in the board"
