"""The table of score-consistency detectors: `python benchmarks/detection/table.py [--model compact] [--limit 40]`.

One line per detector, over attacks toward higher and toward lower scores:

- AUROC, TPR: of clean against attacked images, TPR where 5 % of the clean ones are called attacked;
- shift: mean absolute shift of the attacked scores;
- past: mean absolute shift where an image that is noticed counts 0: what the attacker gets past the detector.

The oblivious attacker knows the model only. The adaptive one also knows the detector and its threshold
(`iqa_robust.defenses.detection.base.Watched`), and keeps the penalty, of those tried, that gets him most past it. The
threshold is set on the training split, the numbers are of the test split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence

import numpy as np
import torch

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.datasets.base import Dataset
from iqa_robust.defenses.detection.base import Detector, Watched
from iqa_robust.defenses.detection.consistency import PurifierDifference, StudentDifference
from iqa_robust.measures.detection import auroc, threshold_at_fpr
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import content_seeds, seeded
from iqa_robust.records import Budget

COLUMNS = (
    "detector",
    *(f"{knowledge} {name}" for knowledge in ("oblivious", "adaptive") for name in ("AUROC", "TPR", "shift", "past")),
)
DETECTORS: dict[str, Detector] = {
    "jpeg": PurifierDifference(purifier="jpeg"),
    "median": PurifierDifference(purifier="median"),
    "gaussian": PurifierDifference(purifier="gaussian"),
    "dncnn": PurifierDifference(purifier="dncnn"),
    "student": StudentDifference(),
}
PENALTIES = (1.0, 3.0, 10.0)
"""Native units of the score per unit of the statistic, both on the model's scale."""
TOWARD = {"up": 1, "down": -1}


def pictures(dataset: Dataset) -> torch.Tensor:
    """All images (N, 3, H, W) of a dataset; they must be of one size."""
    return torch.stack([item.x for item in dataset])


def statistics(detector: Detector, model: IQAModel, x: torch.Tensor) -> np.ndarray:
    """(N,) under recorded draws."""
    with torch.no_grad(), seeded(content_seeds(x, 0)):
        return detector.statistic(model, x).double().numpy()


def lines(
    model: IQAModel,
    detectors: Mapping[str, Detector],
    calibration: torch.Tensor,
    x: torch.Tensor,
    attack: Attack,
    budget: Budget,
) -> list[dict[str, object]]:
    """One dict per detector, keyed by `COLUMNS`."""
    goals = {goal: TOWARD[goal] * (1 if model.info.higher_is_better else -1) for goal in TOWARD}
    with torch.no_grad():
        before = model(x).double().numpy()
    oblivious = {goal: attack(model, x, goal=goal, budget=budget).images for goal in goals}
    found = []
    for name, detector in detectors.items():
        threshold = threshold_at_fpr(statistics(detector, model, calibration))
        clean = statistics(detector, model, x)

        def reached(images: Sequence[torch.Tensor], detector: Detector = detector) -> tuple[np.ndarray, np.ndarray]:
            with torch.no_grad():
                shift = np.concatenate([np.abs(model(z).double().numpy() - before) for z in images])
            return np.concatenate([statistics(detector, model, z) for z in images]), shift

        tried = []
        for penalty in PENALTIES:
            watched = {
                goal: Watched(model, detector, threshold=threshold, penalty=penalty, toward=toward)
                for goal, toward in goals.items()
            }
            tried.append(reached([attack(watched[g], x, goal=g, budget=budget).images for g in goals]))
        adaptive = max(tried, key=lambda pair: _past(*pair, threshold))
        line: dict[str, object] = {"detector": name}
        for knowledge, (values, shift) in (("oblivious", reached(list(oblivious.values()))), ("adaptive", adaptive)):
            line[f"{knowledge} AUROC"] = auroc(clean, values)
            line[f"{knowledge} TPR"] = float((values > threshold).mean())
            line[f"{knowledge} shift"] = float(shift.mean())
            line[f"{knowledge} past"] = _past(values, shift, threshold)
        found.append(line)
    return found


def _past(values: np.ndarray, shift: np.ndarray, threshold: float) -> float:
    return float(np.where(values > threshold, 0.0, shift).mean())


def text(rows: Sequence[Mapping[str, object]], columns: Sequence[str] = COLUMNS) -> str:
    """A Markdown table."""

    def cell(value: object) -> str:
        return f"{value:.2f}" if isinstance(value, float) else str(value)

    head = ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    return "\n".join([*head, *("| " + " | ".join(cell(row[name]) for name in columns) + " |" for row in rows), ""])


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="The table of score-consistency detectors.")
    parser.add_argument("--model", default="compact")
    parser.add_argument("--limit", type=int, default=40, help="images of either split")
    parser.add_argument("--crop", type=int, default=96)
    parser.add_argument("--eps-255", type=float, default=4.0)
    parser.add_argument("--steps", type=int, default=10)
    given = parser.parse_args(arguments)
    model = ir.models.create(given.model).eval()
    sets = {
        split: pictures(ir.datasets.create("photos", split=split, limit=given.limit, crop=given.crop))
        for split in ("train", "test")
    }
    budget = Budget(eps_255=given.eps_255, steps=given.steps)
    rows = lines(model, DETECTORS, sets["train"], sets["test"], ir.attacks.create("pgd"), budget)
    sys.stdout.write(text(rows))


if __name__ == "__main__":
    main()
