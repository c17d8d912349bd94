"""What one method keeps beyond each other one, per database and over all, as Markdown.

    python benchmarks/robust_training/differences.py --out DIR [--method sort-mask-correlation] [--tracks robust]

SROCC of the method's scores less that of the other's, on the same test images and seeds: means over the seeds that both
have, and of those over the databases. Two tables: scores under `worst-case` at 2/255, and clean scores. Intervals hold
95 % of a bootstrap that draws images (whole contents where images share one) and seeds, together for both methods, so
they cover both what the images do and what the training's chance does, as far as so few of each can tell. Of the tracks
`webp`, scores are those behind the purifier, under the attack through it or around it, whichever leaves less.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from databases import DATABASES
from methods import METHODS
from numpy.typing import NDArray
from results import attacked_srocc, is_control, is_worst_case, seed_of, sign
from results import method as method_of

from iqa_robust.measures.weighted import Srocc
from iqa_robust.records import RunRecord, read_records

RESAMPLES = 4000
Floats = NDArray[np.float64]
Found = dict[str, dict[int, RunRecord]]
"""Records of one database by method and seed."""


def found_in(records: Iterable[RunRecord], wanted: Callable[[RunRecord], bool] = is_worst_case) -> Found:
    """The wanted cells of a track's records, one per model: of several, the one that leaves the least."""
    found: Found = {}
    for record in records:
        if record.status != "failed" and wanted(record):
            title = record.spec.model.title
            seeds = found.setdefault(method_of(title, "none"), {})
            other = seeds.setdefault(seed_of(title), record)
            if other is not record and attacked_srocc(record) < attacked_srocc(other):
                seeds[seed_of(title)] = record
    return found


def difference(
    found: Found, method: str, other: str, column: str, stream: int, draws: int = RESAMPLES
) -> Floats | None:
    """The difference (1 + draws,), first of the images and seeds as they are; None where no seed has both.

    `stream` is another number for every database, whose images and trainings have nothing to do with each other.
    """
    seeds = sorted(found.get(method, {}).keys() & found.get(other, {}).keys())
    if not seeds:
        return None
    rng = np.random.default_rng(stream)
    counts = _counts(found[method][seeds[0]], rng, draws)
    values = np.stack(
        [_sroccs(found[method][seed], column, counts) - _sroccs(found[other][seed], column, counts) for seed in seeds]
    )
    drawn = rng.multinomial(len(seeds), [1 / len(seeds)] * len(seeds), size=draws).T / len(seeds)
    weights = np.hstack([np.full((len(seeds), 1), 1 / len(seeds)), drawn])
    total: Floats = (values * weights).sum(axis=0)
    return total


def _counts(record: RunRecord, rng: np.random.Generator, draws: int) -> NDArray[np.int64]:
    """How often each image is in each draw (1 + draws, n); once in the first one."""
    images = _in_order(record)
    alone = images["image_id"]
    codes = pd.factorize(images["reference_id"].where(images["reference_id"].notna(), alone))[0]
    size = int(codes.max()) + 1
    drawn = rng.multinomial(size, [1 / size] * size, size=draws)[:, codes]
    return np.vstack([np.ones((1, len(codes)), dtype=np.int64), drawn])


def _sroccs(record: RunRecord, column: str, counts: NDArray[np.int64]) -> Floats:
    images = _in_order(record)
    values: Floats = Srocc(images[column].to_numpy(), (sign(record) * images["mos"]).to_numpy())(counts)
    return values


def _in_order(record: RunRecord) -> pd.DataFrame:
    return record.images.sort_values("image_id", ignore_index=True)


def lines(found: dict[str, Found], method: str, column: str) -> list[dict[str, str]]:
    """One dict per other method: its name, one text per database, and `all`, over the databases that have both."""
    others = [name for name in METHODS if name != method and any(name in each for each in found.values())]
    rows = []
    for other in others:
        each = {
            database: difference(records, method, other, column, stream)
            for stream, (database, records) in enumerate(found.items())
        }
        known = [values for values in each.values() if values is not None]
        if not known:
            continue
        texts = {database: "" if values is None else _text(values) for database, values in each.items()}
        rows.append({"less": f"`{other}`", **texts, "all": f"{_text(np.mean(known, axis=0))}, of {len(known)}"})
    return rows


def _text(values: Floats) -> str:
    if np.isnan(values[0]):
        return "undefined"
    low, high = np.nanpercentile(values[1:], [2.5, 97.5])
    return f"{values[0]:+.2f} ({low:+.2f} to {high:+.2f})"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="sort-mask-correlation")
    parser.add_argument("--tracks", choices=["robust", "leading", "webp"], default="robust")
    parser.add_argument("--databases", default=",".join(name for name in DATABASES if name != "compact"))
    given = parser.parse_args(arguments)
    folders = {name: given.out / "results" / f"{given.tracks}-{name}" for name in given.databases.split(",")}
    records = {name: read_records(folder) for name, folder in folders.items() if folder.is_dir()}

    def judged(record: RunRecord) -> bool:
        return given.tracks != "webp" or record.spec.defense is not None

    for title, column, wanted in (
        ("under `worst-case` at 2/255", "score_adv", is_worst_case),
        ("of clean images", "score_def_clean" if given.tracks == "webp" else "score_clean", is_control),
    ):
        found = {
            name: found_in((record for record in each if judged(record)), wanted) for name, each in records.items()
        }
        columns = ["less", *found, "all"]
        table = [f"| `{given.method}`, SROCC {title}, {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
        table += [f"| {' | '.join(row[name] for name in columns)} |" for row in lines(found, given.method, column)]
        sys.stdout.write("\n".join(["", *table, ""]))


if __name__ == "__main__":
    main()
