"""What the report shows, as plain values: lines of the board with their records, grouped by track and images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from iqa_robust.errors import RecordError
from iqa_robust.measures import srocc, toward_better
from iqa_robust.records import RunRecord, RunSpec
from iqa_robust.tables.cells import BARE, Cell, fact
from iqa_robust.tables.ranking import UNRANKED_FLAGS


@dataclass(frozen=True)
class Line:
    """One row of the board, with its records."""

    values: dict[str, Any]
    """The columns of the board."""
    cell: Cell
    attack: str
    """The attack's title, with what tells it from another attack of the same title."""

    @property
    def spec(self) -> RunSpec:
        """Of the first seed."""
        return self.cell[0].spec

    @property
    def flags(self) -> list[str]:
        """Names of the flags."""
        return [flag for flag in self.values["flags"].split(";") if flag]

    @property
    def bare(self) -> bool:
        """Whether there is no defense."""
        return self.spec.defense is None

    @property
    def control(self) -> bool:
        """Whether the attack is the control that does not try."""
        return bool(self.cell[0].facts.get("control"))

    @property
    def sound(self) -> bool:
        """Whether the attacked SROCC can be compared: defined, and without a flag that voids it."""
        return not math.isnan(self.values["srocc_adv"]) and not UNRANKED_FLAGS & set(self.flags)

    @property
    def budget(self) -> str:
        """The radius, in words."""
        return self.cell[0].spec.budget.size

    @cached_property
    def own_clean(self) -> float:
        """SROCC of the row's own system on clean images: the defended model's where there is a defense."""
        if self.bare:
            return float(self.values["srocc_clean"])
        found = [_defended_clean(record) for record in self.cell if record.status != "failed"]
        return sum(found) / len(found) if found else math.nan


@dataclass(frozen=True)
class Section:
    """The lines of one track on one set of images."""

    track: str
    dataset: str
    lines: tuple[Line, ...]

    @property
    def records(self) -> list[RunRecord]:
        """Every record of the section."""
        return [record for line in self.lines for record in line.cell]

    @property
    def models(self) -> list[str]:
        """Titles, in the order of the board."""
        return list(dict.fromkeys(line.values["model"] for line in self.lines))

    @property
    def defenses(self) -> list[str]:
        """Titles, the bare model first."""
        return sorted(
            dict.fromkeys(line.values["defense"] for line in self.lines),
            key=lambda name: (name != BARE, name.casefold()),
        )

    @property
    def attacks(self) -> list[str]:
        """Titles that tell them apart, the controls last."""
        controls = {line.attack: line.control for line in self.lines}
        return sorted(controls, key=lambda name: (controls[name], name.casefold()))

    @property
    def n_images(self) -> int:
        """Images of each cell."""
        return max(int(line.values["n_images"]) for line in self.lines)

    def facts(self, name: str) -> list[Any]:
        """The different values of a fact that some records may not hold, as they first occur."""
        found = [record.facts.get(name) for record in self.records]
        return list(dict.fromkeys(str(value) for value in found if value not in (None, "")))


def sections(records: Sequence[RunRecord], board: pd.DataFrame) -> list[Section]:
    """The sections of a report, in the order of the board.

    Raises:
        RecordError: the board names a record that is not among `records`.
    """
    by_digest = {record.digest: record for record in records}
    rows: list[dict[str, Any]] = [{str(key): value for key, value in row.items()} for row in board.to_dict("records")]
    try:
        cells = [tuple(by_digest[digest] for digest in row["run"].split(";")) for row in rows]
    except KeyError as error:
        raise RecordError(
            f"board: names the record {error}, which was not given; rebuild it from the records."
        ) from None
    groups: dict[tuple[str, str], list[int]] = {}
    for index, cell in enumerate(cells):
        groups.setdefault((cell[0].spec.track, cell[0].spec.manifest), []).append(index)
    found = []
    for (track, _), indices in groups.items():
        titles = attack_titles([cells[index][0].spec for index in indices])
        lines = tuple(Line(rows[i], cells[i], titles[attack_key(cells[i][0].spec)]) for i in indices)
        found.append(Section(track, lines[0].spec.dataset.title, lines))
    return found


def attack_key(spec: RunSpec) -> tuple[str, ...]:
    """What makes two cells the same attack at different radii."""
    return (spec.attack.title, *_particulars(spec).values())


def attack_titles(specs: Sequence[RunSpec]) -> dict[tuple[str, ...], str]:
    """A title for each `attack_key`: the attack's own, and in brackets what tells two of one title apart."""
    alike: dict[str, dict[tuple[str, ...], dict[str, str]]] = {}
    for spec in specs:
        alike.setdefault(spec.attack.title, {})[attack_key(spec)] = _particulars(spec)
    titles = {}
    for title, keys in alike.items():
        differing = [name for name in next(iter(keys.values())) if len({parts[name] for parts in keys.values()}) > 1]
        for key, parts in keys.items():
            shown = ", ".join(parts[name] for name in differing if parts[name])
            titles[key] = f"{title} ({shown})" if shown else title
    return titles


def _particulars(spec: RunSpec) -> dict[str, str]:
    budget = spec.budget
    return {
        "goal": spec.goal,
        "target": "" if spec.target is None else f"to {spec.target:g}",
        "norm": budget.norm,
        "steps": f"{budget.steps} steps",
        "queries": "" if budget.queries is None else f"{budget.queries} queries",
        "eot": f"eot {budget.eot}",
        "params": ", ".join(f"{key}={value}" for key, value in sorted(spec.attack.params.items())),
    }


def _defended_clean(record: RunRecord) -> float:
    scores = toward_better(record.images["score_def_clean"].to_numpy(dtype=float), fact(record, "higher_is_better"))
    mos = toward_better(record.images["mos"].to_numpy(dtype=float), fact(record, "mos_higher_is_better"))
    return srocc(scores, mos)
