"""What a cell costs beyond its attack: reading, probes, visibility, Parquet; `python benchmarks/speed/overhead.py`."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from cell import BATCH, GOAL, on_disk, run_cell, some
from measure import Seconds, alternate
from networks import NETWORKS, network, pictures

import iqa_robust as ir
from iqa_robust.harness.decoded import Decoded
from iqa_robust.harness.environment import keep_freed_memory
from iqa_robust.harness.kept import Kept
from iqa_robust.harness.precision import Precision, decide
from iqa_robust.models.base import IQAModel
from iqa_robust.models.prepared.twin import prepare
from iqa_robust.records import Budget


class Taken(NamedTuple):
    """What was timed."""

    first: Seconds
    """A PGD cell from disk to record, with nothing kept of earlier ones."""
    later: Seconds
    """The same after another cell on the same model: its images, probes, clean scores and first slopes are known."""
    loop: Seconds
    """The bare loop over the attack, with the images in memory and the model prepared."""


def overhead(model: IQAModel, x: torch.Tensor, precision: Precision, steps: int, repeats: int) -> Taken:
    """Seconds for the images `x`; all three attack the same batches in the same way."""
    attack, budget = ir.attacks.create("pgd"), Budget(eps_255=4, steps=steps)
    search = prepare(model, precision.gradients, x[:1])

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = on_disk(folder, x, len(x))
        batches = torch.stack([item.x for item in dataset]).split(BATCH)

        def cell(earlier: tuple[Decoded, Kept] | None) -> torch.Tensor:
            with tempfile.TemporaryDirectory() as out:
                record = run_cell(model, dataset, attack, budget, precision, Path(out), earlier)
            return torch.tensor(record.images["score_adv"].to_numpy())

        def loop() -> torch.Tensor:
            return torch.cat(
                [attack(model, batch, goal=GOAL, budget=budget, search=search).score_adv for batch in batches]
            )

        known = (Decoded(dataset), Kept())
        cell(known)
        runs = {"first": lambda: cell(None), "later": lambda: cell(known), "loop": loop}
        seconds, scores = alternate(runs, repeats)
    for name in ("first", "later"):
        assert torch.allclose(scores[name].float(), scores["loop"], atol=1e-3)  # they did the same
    return Taken(**seconds)


def sentence(taken: Taken) -> str:
    """The overhead, by the clock and in the processor's time."""

    def over(cell: Seconds) -> str:
        wall, cpu = (100 * (whole / bare - 1) for whole, bare in zip(cell, taken.loop, strict=True))
        return f"{wall:.1f} % (in the processor's time {cpu:.1f} %)"

    return (
        f"harness overhead of the first cell on a model {over(taken.first)}, of a later one {over(taken.later)}: they"
        f" take {taken.first.wall:.2f} and {taken.later.wall:.2f} s, the bare attack loop {taken.loop.wall:.2f} s"
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print one line per network."""
    parser = argparse.ArgumentParser(description="Harness overhead: a whole PGD cell over the bare attack loop.")
    parser.add_argument("--models", nargs="+", choices=tuple(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--side", type=int, default=224)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    given = parser.parse_args(arguments)
    torch.set_num_threads(given.threads)
    keep_freed_memory()
    for name in given.models:
        model, x = network(name, given.side), pictures(given.images, given.side)
        print(f"{name}: {sentence(overhead(model, x, decide(model, some(x)), given.steps, given.repeats))}")


if __name__ == "__main__":
    main()
