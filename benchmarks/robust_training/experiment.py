"""Trains methods on databases, writes a track per database, and runs it; what is finished is not done again.

    python benchmarks/robust_training/experiment.py train --out DIR [--methods a,b] [--databases a,b] [--seeds 0,1]
    python benchmarks/robust_training/experiment.py evaluate --out DIR [--databases a,b]
    python benchmarks/robust_training/experiment.py publish --out DIR [--databases a,b] --to leaderboards

The data root is `IQA_ROBUST_DATA`. See docs/robust_training.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from databases import DATABASES, DEGRADED, PRETRAINING, Database
from methods import METHODS, Method
from recipes import pretrained, recipe
from tracks import leading_track, purified_track, radii_track, track, webp_track

from iqa_robust.errors import RequestError
from iqa_robust.records import RunRecord, read_records, write_record
from iqa_robust.tables.board import board
from iqa_robust.tables.write import write_board


def main() -> None:
    """Parses and runs; the exit status is 1 where something failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("verb", choices=["train", "evaluate", "publish"])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--databases", default=",".join(DATABASES))
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--to", type=Path, default=Path("leaderboards"))
    given = parser.parse_args()
    methods, databases = given.methods.split(","), given.databases.split(",")
    seeds = [int(seed) for seed in given.seeds.split(",")]
    status = 0
    for database in databases:
        if given.verb == "train":
            for seed in seeds:
                for name in methods:
                    if METHODS[name].pretrained is not None and DATABASES[database].network != DEGRADED.network:
                        continue
                    status |= train(given.out, name, METHODS[name], database, seed)
        elif given.verb == "evaluate":
            status |= evaluate(given.out, database)
        else:
            publish(given.out, database, given.to)
    raise SystemExit(min(status, 1))


def train(out: Path, name: str, method: Method, database: str, seed: int) -> int:
    """One checkpoint, `out/DATABASE/NAME-seedK.safetensors`, with its recipe and log, after the one it starts from."""
    if method.pretrained is not None:
        base = METHODS[method.pretrained]
        if status := _train(out, method.pretrained, base, PRETRAINING, DEGRADED, seed):
            return status
    return _train(out, name, method, database, DATABASES[database], seed)


def _train(out: Path, name: str, method: Method, folder: str, data: Database, seed: int) -> int:
    (out / folder).mkdir(parents=True, exist_ok=True)
    stem = f"{folder}/{name}-seed{seed}"
    (out / f"{stem}.toml").write_text(recipe(f"{name}-{folder}-seed{seed}", method, data, seed), encoding="utf-8")
    verb = ["train", f"{stem}.toml", "--out", f"{stem}.safetensors", "--log", f"{stem}.csv"]
    return _command(out, verb)


def evaluate(out: Path, database: str) -> int:
    """The tracks of a database: all its checkpoints, the leading ones twice, and some behind purifiers."""
    found = [path.resolve() for path in sorted((out / database).glob("*.safetensors"))]
    status = _run(out, f"robust-{database}", track(database, found, out.resolve()))
    status |= _run(out, f"leading-{database}", leading_track(database, found, out.resolve()))
    status |= _run(out, f"radii-{database}", radii_track(database, found, out.resolve()))
    status |= _run(out, f"purified-{database}", purified_track(database, found, out.resolve()))
    status |= _run(out, f"webp-{database}", webp_track(database, found, out.resolve()))
    return status


def publish(out: Path, database: str, to: Path) -> None:
    """The records of the tracks and their boards, below `to`; without explanations, which are ten times as large.

    Below `to/sources` goes what makes them again, laid out as in `out`: the tracks, and the recipes and cards of the
    checkpoints in their records.

    Raises:
        RequestError: a checkpoint was trained again after it was judged.
    """
    for name in (f"{kind}-{database}" for kind in ("robust", "leading", "radii", "purified", "webp")):
        if not (out / "results" / name).is_dir():
            continue
        records = read_records(out / "results" / name)
        track = records[0].spec.track
        sources = {Path(f"{track}.toml"): (out / f"{name}.toml").read_text(encoding="utf-8")}
        for record in records:
            sources |= _sources(out, record)
        for path, text in sources.items():
            (to / "sources" / path).parent.mkdir(parents=True, exist_ok=True)
            (to / "sources" / path).write_text(text, encoding="utf-8")
        shutil.rmtree(to / "runs" / track, ignore_errors=True)
        for record in records:
            write_record(to / "runs" / track, dataclasses.replace(record, explanations=None))
        write_board(board(records), to / f"{track}.csv")


def _sources(out: Path, record: RunRecord) -> dict[Path, str]:
    """Recipe and card of a record's checkpoint, and of the one it starts from, by their paths below `out`."""
    weights = Path(record.spec.model.params["weights"])
    found = _source(out, weights)
    if record.facts["weights_sha256"] not in found[weights.with_suffix(".md")]:
        raise RequestError(f"{out / weights}: trained again after {record.spec.track} was run; run `evaluate` again.")
    method = METHODS.get(weights.stem.rpartition("-seed")[0])
    if method is not None and method.pretrained is not None:
        start = Path(pretrained(method, int(weights.stem.rpartition("-seed")[2])))
        card = found[weights.with_suffix(".md")]
        found |= _source(out, start)
        made = re.search(r"sha256 `(\w+)`", found[start.with_suffix(".md")])
        if made is None or made[1] not in card:
            raise RequestError(f"{out / start}: trained again after {weights} went on from it; train that again.")
    return found


def _source(out: Path, weights: Path) -> dict[Path, str]:
    return {path: (out / path).read_text(encoding="utf-8") for path in map(weights.with_suffix, (".toml", ".md"))}


def _run(out: Path, name: str, track: str) -> int:
    (out / f"{name}.toml").write_text(track, encoding="utf-8")
    verb = ["run", f"{name}.toml", "--out", f"results/{name}"]
    return _command(out, verb)


def _command(out: Path, verb: list[str]) -> int:
    """Run `iqa-robust` in the folder `out`, to which the paths in recipes and tracks are relative."""
    root = {key: str(Path(os.environ[key]).resolve()) for key in ("IQA_ROBUST_DATA",) if key in os.environ}
    command = [sys.executable, "-m", "iqa_robust", *verb]
    return subprocess.run(command, cwd=out, check=False, env={**os.environ, **root}).returncode


if __name__ == "__main__":
    main()
