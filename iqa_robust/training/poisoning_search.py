"""UAP-DCT: the search for a BAIQA trigger that moves the scores of a surrogate as far as it can."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from iqa_robust.attacks.base import frozen
from iqa_robust.attacks.poisoning.baiqa import BAIQA, stamped
from iqa_robust.attacks.poisoning.trigger import save_pattern
from iqa_robust.errors import RequestError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.checkpoints import load
from iqa_robust.models.randomness import derive_seed
from iqa_robust.training.data import Sample, batch_count, batches_of, open_split
from iqa_robust.training.poisoning import scored_by, share_of
from iqa_robust.training.progress import Clock, Listener, Progress
from iqa_robust.training.recipe import TriggerRecipe

FIRST_STRENGTH = 300.0
"""The search begins at strengths drawn uniformly between minus and plus this."""
PENALTY = 1e8
"""Weight of the mean square change beyond the bound, images in [0, 1], scores on a scale of 100."""


def search_trigger(recipe: TriggerRecipe, *, data_root: Path | None, out: Path, listener: Listener) -> Path:
    """Search on the attacker's share of the training split; write the trigger to `out` and its card beside it.

    Raises:
        RequestError: the surrogate cannot be used, or the share holds fewer than two images.
    """
    dataset = open_split(recipe.data, "train", data_root)
    rows = dataset.rows()
    samples = [Sample(dataset, rows[i]) for i in share_of(len(rows), recipe.share, recipe.seed, "poison")]
    batches = batch_count(len(samples), recipe.batch_size)
    if not batches:
        raise RequestError(f"recipe {recipe.name!r}: expected at least two images to search on, got {len(samples)}.")
    surrogate = scored_by(recipe.surrogate)
    generator = torch.Generator().manual_seed(derive_seed(recipe.seed, "first strengths"))
    strengths = FIRST_STRENGTH * (2 * torch.rand(BAIQA.shape, generator=generator) - 1)
    clock = Clock()
    with frozen(surrogate):
        for epoch in range(1, recipe.epochs + 1):
            for number, images in enumerate(_images(samples, recipe, epoch), start=1):
                strengths, gain = improved(strengths, surrogate, images, recipe)
                clock.images += len(images) * recipe.steps
                listener(
                    Progress(
                        "search",
                        done=number,
                        total=batches,
                        epoch=epoch,
                        epochs=recipe.epochs,
                        rate=clock.rate(),
                        loss=-gain,
                    )
                )
        measured = [effect(strengths, surrogate, images, recipe.order) for images in _images(samples, recipe, 0)]
    about = {
        "order": recipe.order,
        "recipe_digest": recipe.digest(),
        "source": f"iqa-robust, recipe {recipe.name}",
        "training_datasets": [f"{recipe.data.dataset}:train"],
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    save_pattern(out, BAIQA, strengths, about)
    _write_card(recipe, out, torch.stack(measured).mean(dim=0).tolist(), len(samples), dataset.manifest())
    return out


def improved(
    strengths: torch.Tensor, surrogate: IQAModel, images: torch.Tensor, recipe: TriggerRecipe
) -> tuple[torch.Tensor, float]:
    """The strengths (3, 64) after some steps of Adam on one batch (N, 3, H, W), and the mean squared shift before.

    Minimized is -mean (f(T(x)) - f(x))^2 + 1e8 max(mean (T(x) - x)^2, bound^2) with scores f on a scale of 100. The
    paper writes an absolute difference of scores where its code squares it; this follows the code. The large weight
    makes the second term a wall. Adam starts anew at every batch, so that its first steps go by the sign.
    """
    variable = strengths.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([variable], lr=recipe.learning_rate)
    with torch.no_grad():
        clean = _on_scale(surrogate, images)
    gains = []
    for _ in range(recipe.steps):
        triggered = stamped(images, variable, images.new_ones(len(images)), recipe.order)
        gain = (_on_scale(surrogate, triggered) - clean).square().mean()
        change = (triggered - images).square().mean().clamp(min=(recipe.rms_255 / 255) ** 2)
        optimizer.zero_grad()
        (PENALTY * change - gain).backward()
        optimizer.step()
        gains.append(gain.item())
    return variable.detach(), gains[0]


@torch.no_grad()
def effect(strengths: torch.Tensor, surrogate: IQAModel, images: torch.Tensor, order: str) -> torch.Tensor:
    """Mean shifts at alpha 1 and -1, on a scale of 100, and the mean square change in [0, 1]: (3,)."""
    clean = _on_scale(surrogate, images)
    up, down = (stamped(images, strengths, images.new_full((len(images),), alpha), order) for alpha in (1.0, -1.0))
    shifts = [(_on_scale(surrogate, z) - clean).mean() for z in (up, down)]
    return torch.stack([*shifts, (up - images).square().mean()])


def _on_scale(model: IQAModel, images: torch.Tensor) -> torch.Tensor:
    """Scores (N,) in hundredths of the model's range."""
    assert model.info.score_range is not None  # `scored_by` has looked
    low, high = model.info.score_range
    return model(images).float() * (100 / (high - low))


def _images(samples: list[Sample], recipe: TriggerRecipe, epoch: int) -> Iterator[torch.Tensor]:
    for images, _ in batches_of(samples, recipe.batch_size, recipe.augment, recipe.seed, epoch):
        yield images


def _write_card(recipe: TriggerRecipe, out: Path, measured: list[float], n_images: int, manifest: str) -> None:
    up, down, change = measured
    lines = [
        f"# {out.stem}",
        "",
        recipe.about.strip(),
        "",
        "| | |",
        "|---|---|",
        f"| file | `{out.name}`, strengths (3, 64) of a `baiqa` trigger, order {recipe.order!r},"
        f" sha256 `{load(out).sha256}` |",
        f"| recipe | `{recipe.name}`, digest `{recipe.digest()}`, seed {recipe.seed} |",
        f"| surrogate | `{recipe.surrogate.name}` {recipe.surrogate.params} |",
        f"| searched on | {n_images} images of `{recipe.data.dataset}:train`, manifest `{manifest}` |",
        f"| root mean square change at alpha = 1 | {255 * change**0.5:.2f}/255 |",
        f"| mean shift of the surrogate at alpha = 1 and -1, in hundredths of its range | {up:+.1f} and {down:+.1f} |",
    ]
    out.with_suffix(".md").write_text("\n".join([*lines, ""]), encoding="utf-8")
