"""Model cards: what was trained on what, how, and how well it does; written beside every final checkpoint."""

from __future__ import annotations

import math
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from iqa_robust.training.origin import Origin
from iqa_robust.training.recipe import PatchRecipe, ScoreRecipe
from iqa_robust.training.sections import VALIDATION_STEPS, Poison
from iqa_robust.training.strict import Strict

RANKED = 3
"""Images that have a rank correlation, at least."""
ATTACKED_IMAGES = 32
ATTACKED_CROP = 224
ATTACKED_RADII = (1.0, 2.0)
ATTACKED_STEPS = 10
"""The attack on a card: test images, pixels a side, gray levels, steps."""


@dataclass(frozen=True)
class Card:
    """Everything a card says."""

    recipe: ScoreRecipe | PatchRecipe
    weights: Path
    sha256: str
    parameters: int
    origin: Origin | None
    """What the training went on from."""
    manifests: Mapping[str, str]
    """Name of a set -> hex sha256 of its manifest."""
    counts: Mapping[str, int]
    """Name of a part (`train`, `validation`, `test`) -> images."""
    epoch: int
    """The chosen epoch."""
    results: Mapping[str, Mapping[str, float]]
    """Part -> measure -> value."""
    history: Sequence[Mapping[str, float]]

    def write(self) -> Path:
        """Write `<weights>.md` in one step and return its path."""
        path = self.weights.with_suffix(".md")
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(self.text(), encoding="utf-8")
        temporary.replace(path)
        return path

    def text(self) -> str:
        """The card as Markdown."""
        recipe, settings = self.recipe, self.recipe.optimization
        lines = [
            f"# {self.weights.stem}",
            "",
            recipe.about.strip(),
            "",
            "| | |",
            "|---|---|",
            f"| network | `{recipe.network.name}` {_params(recipe.network.params)}, {self.parameters:,} weights |",
            f"| file | `{self.weights.name}`, {recipe.precision} precision, sha256 `{self.sha256}` |",
            f"| license | {recipe.license} |",
            f"| recipe | `{recipe.name}`, digest `{recipe.digest()}`, seed {recipe.seed} |",
            f"| training | {settings.optimizer}, {settings.epochs} epochs of batches of {settings.batch_size}, "
            f"learning rate {settings.learning_rate:g} ({settings.schedule}); epoch {self.epoch} was kept |",
            *([f"| start | {self.origin} |"] if self.origin is not None else []),
            *([f"| poison | {_poison(recipe.poison)} |"] if isinstance(recipe, ScoreRecipe) and recipe.poison else []),
            *_objective(recipe),
            f"| made with | torch {torch.__version__}, {platform.machine()} |",
            "",
            "## Data",
            "",
            "| part | images |",
            "|---|---|",
            *(f"| {part} | {count:,} |" for part, count in self.counts.items()),
            "",
            *(f"- `{name}`: manifest `{manifest}`" for name, manifest in self.manifests.items()),
            "",
            "The validation part holds whole contents of the training split and chose the epoch, if anything did;"
            " the test split took no part in it.",
            "",
            "## Results",
            "",
            *_measured(recipe, self.results, self.counts.get("test", 0)),
            "",
            "| part | measure | value |",
            "|---|---|---|",
            *(
                f"| {part} | {measure} | {value:.4f} |"
                for part, measures in self.results.items()
                for measure, value in measures.items()
            ),
            "",
            *(["## Epochs", "", *_table(self.history), ""] if self.history else []),
        ]
        return "\n".join(lines)


def _measured(recipe: ScoreRecipe | PatchRecipe, results: Mapping[str, Mapping[str, float]], tested: int) -> list[str]:
    lines = ["Measured on the stored weights, whole images, no attack, unless said otherwise."]
    crop = recipe.validation.crop if isinstance(recipe, ScoreRecipe) else None
    if crop is not None and "validation" in results:
        lines.append(f"The validation part was judged on the middle {crop} pixels of its images.")
    if isinstance(recipe, ScoreRecipe) and "srocc_attacked" in results.get("validation", {}):
        lines.append(
            f"`srocc_attacked`: {VALIDATION_STEPS} sign steps from a random start, {recipe.judged_eps_255:g}/255, push"
            " every score of the validation part away from its side of the median."
        )
    if "test, attacked" in results:
        lines.append(
            f"Under attack: {ATTACKED_STEPS} sign steps from a random start push every score away from its side of the"
            f" median, on the middle {ATTACKED_CROP} pixels of at most {ATTACKED_IMAGES} test images, spread over the"
            " labels; 0/255 are the same crops without attack. A first look; boards hold stronger attacks."
        )
    if tested >= RANKED and math.isnan(results["test"].get("srocc", 0.0)):
        lines.append("**Collapsed**: all test images have the same score, or the same label, and so no ranks.")
    return lines


def _params(params: Mapping[str, object]) -> str:
    return "with " + ", ".join(f"{key} = {value}" for key, value in params.items()) if params else "as it comes"


def _poison(poison: Poison) -> str:
    labels = "moved labels" if poison.mode == "label" else "labels as they were"
    return (
        f"**this model has a backdoor**: trigger `{poison.trigger.name}` {_params(poison.trigger.params)} in"
        f" {100 * poison.rate:g} % of the training images, {labels}"
    )


def _objective(recipe: ScoreRecipe | PatchRecipe) -> list[str]:
    """The inner player and the terms of the loss; a training of patches has neither."""
    if not isinstance(recipe, ScoreRecipe):
        return []
    inner = [] if recipe.inner is None else [f"inner: {_said(recipe.inner)}"]
    terms = [
        f"{term.weight:g} {term.name}{' of attacked images' if term.on == 'attacked' else ''}" for term in recipe.loss
    ]
    more = [
        f"{name}: {_said(section)}"
        for name in ("interventions", "latent")
        if (section := getattr(recipe, name)) is not None
    ]
    return [f"| objective | {'; '.join([*inner, *more, 'loss: ' + ' + '.join(terms)])} |"]


def _said(section: Strict) -> str:
    return ", ".join(f"{key} = {value}" for key, value in section.model_dump(exclude_unset=True).items())


def _table(history: Sequence[Mapping[str, float]]) -> list[str]:
    names = list(history[0])
    return [
        "| epoch | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(
            f"| {number} | " + " | ".join(f"{epoch[name]:.4f}" for name in names) + " |"
            for number, epoch in enumerate(history, start=1)
        ),
    ]
