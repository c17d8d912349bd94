"""Whether the SortMask-style gate is robust or only hides its slope: attacks through other slopes, and longer ones.

    python benchmarks/robust_training/gate_slope.py --out DIR [--method NAME] [--databases a,b] [--seeds 0,1]

A gate whose slope is zero where values lie near the mean could leave an attack without a gradient. So every checkpoint
of a method with that gate is attacked (PGD, goal `reflect`, 2/255) three times: through its true slope; with its values
as they are, through an identity in the place of every gate's slope, as one attacks quantizers (BPDA, Athalye et al.,
ICML 2018); and through the mean of both. A slope other than the true one that moves scores further would mean that the
true one hides a way. More steps show whether an attack was at its end. Images: those of the track of all methods.
Prints Markdown; scores are those of the model itself, in float32.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from databases import DATABASES, Database
from judged_images import images_of
from results import EPS

import iqa_robust as ir
from iqa_robust.measures.correlation import srocc
from iqa_robust.models.base import IQAModel, with_score_range
from iqa_robust.models.gates.sort_mask import SortMask
from iqa_robust.records import Budget

SLOPES = {"true": 0.0, "identity": 1.0, "mean of both": 0.5}
"""The share of the identity in the slope that the attack sees."""
COLUMNS = ("database", "seed", "slope", "steps", "SROCC clean", "attacked", "shift / sd")


def through(model: IQAModel, identity: float) -> IQAModel:
    """A copy with the same scores whose gates have the slope `identity` + (1 - `identity`) times their own."""

    def replaced(_: torch.nn.Module, inputs: tuple[Any, ...], h: torch.Tensor) -> torch.Tensor:
        (x,) = inputs
        other = h.detach() + (x - x.detach())
        return h + identity * (other - h)

    twin = copy.deepcopy(model)
    for part in twin.modules():
        if isinstance(part, SortMask):
            part.register_forward_hook(replaced)
    return twin


def lines(checkpoint: Path, database: Database, steps: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """One line per slope and number of steps, without database and seed."""
    model = with_score_range(ir.models.create(database.network, weights=str(checkpoint)), database.score_range).eval()
    images, mos, better = images_of(database)
    same = better if model.info.higher_is_better else -better
    for count in steps:
        for name, identity in SLOPES.items():
            found = ir.attacks.create("pgd")(
                model,
                images,
                goal="reflect",
                budget=Budget(eps_255=EPS, steps=count),
                search=through(model, identity) if identity else None,
            )
            shift = (found.score_adv - found.score_clean).abs().mean() / found.score_clean.std()
            ranks = [same * srocc(scores, mos) for scores in (found.score_clean, found.score_adv)]
            yield (name, str(count), *(f"{value:.2f}" for value in ranks), f"{float(shift):.2f}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table, line by line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--method", default="sort-mask-correlation")
    parser.add_argument("--databases", default="clive")
    parser.add_argument("--seeds", default="0")
    parser.add_argument("--steps", default="20,100")
    given = parser.parse_args(arguments)
    sys.stdout.write(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
    for database in given.databases.split(","):
        for seed in given.seeds.split(","):
            checkpoint = given.out / database / f"{given.method}-seed{seed}.safetensors"
            for line in lines(checkpoint, DATABASES[database], [int(count) for count in given.steps.split(",")]):
                sys.stdout.write(f"| {' | '.join((database, seed, *line))} |\n")
                sys.stdout.flush()


if __name__ == "__main__":
    main()
