"""A whole cell of the harness on images on disk, as `iqa-robust run` runs it."""

from __future__ import annotations

import csv
from pathlib import Path

import torch
from PIL import Image

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.datasets.base import Dataset
from iqa_robust.harness.components import describe_object, weights_digest
from iqa_robust.harness.decoded import Decoded
from iqa_robust.harness.execute import Job, run_job
from iqa_robust.harness.kept import Kept
from iqa_robust.harness.precision import IMAGES, Precision
from iqa_robust.harness.store import Store
from iqa_robust.harness.system import Batch
from iqa_robust.images import to_uint8
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget, RunRecord, RunSpec
from iqa_robust.registry import package_version

GOAL = "up"
BATCH = 8


def on_disk(folder: Path, x: torch.Tensor, count: int) -> Dataset:
    """A `csv` dataset of `count` PNG files made of the images `x` (N, 3, H, W) in turn, each different."""
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "mos", "split"])
        for i in range(count):
            pixels = to_uint8(x[i % len(x)]).permute(1, 2, 0).contiguous()
            pixels[0, 0] = torch.tensor([i % 256, i // 256 % 256, i // 65536], dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(folder / f"{i:06}.png", compress_level=1)
            table.writerow([f"{i:06}.png", i % 100, "test"])
    return ir.datasets.create("csv", table=str(folder / "table.csv"))


def some(x: torch.Tensor) -> Batch:
    """The first images of `x`, as many as the harness looks at to choose a precision."""
    x = x[:IMAGES]
    none = (None,) * len(x)
    return Batch(ids=tuple(map(str, range(len(x)))), reference_ids=none, x=x, ref=None, mos=torch.zeros(len(x)))


def run_cell(
    model: IQAModel,
    dataset: Dataset,
    attack: Attack,
    budget: Budget,
    precision: Precision,
    out: Path,
    earlier: tuple[Decoded, Kept] | None = None,
) -> RunRecord:
    """Run one cell of the bare model into the folder `out`. Raises `RuntimeError` when it fails.

    `earlier` is what a worker still has of its earlier cells on the same model; None for the first one.
    """
    spec = RunSpec(
        track="",
        dataset=describe_object(dataset, ir.datasets.registry),
        manifest=dataset.manifest(),
        model=describe_object(model, ir.models.registry),
        weights_sha256=weights_digest(model),
        score_range=model.info.score_range,
        defense=None,
        attack=describe_object(attack, ir.attacks.registry),
        goal=GOAL,
        target=None,
        budget=budget,
        knowledge="adaptive" if attack.access == "white" else "black-box",
        seed=0,
        package_version=package_version(),
    )
    decoded, kept = (Decoded(dataset), Kept()) if earlier is None else earlier
    job = Job(
        (spec,),
        dataset,
        model,
        (None,),
        attack,
        torch.device("cpu"),
        precision=precision,
        decoded=decoded,
        kept=kept,
        batch_size=BATCH,
    )
    record = run_job(job, Store(out))[0]
    if record.status != "ok":
        raise RuntimeError(record.reason)
    return record
