"""How steep the scores are: of trained checkpoints, and of one network into which gates are plugged without training.

    python benchmarks/robust_training/slopes.py --out DIR [--methods a,b] [--databases a,b] [--seed 0]

The slope is the L1 norm of the gradient of an image's score, times one gray level: how far the score would move if
every value moved by one level along its slope, were the score linear. In deviations of the model's own clean scores, a
mean over images. The first table: checkpoints below `DIR`, beside how far `worst-case` moved their scores in the
records. The second: gates put into the clean network after every resolution, their running averages taken from
`FITTED` training images and the head fitted to those anew by ridge regression, so that gate and head differ and the
trunk does not. A lower slope alone is no robustness; it is what the module is said to lower. Images: those of the track
of all methods.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from databases import DATABASES, Database
from differences import found_in
from judged_images import images_of
from methods import METHODS

import iqa_robust as ir
from iqa_robust.measures.correlation import srocc
from iqa_robust.models.base import with_score_range
from iqa_robust.models.checkpoints import load
from iqa_robust.models.trunk_regressor import TrunkNetwork
from iqa_robust.records import read_records
from iqa_robust.training.regressor import load_network
from iqa_robust.training.ridge import fit_head

PLUGGED: dict[str, dict[str, Any] | None] = {
    "no gate": None,
    **{
        f"sort-mask, elements, {threshold:g} deviations": {
            "name": "sort-mask",
            "form": "elements",
            "threshold": threshold,
        }
        for threshold in (0.25, 0.5, 1.0, 2.0)
    },
    "sort-mask, channels": {"name": "sort-mask"},
    "soft-rank": {"name": "soft-rank"},
    "random": {"name": "random"},
}
"""Gates by the name of their line."""
FITTED = 480
"""Training images to which heads are fitted."""


def slope(model: torch.nn.Module, images: torch.Tensor) -> tuple[float, torch.Tensor]:
    """The mean slope as defined above, and the scores (N,) of the images (N, 3, H, W)."""
    slopes, scores = [], []
    for image in images.split(1):
        x = image.clone().requires_grad_()
        value = model(x)
        (gradient,) = torch.autograd.grad(value.sum(), x)
        slopes.append(float(gradient.abs().sum()) / 255)
        scores.append(value.detach())
    found = torch.cat(scores)
    return float(np.mean(slopes) / found.std()), found


def trained(out: Path, names: Sequence[str], methods: Sequence[str], seed: int) -> Iterator[tuple[str, ...]]:
    """One line per method: its name, and per database the slope and the shift of `worst-case` in its records."""
    images = {name: images_of(DATABASES[name])[0] for name in names}
    records = {name: found_in(read_records(out / "results" / f"robust-{name}")) for name in names}
    for method in methods:
        texts = []
        for name in names:
            path = out / name / f"{method}-seed{seed}.safetensors"
            if not path.exists():
                texts.append("")
                continue
            model = ir.models.create(DATABASES[name].network, weights=str(path))
            value, _ = slope(with_score_range(model, DATABASES[name].score_range).eval(), images[name])
            record = records[name].get(method, {}).get(seed)
            shift = "-"
            if record is not None:
                moved = (record.images["score_adv"] - record.images["score_clean"]).abs().mean()
                shift = f"{moved / record.images['score_clean'].std():.2f}"
            texts.append(f"{value:.2f}, {shift}")
        yield (f"`{method}`", *texts)


def plugged(checkpoint: Path, database: Database, gates: Mapping[str, Any] = PLUGGED) -> Iterator[tuple[str, ...]]:
    """One line per gate: its name, the slope, and the clean SROCC of what it leaves of the network."""
    params = load(checkpoint).config["params"]
    images, mos, better = images_of(database)
    learned, labels, _ = images_of(database, "train", limit=FITTED)
    for name, gate in gates.items():
        gated = {**params, "gate": None if gate is None else {**gate, "where": "every"}}
        network = TrunkNetwork(**gated).eval()
        load_network(network, database.network, gated, str(checkpoint))
        fit(network, learned, labels)
        value, scores = slope(network, images)
        yield (name, f"{value:.2f}", f"{better * srocc(scores, mos):.2f}")


@torch.no_grad()
def fit(network: TrunkNetwork, images: torch.Tensor, labels: Sequence[float]) -> None:
    """Take the gates' running averages from the images, then fit the head to their labels by ridge regression."""
    network.gates.train()
    for batch in images.split(8):
        network.features(batch)
    network.gates.eval()
    fit_head(network, torch.cat([network.features(batch) for batch in images.split(8)]), torch.tensor(labels))


def main(arguments: Sequence[str] | None = None) -> None:
    """Print both tables, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--databases", default="clive,biq2021,photos")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args(arguments)
    databases = given.databases.split(",")
    columns = ("method: slope, shift under `worst-case`", *databases)
    _print([columns, ("---",) * len(columns)])
    for line in trained(given.out, databases, given.methods.split(","), given.seed):
        _print([line])
    for database in databases:
        sys.stdout.write("\n")
        _print([(f"{database}: plugged in, no training", "slope", "clean SROCC"), ("---",) * 3])
        for line in plugged(given.out / database / f"clean-seed{given.seed}.safetensors", DATABASES[database]):
            _print([line])


def _print(lines: Sequence[Sequence[str]]) -> None:
    for line in lines:
        sys.stdout.write(f"| {' | '.join(line)} |\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
