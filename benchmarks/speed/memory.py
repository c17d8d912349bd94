"""Peak memory of a cell must not grow with its images: `python benchmarks/speed/memory.py`."""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import torch
from cell import on_disk, run_cell

import iqa_robust as ir
from iqa_robust.harness.environment import peak_memory_mb
from iqa_robust.harness.precision import FP32
from iqa_robust.records import Budget


def peak(table: str, attack: str) -> float:
    """MiB of this process after a cell of the `compact` model on the images that `table` lists."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as out:
        run_cell(
            ir.models.create("compact"),
            ir.datasets.create("csv", table=table),
            ir.attacks.create(attack),
            Budget(eps_255=4, steps=1),
            FP32,
            Path(out),
        )
    return peak_memory_mb(torch.device("cpu"))


def peaks(counts: Sequence[int], side: int, attack: str) -> list[float]:
    """The same of a fresh process per count, on noise images of `side` pixels."""
    noise = torch.rand(64, 3, side, side, generator=torch.Generator().manual_seed(0))
    found = []
    for count in counts:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            on_disk(folder, noise, count)
            command = [sys.executable, __file__, "--table", str(folder / "table.csv"), "--attack", attack]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode != 0:
            raise RuntimeError(ended.stderr)
        found.append(float(ended.stdout))
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the peaks and how far the last lies above the first."""
    parser = argparse.ArgumentParser(description="Peak memory of a cell of few and of many small images.")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--attack", default="fgsm")
    parser.add_argument("--table", help="measure this process on these images (what the others are started with)")
    given = parser.parse_args(arguments)
    if given.table is not None:
        print(peak(given.table, given.attack))
        return
    found = peaks(given.counts, given.side, given.attack)
    for count, mebibytes in zip(given.counts, found, strict=True):
        print(f"{count} images: {mebibytes:.0f} MiB")
    print(f"growth: {100 * (found[-1] / found[0] - 1):.1f} %")


if __name__ == "__main__":
    main()
