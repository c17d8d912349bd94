"""What gates do, as two pictures.

    python benchmarks/robust_training/gate_pictures.py --to docs/pictures

`gate_curves.svg`: output and slope of the SortMask-style gate by value against a value's deviation, for three
thresholds, and the weight of the soft-rank gate against a channel's rank. `gate_maps.png`: causal and non-causal maps
of the published `clive-sort-mask` at two public photographs, clean and attacked, in the colors of the report.
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Mapping
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from skimage import data

from iqa_robust import attacks, models
from iqa_robust.models.base import IQAModel
from iqa_robust.models.gates.rank_weights import RankWeights
from iqa_robust.models.gates.soft_rank_gate import SoftRankGate
from iqa_robust.models.gates.sort_mask import SortMask
from iqa_robust.records import Budget
from iqa_robust.tables.maps import HUES, OPACITY

THRESHOLDS = (0.5, 1.0, 2.0)
CROPS = {"astronaut": (0, 110), "coffee": (60, 200)}
"""Photographs that come with scikit-image, and the upper left corners of their crops."""
SIDE = 224
BUDGET = Budget(eps_255=2.0, steps=10)
GOAL = "down"
CELLS = 28
"""Finer maps are averaged to so many cells a side, or single pixels would be all there is to see."""
COLUMNS = [(place, kind) for place in ("first", "last") for kind in HUES]


def main() -> None:
    """Draw and write both pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, required=True, help="folder")
    given = parser.parse_args()
    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "gate_pictures"
    curves().savefig(given.to / "gate_curves.svg", metadata={"Date": None})
    model = models.create("trunk-regressor", weights="clive-sort-mask")
    maps(model, crops()).savefig(given.to / "gate_maps.png", dpi=80, pil_kwargs={"optimize": True})


def curves() -> Figure:
    """Responses of the gates themselves, not of formulas beside them."""
    figure, (output, slope, weight) = plt.subplots(1, 3, figsize=(9.6, 3.2))
    d = torch.linspace(-3, 3, 301)
    for threshold in THRESHOLDS:
        made, slopes = by_value(d, threshold)
        output.plot(d, made, label=f"b = {threshold:g}")
        slope.plot(d, slopes)
    output.plot(d, d, color="0.7", lw=0.8, label="no gate")
    output.set(title="sort-mask, by value", xlabel="d, deviations of the channel", ylabel="deviation that passes")
    slope.set(title="its slope", xlabel="d, deviations of the channel", ylim=(0, 1.05))
    output.legend(frameon=False, fontsize=8)
    r, passes = by_rank()
    weight.plot(r, passes, color="C3")
    weight.axvline(0.5, color="0.7", lw=0.8)
    weight.set(title="soft-rank: weight of a channel", xlabel="rank / C", ylim=(0, 1.05))
    figure.tight_layout()
    return figure


def by_value(d: torch.Tensor, threshold: float) -> tuple[torch.Tensor, torch.Tensor]:
    """What the gate makes of values d (n,) around a mean of zero, and the slope of each with the mean held."""
    gate = SortMask(1, form="elements", threshold=threshold).eval()
    # a value and its mirror image: their mean is zero, and stays so when both move
    pairs = torch.stack([d, -d], dim=1).reshape(-1, 1, 1, 2).requires_grad_()
    made = gate(pairs)[..., 0]
    (moved,) = torch.autograd.grad(made.sum(), pairs)
    return made.detach().flatten(), (moved[..., 0] - moved[..., 1]).flatten()


def by_rank() -> tuple[torch.Tensor, torch.Tensor]:
    """Ranks (n,), as shares of the channels, and the weights that the gate's defaults give them."""
    defaults = {name: entry.default for name, entry in inspect.signature(SoftRankGate).parameters.items()}
    known = inspect.signature(RankWeights).parameters
    weights = RankWeights(**{name: value for name, value in defaults.items() if name in known})
    r = torch.linspace(0, 1, 201)
    # hard ranks in the place of soft ones: the curve is drawn against the rank itself
    weights.operator = weights.operator._replace(rank=lambda values, temperature: values)
    return r, weights(r[None]).flatten()


def crops() -> dict[str, torch.Tensor]:
    """Public photographs (3, SIDE, SIDE) in [0, 1], by name."""
    found = {}
    for name, (top, left) in CROPS.items():
        part = getattr(data, name)()[top : top + SIDE, left : left + SIDE]
        found[name] = torch.from_numpy(part.copy()).permute(2, 0, 1).float() / 255
    return found


def maps(model: IQAModel, pictures: Mapping[str, torch.Tensor]) -> Figure:
    """Two rows per picture, clean and attacked; columns are the picture and the maps of the first and the last gate.

    Both states share each map's scale.
    """
    attack = attacks.create("pgd")
    figure, axes = plt.subplots(2 * len(pictures), 5, figsize=(7.6, 3.16 * len(pictures)), squeeze=False)
    for number, (name, clean) in enumerate(pictures.items()):
        attacked = attack(model, clean[None], goal=GOAL, budget=BUDGET).images[0]
        images = torch.stack([clean, attacked])
        rows = axes[2 * number : 2 * number + 2]
        explained = model.explain(images) or []
        scores = model(images).tolist()
        for row, image, state, score in zip(rows, images, ("clean", "attacked"), scores, strict=True):
            row[0].imshow(image.permute(1, 2, 0).numpy())
            row[0].set_ylabel(f"{name}, {state}\nscore {score:.1f}", fontsize=8)
        for column, (place, kind) in enumerate(COLUMNS, start=1):
            layer = explained[0 if place == "first" else -1]
            values = cells(layer.causal_map if kind == "causal" else layer.non_causal_map)
            top = values.max().clamp(min=1e-12)
            for row, image, one in zip(rows, images, values / top, strict=True):
                row[column].imshow(image.mean(dim=0).numpy(), cmap="gray", vmin=-0.3, vmax=1.3)
                row[column].imshow(layered(one.numpy(), kind), extent=(-0.5, SIDE - 0.5, SIDE - 0.5, -0.5))
    for ax, (place, kind) in zip(axes[0, 1:], COLUMNS, strict=True):
        ax.set_title(f"{place} gate, {kind}", fontsize=8)
    for ax in axes.flat:
        ax.set(xticks=[], yticks=[])
    figure.tight_layout(pad=0.4)
    return figure


def cells(values: torch.Tensor) -> torch.Tensor:
    """Maps (N, H, W) with at most `CELLS` cells a side."""
    height, width = values.shape[1:]
    return F.adaptive_avg_pool2d(values[:, None], (min(height, CELLS), min(width, CELLS)))[:, 0]


def layered(values: np.ndarray, kind: str) -> np.ndarray:
    """A map (H, W) in [0, 1] as a translucent layer (H, W, 4), as the report lays it over a picture."""
    low, high = (np.array(color) / 255 for color in HUES[kind])
    share = values[..., None]
    return np.concatenate([(1 - share) * low + share * high, OPACITY * np.sqrt(share)], axis=2)


if __name__ == "__main__":
    main()
