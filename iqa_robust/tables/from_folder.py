"""Tables of a folder of records, one record in memory at a time: what a folder holds may be larger than the memory.

Verdicts compare the records of a system, so they hold those of one system and radius, and of these what they need.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import pandas as pd

from iqa_robust.records import Place, RunSpec, atomic_writer, read_record, read_spec, record_paths
from iqa_robust.tables.board import Reduced, assemble, reduced
from iqa_robust.tables.cells import MEASURED_COLUMNS, given_twice, group_specs
from iqa_robust.tables.per_image import PER_IMAGE_COLUMNS, PER_IMAGE_DIGITS, per_image_part
from iqa_robust.tables.verdicts import VERDICT_NEEDS, joined, system_groups, verdict
from iqa_robust.tables.write import csv_text

T = TypeVar("T")

BOARD_NEEDS = (*MEASURED_COLUMNS, "reference_id", "status")
"""Columns of the images that a board is made from."""
LARGE = 1_000_000
"""Rows from which on other processes are started; they take a second to start."""

CHUNK = 16
"""Records that a process takes at a time."""


def board_of(folder: Place, workers: int | None = None) -> pd.DataFrame:
    """The board of all records below `folder`, the same as `board(read_records(folder))`.

    Args:
        folder: the `--out` of one or more runs.
        workers: processes; None is one per core where there is much to do.

    Raises:
        RecordError: there is no record, one is broken, or one is there twice.
    """
    # In this order the cells of a model, which share their clean scores, follow each other.
    return assemble(list(_each(_reduce, folder, workers)))


def write_per_image_of(folder: Place, path: Place, workers: int | None = None) -> None:
    """Write the per-image table of all records below `folder` as CSV, whole or not at all.

    Raises:
        RecordError: as `board_of`.
        StorageError: it cannot be written.
    """
    with atomic_writer(path) as file:
        file.write((",".join(PER_IMAGE_COLUMNS) + "\n").encode())
        for text in _each(_per_image_text, folder, workers):
            file.write(text)


def verdicts_of(folder: Place) -> pd.DataFrame:
    """The verdicts on all records below `folder`, the same as `verdicts(read_records(folder))`.

    Raises:
        RecordError: as `board_of`.
    """
    paths, specs, _ = _found(folder)
    return joined(
        verdict([read_record(paths[spec.digest], VERDICT_NEEDS) for spec in group]) for group in system_groups(specs)
    )


def _found(folder: Place) -> tuple[dict[str, Place], list[RunSpec], int]:
    """The file of each record by its digest, the specs, and the number of rows of all records."""
    paths: dict[str, Place] = {}
    specs, rows = [], 0
    for path in record_paths(folder):
        if path.stem in paths:
            raise given_twice(path.stem)
        spec, n_images = read_spec(path)
        paths[path.stem] = path
        specs.append(spec)
        rows += n_images
    return paths, specs, rows


def _each(work: Callable[[Any], T], folder: Place, workers: int | None) -> Iterator[T]:
    """What `work` makes of the file of each record, in the order of a board."""
    paths, specs, rows = _found(folder)
    ordered = [paths[spec.digest] for cell in group_specs(specs) for spec in cell]
    if workers is None:
        workers = cores() if rows >= LARGE else 1
    if workers == 1:
        yield from map(work, ordered)
        return
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(work, ordered, chunksize=CHUNK)


def cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _reduce(path: Any) -> Reduced:
    return reduced(read_record(path, BOARD_NEEDS))


def _per_image_text(path: Any) -> bytes:
    rows = per_image_part(read_record(path, (*PER_IMAGE_COLUMNS, "linf", "reason")))
    return csv_text(rows, PER_IMAGE_DIGITS, header=False).encode()
