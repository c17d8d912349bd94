"""One worker against several: `python benchmarks/speed/scale_workers.py --folder OUT --executor ray`.

The same track through the command line, once with one worker and once with all, start-up included, in folders of their
own; one thread per worker. The boards must agree in everything but seconds.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd

TRACK = """name = "workers"
version = 1
title = "Cells for several workers"
batch_size = 8
seeds = {seeds}

[dataset]
name = "photos"
params = {{ split = "test", limit = {images}, crop = {side} }}

[[models]]
name = "compact"

[[attacks]]
name = "pgd"

[budget]
eps_255 = 4
steps = {steps}
"""


def seconds(track: Path, out: Path, executor: str, workers: int) -> float:
    """Seconds of the whole command."""
    asked = ["run", str(track), "--out", str(out), "--device", "cpu", "--executor", executor, "--workers", str(workers)]
    start = time.perf_counter()
    subprocess.run([sys.executable, "-m", "iqa_robust", *asked], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return time.perf_counter() - start


def main() -> None:
    """Run the track both ways, print seconds and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", type=int, default=12)
    parser.add_argument("--images", type=int, default=128, help="per cell; %(default)s")
    parser.add_argument("--side", type=int, default=96, help="pixels; %(default)s")
    parser.add_argument("--steps", type=int, default=100, help="of PGD; %(default)s")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--executor", choices=("local", "ray"), default="ray")
    parser.add_argument("--folder", type=Path, required=True, help="an empty folder for both runs")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    track = asked.folder / "track.toml"
    seeds = list(range(asked.cells))
    track.write_text(TRACK.format(seeds=seeds, images=asked.images, side=asked.side, steps=asked.steps))
    taken, boards = {}, []
    for workers in (1, asked.workers):
        out = asked.folder / f"workers-{workers}"
        taken[workers] = seconds(track, out, asked.executor, workers)
        boards.append(pd.read_csv(out / "board.csv").drop(columns="seconds"))
    pd.testing.assert_frame_equal(*boards, check_exact=True)
    print(
        f"{asked.cells} cells of {asked.images} images, {asked.executor}: one worker {taken[1]:.1f} s,"
        f" {asked.workers} workers {taken[asked.workers]:.1f} s, {taken[1] / taken[asked.workers]:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
