"""A guarded classifier: `python benchmarks/detection/classifier.py`. Our reading of an abstract (arXiv:2004.06288).

The digits that come with scikit-learn, enlarged to 32 x 32 pixels; a small convolutional classifier, which stays as it
is; a smaller student, distilled from its softened answers; and an IQA model. The guard must find the images on which
the classifier goes wrong: attacked ones (oblivious, and adaptive against classifier and guard), noisy and blurred ones.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

import torch
from table import text
from torch import nn
from torch.nn import functional as F

import iqa_robust as ir
from iqa_robust.attacks.base import Attack
from iqa_robust.defenses.detection.guarded_classifier import PARTS, ClassifierGuard, Margin
from iqa_robust.images import to_8bit_grid
from iqa_robust.measures.detection import auroc, threshold_at_fpr
from iqa_robust.records import Budget

GUARDS: dict[str, tuple[str, ...]] = {"quality": ("quality",), "student": ("student",), "both": PARTS}
COLUMNS = ("images", "accuracy", *(f"{guard} {name}" for guard in GUARDS for name in ("AUROC", "TPR")))
TEMPERATURE = 4.0
PENALTY = 3.0
"""Logits that the adaptive attacker pays per unit of the guard's statistic."""


def digits() -> tuple[torch.Tensor, torch.Tensor]:
    """1797 digits as images (N, 3, 32, 32) on the 8-bit grid, in a random but fixed order, and their labels."""
    from sklearn.datasets import load_digits

    loaded = load_digits()
    images = torch.from_numpy(loaded.images).float()[:, None] / 16
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
    large = F.interpolate(images, scale_factor=4, mode="bilinear", align_corners=False).expand(-1, 3, -1, -1)
    return to_8bit_grid(large.clamp(0, 1))[order], torch.from_numpy(loaded.target)[order].long()


def network(width: int, seed: int) -> nn.Sequential:
    """A small convolutional classifier."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Sequential(
            *(nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.Conv2d(width, 2 * width, 3, stride=2, padding=1), nn.ReLU()),
            *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(32 * width, 10)),
        )


def train(net: nn.Module, x: torch.Tensor, targets: torch.Tensor, epochs: int, temperature: float = 1.0) -> nn.Module:
    """Adam on the cross-entropy with class probabilities (N, 10), softened by `temperature`."""
    optimizer = torch.optim.Adam(net.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(1)
    for _ in range(epochs):
        for batch in torch.randperm(len(x), generator=generator).split(64):
            loss = F.cross_entropy(net(x[batch]) / temperature, targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return net.eval().requires_grad_(False)


def attacked(attack: Attack, x: torch.Tensor, labels: torch.Tensor, budget: Budget, **watch: object) -> torch.Tensor:
    """Images (N, 3, H, W) on which the classifier is less sure of the label, by the margins of each label."""
    found = x.clone()
    for label in labels.unique().tolist():
        mine = labels == label
        found[mine] = attack(Margin(label=label, **watch), x[mine], goal="down", budget=budget).images  # type: ignore[arg-type]
    return found


def lines(n_test: int, budget: Budget, epochs: int) -> list[dict[str, object]]:
    """One dict per kind of image, keyed by `COLUMNS`; adaptive rows attack classifier and the guard they name."""
    x, y = digits()
    test, labels, calibration = x[:n_test], y[:n_test], x[n_test : 2 * n_test]
    rest, answers = x[2 * n_test :], F.one_hot(y[2 * n_test :], 10).float()
    classifier = train(network(8, seed=1), rest, answers, epochs)
    soft = (classifier(rest) / TEMPERATURE).softmax(dim=1)
    student = train(network(4, seed=2), rest, soft, epochs, TEMPERATURE)
    guard = ClassifierGuard(classifier, student, ir.models.create("compact").eval(), calibration)
    attack = ir.attacks.create("pgd")
    noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(3))
    blur = ir.defenses.create("gaussian", sigma=2.5)
    kinds = {
        "clean": test,
        "noise": to_8bit_grid((test + 0.3 * noise).clamp(0, 1)),
        "blur": to_8bit_grid(blur.purify(test)),
        "attacked, oblivious": attacked(attack, test, labels, budget, classifier=classifier),
    }
    thresholds = {
        name: threshold_at_fpr(guard.statistic(calibration, parts).double().numpy()) for name, parts in GUARDS.items()
    }
    for name, parts in GUARDS.items():
        watch = {"guard": guard, "parts": parts, "threshold": thresholds[name], "penalty": PENALTY}
        kinds[f"attacked, adaptive to {name}"] = attacked(attack, test, labels, budget, classifier=classifier, **watch)
    found = []
    for kind, images in kinds.items():
        line: dict[str, object] = {
            "images": kind,
            "accuracy": float((classifier(images).argmax(dim=1) == labels).double().mean()),
        }
        for name, parts in GUARDS.items():
            clean, values = (guard.statistic(z, parts).double().numpy() for z in (test, images))
            line[f"{name} AUROC"] = auroc(clean, values)
            line[f"{name} TPR"] = float((values > thresholds[name]).mean())
        found.append(line)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="A guarded classifier of digits.")
    parser.add_argument("--test", type=int, default=200, help="images, and as many for the thresholds")
    parser.add_argument("--eps-255", type=float, default=32.0)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args(arguments)
    rows = lines(given.test, Budget(eps_255=given.eps_255, steps=given.steps), given.epochs)
    sys.stdout.write(text(rows, COLUMNS))


if __name__ == "__main__":
    main()
