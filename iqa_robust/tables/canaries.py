"""Whether an evaluation broke or flagged every defense that is known to be broken."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from iqa_robust.records import RunRecord, read_records
from iqa_robust.tables.cells import defense_title
from iqa_robust.tables.verdicts import verdicts

COLUMNS = ("model", "canary", "caught", "how")
BROKEN = 0.5
"""Protection below which a defense counts as broken: the strongest attack keeps half of what it does without it."""
LEAST = 6
"""Canaries that an evaluation must have met."""


def canaries(records: Sequence[RunRecord]) -> pd.DataFrame:
    """One row per model and canary: whether it was caught, and how. A canary without records is not in the table.

    A canary is caught where one of its cells carries a flag, or where, at some radius, its protection
    (`tables.verdicts`) lies below `BROKEN`. A cell that failed says nothing.
    """
    known = {(r.spec.model.title, defense_title(r.spec)): None for r in records if r.facts.get("canary")}
    table = verdicts(records) if known else pd.DataFrame()
    rows = []
    for model, defense in known:
        own = table[(table["model"] == model) & (table["defense"] == defense)]
        flags = dict.fromkeys(flag for text in own["flags"] for flag in text.split(";") if flag)
        broken = own[own["protection"] < BROKEN]
        how = list(flags)
        if len(broken):
            strongest = broken.sort_values("protection").iloc[0]
            how.append(f"broken by {strongest['strongest']} ({strongest['strongest_knowledge']})")
        rows.append((model, defense, bool(how), "; ".join(how)))
    return pd.DataFrame(rows, columns=list(COLUMNS))


def check_canaries(submission: Path) -> list[str]:
    """Every reason why what was evaluated beside these canaries is not fit to be published; empty where there is none.

    Args:
        submission: the folder DIR of a run. The canaries are looked for in the folder `DIR-canaries` beside it, then in
            folders beside it whose names start with `canaries`. They must be run by the same version of the package.
    """
    submission = submission.resolve()
    beside = submission.with_name(f"{submission.name}-canaries")
    folders = [beside, *sorted(submission.parent.glob("canaries*"))]
    folder = next((found for found in folders if found.is_dir()), None)
    if folder is None:
        return [f"{submission}: no canaries; run `iqa-robust run canaries --out {beside}`."]
    records, evaluated = read_records(folder), read_records(submission)
    versions = {record.spec.package_version for record in records}
    problems = [
        f"{folder}: run by version {', '.join(sorted(versions))} of iqa_robust, the submission by {wanted}."
        for wanted in sorted({record.spec.package_version for record in evaluated} - versions)
    ]
    table = canaries(records)
    if len(table) < LEAST:
        problems.append(f"{folder}: expected at least {LEAST} canaries, found {len(table)}; run the track whole.")
    return problems + [
        f"{folder}: {row['canary']} on {row['model']} was neither broken nor flagged."
        for row in table.to_dict("records")
        if not row["caught"]
    ]
