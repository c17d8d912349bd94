"""What the tracks of the comparison left: records, and one line per system and radius with its method and seed."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from methods import METHODS

from iqa_robust.measures import fit_logistic, shift_abs_mos, srocc
from iqa_robust.records import RunRecord, read_records
from iqa_robust.tables.verdicts import verdicts

EPS = 2.0
"""Radius, in 255ths, at which methods are compared."""


def is_worst_case(record: RunRecord) -> bool:
    """Whether a cell is that of `worst-case` at `EPS`."""
    return (record.spec.attack.name, record.spec.budget.eps_255) == ("worst-case", EPS)


def is_control(record: RunRecord) -> bool:
    """Whether a cell is that of random noise at `EPS`, which every model of a track has."""
    return (record.spec.attack.name, record.spec.budget.eps_255) == ("noise", EPS)


def records_of(database: str, out: Path) -> list[RunRecord]:
    """Records of a database's tracks at 2/255, without failed cells, and with bare models' of the first only."""
    records = []
    for name, defended_only in (
        (f"robust-{database}", False),
        (f"purified-{database}", True),
        (f"webp-{database}", True),
    ):
        if (out / "results" / name).is_dir():
            records += [
                record
                for record in read_records(out / "results" / name)
                if record.status != "failed" and (record.spec.defense is not None or not defended_only)
            ]
    return records


def systems(records: Sequence[RunRecord]) -> pd.DataFrame:
    """The columns of `verdicts`, and `method` and `seed`, in the order of the comparison."""
    found = verdicts(records)
    names = [method(model, defense) for model, defense in zip(found["model"], found["defense"], strict=True)]
    found.insert(0, "method", names)
    found.insert(1, "seed", [seed_of(name) for name in found["model"]])
    return found.sort_values(["method", "seed", "eps_255"], key=lambda c: c.map(_order) if c.name == "method" else c)


def method(model: str, defense: str) -> str:
    """The method's name from a model's label, with the purifier it stands behind."""
    name = re.sub(r"-seed\d+$", "", model)
    return name if defense == "none" else f"{name} behind {defense}"


def seed_of(model: str) -> int:
    """The seed from a model's label."""
    return int(model.rpartition("-seed")[2])


def _order(name: str) -> str:
    known = list(METHODS)
    base = name.partition(" ")[0]
    return f"{known.index(base) if base in known else len(known):03d} {name}"


def card(path: Path) -> dict[str, float]:
    """Measures on the validation part, from a model card."""
    found = re.findall(r"^\| validation \| (\w+) \| ([-.\d]+) \|", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {measure: float(value) for measure, value in found}


def sign(record: RunRecord) -> float:
    """1 where higher scores and higher labels mean the same, else -1."""
    return 1.0 if record.facts["higher_is_better"] == record.facts["mos_higher_is_better"] else -1.0


def shift_in_labels(record: RunRecord) -> float:
    """Mean |shift| from the system's own clean scores, in percent of the scale of the labels.

    Scores become labels by the logistic that is fitted on the bare model's clean scores, as on boards.
    """
    images, own = record.images, "score_clean" if record.spec.defense is None else "score_def_clean"
    low, high = record.facts["mos_range"]
    logistic = fit_logistic(images["score_clean"], images["mos"], (low, high))
    return 100 * shift_abs_mos(images[own], images["score_adv"], logistic) / (high - low)


def attacked_srocc(record: RunRecord) -> float:
    """SROCC of the attacked scores with the labels."""
    return srocc(record.images["score_adv"], sign(record) * record.images["mos"])
