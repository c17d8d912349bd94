"""How the shipped pseudo-MOS of `photos` were made, and how a maintainer makes them again.

Run `python -c "from iqa_robust.datasets.photos_labels import regenerate_labels; regenerate_labels()"` after a
change of the bank, the sources or the consensus, and raise `BANK_VERSION`: older records no longer compare.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from iqa_robust.datasets.consensus import fit_knots, measure, shares, write_knots
from iqa_robust.datasets.distortions import Picture
from iqa_robust.datasets.photo_sources import SOURCES
from iqa_robust.datasets.photos import LABELS_FILE, combinations, render
from iqa_robust.images import from_uint8


def regenerate_labels() -> None:
    """Measure the whole bank, fit the frozen maps on the training split, and write both shipped tables.

    Takes about five minutes on one core. The maps see the training split only, so nothing about the test
    pictures goes into what the labels mean.
    """
    keys: list[tuple[str, str, int]] = []
    raw: list[NDArray[np.float64]] = []
    is_train: list[bool] = []
    for source in SOURCES:
        pairs = list(combinations(source))
        for reference in source.references:
            raw.append(np.concatenate(list(_measure(reference, pairs))))
            keys += [(reference, *pair) for pair in pairs]
            is_train += [source.split == "train"] * len(pairs)
    values = np.concatenate(raw)
    write_knots(fit_knots(values[np.array(is_train)]))
    percent = 100 * shares(values)
    with LABELS_FILE.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["reference_id", "distortion", "level", "pseudo_mos", "mos_std"])
        for key, row in zip(keys, percent, strict=True):
            writer.writerow([*key, f"{row.mean():.2f}", f"{row.std():.2f}"])


def _measure(reference: str, pairs: list[tuple[str, int]], batch: int = 19) -> Iterator[NDArray[np.float64]]:
    def to_batch(pictures: list[Picture]) -> torch.Tensor:
        return from_uint8(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous())

    for start in range(0, len(pairs), batch):
        both = [render(f"{reference}_{name}_{level}") for name, level in pairs[start : start + batch]]
        yield measure(to_batch([ref for _, ref in both]), to_batch([x for x, _ in both]))
