"""How long a board takes, from synthetic records: `python benchmarks/speed/scale_tables.py --records 1000`.

The records are written by the package's own writer: models, defenses and attacks with plausible scores, 10,000 images
each unless told otherwise, every image a content of its own. They stay in the folder, so the second call only tables.
"""

from __future__ import annotations

import argparse
import resource
import time
from pathlib import Path

import numpy as np
import pandas as pd

from iqa_robust.measures import bootstrap_interval
from iqa_robust.records import IMAGE_COLUMNS, Budget, Component, RunRecord, RunSpec, write_record
from iqa_robust.tables.from_folder import board_of, write_per_image_of
from iqa_robust.tables.write import write_board

DEFENSES, ATTACKS = 5, 20


def synthetic(number: int, images: int) -> RunRecord:
    """Record `number`: a model of its own every 100 records, whose scores follow the MOS and lose them under attack."""
    model, rest = divmod(number, DEFENSES * ATTACKS)
    defense, attack = divmod(rest, ATTACKS)
    labels, own, push = (np.random.default_rng(seed) for seed in (0, 1 + model, 10_000 + number))
    mos = labels.uniform(0, 100, images)
    clean = np.float32(mos + own.normal(0, 15, images)).astype(float)
    defended = np.float32(clean + own.normal(0, 1 + defense, images)).astype(float)
    adv = np.float32((defended if defense else clean) + push.normal(attack, 2 * attack + 1, images)).astype(float)
    frame = pd.DataFrame(
        {
            **{name: np.full(images, np.nan) for name, kind in IMAGE_COLUMNS.items() if kind == "float64"},
            "image_id": [f"image-{i:05d}.png" for i in range(images)],
            "reference_id": None,
            "mos": mos,
            "score_clean": clean,
            "score_adv": adv,
            **({"score_def_clean": defended} if defense else {}),
            "linf": 4 / 255,
            "l2": push.uniform(5, 6, images),
            "psnr": push.uniform(36, 37, images),
            "ssim": push.uniform(0.9, 0.95, images),
            "queries": 10,
            "gradients": 10,
            "zero_gradient": False,
            "curve_queries": [[1, 5, 10]] * images,
            "curve_scores": [[0.1, 0.2, 0.3]] * images,
            "status": "ok",
            "reason": "",
        }
    )
    spec = RunSpec(
        track="scale-v1",
        dataset=Component(name="synthetic"),
        manifest="0" * 64,
        model=Component(name=f"model-{model:03d}"),
        weights_sha256=None,
        score_range=(0.0, 100.0),
        defense=Component(name=f"defense-{defense}") if defense else None,
        attack=Component(name=f"attack-{attack:02d}"),
        goal="up",
        target=None,
        budget=Budget(),
        knowledge="adaptive",
        seed=0,
        package_version="0",
    )
    facts = {"higher_is_better": True, "mos_higher_is_better": True, "mos_range": [0.0, 100.0]}
    return RunRecord(spec=spec, status="ok", facts=facts, seconds=1.0, images=frame[list(IMAGE_COLUMNS)])


def main() -> None:
    """Write what is missing, table it, print seconds and memory."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--records", type=int, default=100)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--per-image", action="store_true", help="write the per-image table instead of the board")
    asked = parser.parse_args()
    there = sum(1 for _ in asked.folder.glob("runs/*.json"))
    for number in range(there, asked.records):
        write_record(asked.folder / "runs", synthetic(number, asked.images))
    timed = synthetic(25, asked.images).images
    start = time.perf_counter()
    bootstrap_interval("srocc", timed["score_adv"], timed["mos"])
    print(f"bootstrap of one row of {asked.images} images: {time.perf_counter() - start:.2f} s")
    start = time.perf_counter()
    if asked.per_image:
        write_per_image_of(asked.folder, asked.folder / "images.csv")
    else:
        write_board(board_of(asked.folder, workers=asked.workers), asked.folder / "board.csv")
    seconds = time.perf_counter() - start
    peak = [resource.getrusage(who).ru_maxrss / 2**20 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    print(
        f"{asked.records} records, {asked.records * asked.images} rows, {asked.workers} workers: {seconds:.1f} s,"
        f" peak {peak[0]:.2f} GiB here and {peak[1]:.2f} GiB in the largest worker"
    )


if __name__ == "__main__":
    main()
