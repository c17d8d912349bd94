"""What the gates of the published networks hold to be causal, and how that moves under attack.

    python benchmarks/robust_training/causal_channels.py

Images are those of the track of all methods; the data root is `IQA_ROBUST_DATA`. Printed per gate, as Markdown:

top tenth        share of the total importance in the most important tenth of the channels, mean over images
same             channels that two images have in common in that tenth, as a share of it; .10 is what chance gives
attacked, noise  under PGD (goal `reflect`, 2/255, 20 steps) and under random signs of the same size: Spearman's
                 correlation of importance with that of the clean image, mean move of a rank as a share of the
                 channels, and Pearson's correlation of the causal maps
silenced         SROCC with labels where a tenth of the channels after this gate is held at its mean over all images:
                 the tenth of the highest mean importance, and the mean over ten random tenths
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from typing import Any

import numpy as np
import torch
from databases import DATABASES
from judged_images import images_of
from results import EPS

import iqa_robust as ir
from iqa_robust.measures import plcc_raw, srocc
from iqa_robust.models.base import IQAModel, with_score_range
from iqa_robust.models.gates.explain import LayerExplanation
from iqa_robust.records import Budget

PUBLISHED = (("trunk-regressor", "clive-sort-mask", "clive"), ("compact", "cprl-style", "photos"))
"""Network, weights, and the database whose images are looked at."""
STEPS = 20
DRAWS = 10
COLUMNS = (
    "network", "gate", "channels", "top tenth", "same",
    "attacked: importance", "ranks", "map", "noise: importance", "ranks", "map",
    "SROCC", "silenced: top tenth", "random tenth",
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """A network and the images it is looked at with."""

    model: IQAModel
    images: torch.Tensor
    mos: Sequence[float]
    sign: float
    """1 where higher scores go with higher labels, else -1."""

    def srocc(self) -> float:
        """Of the scores with the labels, positive where they agree."""
        with torch.no_grad():
            scores = torch.cat([self.model(image[None]) for image in self.images])
        return self.sign * srocc(scores, self.mos)


def main() -> None:
    """Print the table, line by line."""
    sys.stdout.write(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}\n")
    for network, weights, database in PUBLISHED:
        images, mos, better = images_of(DATABASES[database])
        model = with_score_range(ir.models.create(network, weights=weights), DATABASES[database].score_range).eval()
        judged = Judged(model, images, mos, better if model.info.higher_is_better else -better)
        for cells in lines(judged):
            sys.stdout.write(f"| {' | '.join((f'`{weights}`', *cells))} |\n")
            sys.stdout.flush()


def lines(judged: Judged) -> Iterator[tuple[str, ...]]:
    """One line per gate, in the order an image passes them."""
    model, images = judged.model, judged.images
    budget = Budget(eps_255=EPS, steps=STEPS)
    changed = [
        ir.attacks.create(name)(model, images, goal="reflect", budget=budget).images for name in ("pgd", "noise")
    ]
    whole = judged.srocc()
    for before, *after in zip(*(explained(model, state) for state in (images, *changed)), strict=True):
        channels = before.importance.shape[1]
        tenth = max(1, channels // 10)
        top = (before.ranks <= tenth).float()
        share = (before.importance * top).sum(1) / before.importance.sum(1)
        common = [float((top[i] * top[j]).sum()) / tenth for i, j in combinations(range(len(top)), 2)]
        moved = [value for state in after for value in movement(before, state)]
        most = before.importance.mean(0).argsort(descending=True)[:tenth]
        generator = torch.Generator().manual_seed(0)
        random = [torch.randperm(channels, generator=generator)[:tenth] for _ in range(DRAWS)]
        without, *others = silenced(judged, before.layer, [most, *random])
        values = [float(share.mean()), float(np.mean(common)), *moved, whole, without, float(np.mean(others))]
        yield (f"`{before.layer}`", str(channels), *(f"{value:.2f}" for value in values))


def explained(model: IQAModel, images: torch.Tensor) -> list[LayerExplanation]:
    """Explanations of a network with gates."""
    found = model.explain(images)
    assert found is not None
    return found


def movement(before: LayerExplanation, after: LayerExplanation) -> tuple[float, float, float]:
    """Correlation of importance, mean move of a rank as a share of the channels, correlation of causal maps."""
    pairs = zip(before.importance, after.importance, strict=True)
    maps = zip(before.causal_map.flatten(1), after.causal_map.flatten(1), strict=True)
    moved = (before.ranks - after.ranks).abs().double().mean() / before.ranks.shape[1]
    return (
        float(np.mean([srocc(a, b) for a, b in pairs])),
        float(moved),
        float(np.nanmean([plcc_raw(a, b) for a, b in maps])),
    )


def silenced(judged: Judged, gate: str, sets: Sequence[torch.Tensor]) -> list[float]:
    """SROCC where channels of what a gate makes are held at their means over all images and positions, set by set."""
    (part,) = (part for name, part in judged.model.named_modules() if f".{name}".endswith(f".{gate}"))
    sums: list[torch.Tensor] = []

    def note(_: torch.nn.Module, given: tuple[Any, ...], made: torch.Tensor) -> None:
        sums.append(made.mean(dim=(0, 2, 3)))

    with part.register_forward_hook(note):
        judged.srocc()
    means = torch.stack(sums).mean(0)

    def hold(channels: torch.Tensor, _: torch.nn.Module, given: tuple[Any, ...], made: torch.Tensor) -> torch.Tensor:
        held = made.clone()
        held[:, channels] = means[channels, None, None]
        return held

    left = []
    for channels in sets:
        with part.register_forward_hook(partial(hold, channels)):
            left.append(judged.srocc())
    return left


if __name__ == "__main__":
    main()
